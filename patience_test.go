package certwright

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/storage"
)

// notingIssuer notes for how long a port would be left to the program.
type notingIssuer struct {
	mu   sync.Mutex // guards m and list
	m    *Manager
	list []time.Duration
}

func (*notingIssuer) ID() string { return "noting" }

func (n *notingIssuer) Issue(context.Context, IssueRequest) (Issued, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, n.m.ports.Patience("http-01"))
	return Issued{}, errors.New("noted")
}

// last returns what was noted last.
func (n *notingIssuer) last(t *testing.T) time.Duration {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.list) == 0 {
		t.Fatal("the issuer was not asked")
	}
	d := n.list[len(n.list)-1]
	n.list = nil
	return d
}

// Who waits for ManageSync or Renew is not about to start a server: the Manager
// takes the port at once. It is asked of the ports themselves, because a real one
// would stop the bubble's clock.
func TestPatienceWithAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notingIssuer{}
		m, err := New(Config{
			Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Logger: slog.New(slog.DiscardHandler), Issuers: []Issuer{n},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		n.m = m
		_ = m.ManageSync(t.Context(), []string{"example.com"}) // which fails
		if d := n.last(t); d != 0 {
			t.Errorf("patience of %v while ManageSync waits", d)
		}
		time.Sleep(time.Hour)
		if d := n.last(t); d == 0 {
			t.Error("no patience when nobody waits")
		}
		_ = m.Renew(t.Context(), "example.com")
		if d := n.last(t); d != 0 {
			t.Errorf("patience of %v while Renew waits", d)
		}
		time.Sleep(time.Second)
		m.HTTPHandler(nil)
		_ = m.Renew(t.Context(), "example.com")
		if d := n.last(t); d == 0 {
			t.Error("no patience although a handler was asked for")
		}
	})
}
