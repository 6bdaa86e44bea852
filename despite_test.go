package certwright_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// A log handler that panics costs no name its certificate.
func TestLoggerThatPanicsStopsNoName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storedBy(t, f, "a.example.com")
		f.set(func() { f.err = nil })
		time.Sleep(100 * day) // it has expired, which is told as an error
		m := offline(t, f, func(c *Config) { c.Storage, c.Logger = mem, slog.New(panicky{slog.DiscardHandler}) })
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
			t.Errorf("expired: %+v", statusFor(t, m, "a.example.com"))
		}
	})
}

// The record of the last order was written by a newer version, which is not in use
// any more: it is left as it is, and the name is renewed all the same.
func TestOrderOfANewerVersionKeepsNoNameFromBeingRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		order := records.Order{Names: []string{"a.example.com"}, Issuer: conf.Issuers[0].ID()}
		if err := recordsOn(conf.Storage).StoreOrder(t.Context(), "a.example.com+p256", &order); err != nil {
			t.Fatal(err)
		}
		key := keysOf(t, conf.Storage)[0]
		const newer = "certwright order 2 of the future\n"
		if err := conf.Storage.Store(t.Context(), key, []byte(newer)); err != nil {
			t.Fatal(err)
		}
		m := start(t, conf)
		manage(t, m, "a.example.com")
		if s := statusFor(t, m, "a.example.com"); s.Degraded != "" || s.State != StateValid {
			t.Errorf("Status says %+v", s)
		}
		if value, err := conf.Storage.Load(context.Background(), key); err != nil || string(value) != newer {
			t.Errorf("the record is %q, %v now", value, err)
		}
	})
}

// The newest record has ended, and the one before it is still good.
func TestEndedCertificateDoesNotReplaceTheGoodOneBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storage.NewMemory()
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		manage(t, m, "a.example.com")
		good := mustLeaf(t, m, "a.example.com")
		f.set(func() {
			f.validity = func() (from, to time.Time) { return time.Now().Add(time.Hour), time.Now().Add(2 * time.Hour) }
		})
		if err := m.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		closeManager(t, m)
		f.set(func() { f.err = errors.New("down") })
		time.Sleep(3 * time.Hour)
		m = offline(t, f, func(c *Config) { c.Storage = mem })
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !mustLeaf(t, m, "a.example.com").Equal(good) {
			t.Error("what has ended is served in place of what is good")
		}
		f.set(func() { f.err, f.validity = nil, nil })
		time.Sleep(day)
		if mustLeaf(t, m, "a.example.com").Equal(good) {
			t.Error("what has ended was not replaced")
		}
	})
}

// panicky is a log handler that panics at errors.
type panicky struct{ slog.Handler }

func (p panicky) Enabled(context.Context, slog.Level) bool { return true }

func (p panicky) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		panic("no room for " + r.Message)
	}
	return nil
}
