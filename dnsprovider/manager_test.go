package dnsprovider_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
	"github.com/libdns/libdns"
)

// managed is a CA that looks at a provider's zones, and a Storage.
type managed struct {
	t       *testing.T
	w       *fakeWriter
	ca      *fakeca.CA
	storage *storage.Memory
	cnames  map[string]string

	validated func() // called when a name has been validated; nil: nothing
}

func newManaged(t *testing.T, w *fakeWriter) *managed {
	m := &managed{t: t, w: w, storage: storage.NewMemory()}
	m.ca = fakeca.New(fakeca.Options{
		BaseURL:    fmt.Sprintf("https://ca.%x.test", sha256.Sum256([]byte(t.Name())))[:40] + ".test",
		Challenges: []string{"dns-01"}, Validate: m.validate,
	})
	return m
}

// validate looks for the value at the name in any zone.
func (m *managed) validate(_ context.Context, ch fakeca.ChallengeInfo) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	sum := sha256.Sum256([]byte(ch.KeyAuthorization))
	value := base64.RawURLEncoding.EncodeToString(sum[:])
	name := "_acme-challenge." + ch.Identifier.Value
	if target := m.cnames[name]; target != "" {
		name = target
	}
	for zone, records := range m.w.zones {
		for _, r := range records {
			if libdns.AbsoluteName(r.Name, zone) == name+"." && r.Text == value {
				if m.validated != nil {
					m.validated()
				}
				return nil
			}
		}
	}
	return fmt.Errorf("no TXT record of %s is %s", ch.Identifier.Value, value)
}

func (m *managed) config(s certwright.Solver) certwright.Config {
	return certwright.Config{
		AgreeToTerms: true, Storage: m.storage, Logger: slog.New(slog.DiscardHandler), HTTPPort: -1, TLSPort: -1,
		Issuers: []certwright.Issuer{&certwright.ACME{
			Directory: m.ca.Directory(), HTTPClient: m.ca.Client(), Solvers: map[string]certwright.Solver{"dns-01": s},
		}},
	}
}

func (m *managed) start(conf certwright.Config) *certwright.Manager {
	m.t.Helper()
	mgr, err := certwright.New(conf)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { m.stop(mgr) })
	return mgr
}

func (m *managed) stop(mgr *certwright.Manager) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if err := mgr.Close(ctx); err != nil {
		m.t.Error(err)
	}
}

// copied is what a process that dies now leaves in storage.
func (m *managed) copied() *storage.Memory {
	out := storage.NewMemory()
	keys, err := m.storage.List(context.Background(), "")
	if err != nil {
		m.t.Error(err)
	}
	for _, k := range keys {
		b, err := m.storage.Load(context.Background(), k)
		if err == nil {
			err = out.Store(context.Background(), k, b)
		}
		if err != nil {
			m.t.Error(err)
		}
	}
	return out
}

func (m *managed) journal() []string {
	keys, err := m.storage.List(context.Background(), "v1/journal")
	if err != nil {
		m.t.Error(err)
	}
	return keys
}

// A process dies at any of its provider's calls, before or after that has had its
// effect: the next one has its certificate by the same order, and what is left is what
// was there before (D3).
func TestDyingAtAnyCall(t *testing.T) {
	for _, kind := range []string{"getter", "writer", "quiet", "sets"} {
		for _, after := range []bool{false, true} {
			died := true
			for at := 1; died; at++ {
				t.Run(fmt.Sprintf("%s, call %d, after it: %v", kind, at, after), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { died = testDying(t, kind, after, at) })
				})
			}
		}
	}
}

// testDying reports whether there were so many calls that the process has died.
func testDying(t *testing.T, kind string, after bool, at int) bool {
	spec := certwright.Spec{Names: []string{"example.com", "*.example.com"}}
	foreign := []string{"_acme-challenge foreign"}
	w := newWriter("example.com")
	if w.put("example.com", "_acme-challenge", "foreign"); kind == "sets" { // it dies before it can mend what that does to others
		w, foreign = newWriter("example.com"), []string{}
	}
	m := newManaged(t, w)
	var dead *storage.Memory
	calls := 0
	var zones map[string][]libdns.TXT
	w.before = func(context.Context, string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		calls++
		switch {
		case calls < at:
			return nil
		case calls == at:
			dead = m.copied()
			if after {
				return nil
			}
		}
		if zones == nil {
			zones = maps.Clone(w.zones)
		}
		return errors.New("the process is gone")
	}
	solver := func(w *fakeWriter) *dnsprovider.Solver {
		w.quiet, w.sets = kind == "quiet", kind == "sets"
		var p dnsprovider.Provider = w
		if kind == "getter" || kind == "sets" {
			p = &fakeGetter{fakeWriter: w}
		}
		s, _ := newSolver(w, p)
		return s
	}
	mgr := m.start(m.config(solver(w)))
	_ = mgr.Manage(t.Context(), spec)
	m.stop(mgr)
	if dead == nil {
		return false
	}
	if zones == nil {
		zones = w.zones
	}
	next := newWriter()
	next.zones = zones
	m.w, m.storage = next, dead
	mgr = m.start(m.config(solver(next)))
	if err := mgr.Manage(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Minute)
	want(t, "records", next.records("example.com"), foreign)
	want(t, "journal", m.journal(), nil)
	if n := len(m.ca.Orders()); n != 1 {
		t.Errorf("%d orders", n)
	}
	return true
}
