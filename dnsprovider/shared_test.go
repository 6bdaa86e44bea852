package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
)

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("n%d.example.com", i))
	}
	return names
}

// Two instances, each with a Solver of its own, at one name, and at names whose CNAMEs
// lead to one target: one order for each name, and no record is left. A provider that
// replaces sets has a moment in which a value is missing, which the CA may see.
func TestTwoInstancesAtOneName(t *testing.T) {
	for _, kind := range []string{"getter", "writer", "sets", "ids", "one Solver"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWriter("example.com")
				w.put("example.com", "acme", "foreign")
				w.sets, w.ids = kind == "sets", kind == "ids"
				m := newManaged(t, w)
				target := map[string]string{"_acme-challenge.n0.example.com": "acme.example.com", "_acme-challenge.n1.example.com": "acme.example.com"}
				m.cnames = target
				names := append(numbered(2), "*.n0.example.com", "*.n1.example.com")
				var wg sync.WaitGroup
				var one *dnsprovider.Solver
				for range 2 {
					var p dnsprovider.Provider = &fakeGetter{fakeWriter: w}
					if kind == "writer" {
						p = w
					}
					s, d := newSolver(w, p)
					if d.cnames = target; one != nil && kind == "one Solver" {
						s = one
					}
					one = s
					mgr := m.start(m.config(s))
					wg.Go(func() {
						if err := mgr.ManageSync(t.Context(), names); err != nil && !w.sets {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				time.Sleep(time.Hour)
				want(t, "records", w.records("example.com"), []string{"acme foreign"})
				want(t, "journal", m.journal(), nil)
				if n := len(m.ca.Orders()); n != len(names) && !w.sets {
					t.Errorf("%d orders", n)
				}
			})
		})
	}
}

// What the provider says of when to come back is in the error and in Status, and is
// kept to.
func TestTheProvidersRetryAfterIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		var limited atomic.Bool
		limited.Store(true)
		w.before = func(_ context.Context, call string) error {
			if limited.Load() && strings.HasPrefix(call, "append") {
				return laterError(2 * time.Hour)
			}
			return nil
		}
		m := newManaged(t, w)
		s, _ := newSolver(w, w)
		mgr := m.start(m.config(s))
		err := mgr.ManageSync(t.Context(), []string{"*.example.com"})
		wantError(t, err, "*.example.com", `zone "example.com"`, "dnsprovider_test", "429")
		if d, ok := certwright.RetryAfter(err); !ok || d != 2*time.Hour {
			t.Errorf("RetryAfter = %v, %v", d, ok)
		}
		st := mgr.Status()
		if in := time.Until(st[0].NextAt); in < 110*time.Minute || in > 3*time.Hour {
			t.Errorf("next in %v", in)
		}
		before := len(w.made("append"))
		time.Sleep(115 * time.Minute)
		if n := len(w.made("append")); n != before {
			t.Errorf("%d more calls", n-before)
		}
		limited.Store(false)
		time.Sleep(2 * time.Hour)
		if st := mgr.Status(); st[0].NotAfter.IsZero() {
			t.Errorf("Status %+v", st)
		}
		want(t, "records", w.records("example.com"), []string{})
	})
}

type laterError time.Duration

func (e laterError) Error() string             { return "429: too many requests" }
func (e laterError) RetryAfter() time.Duration { return time.Duration(e) }

// A provider of 20 s a call serves an apex and its wildcard, in two kinds of keys, and
// nothing is left.
func TestASlowProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		w.put("example.com", "_acme-challenge", "foreign")
		w.before = func(ctx context.Context, _ string) error { return sleep(ctx, 20*time.Second) }
		m := newManaged(t, w)
		s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
		conf := m.config(s)
		conf.KeyTypes = []certwright.KeyType{certwright.P256, certwright.RSA2048}
		mgr := m.start(conf)
		if err := mgr.Manage(t.Context(), certwright.Spec{Names: []string{"example.com", "*.example.com"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
		want(t, "journal", m.journal(), nil)
		if n := len(m.ca.Orders()); n != 2 {
			t.Errorf("%d orders", n)
		}
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// One of many names cannot be written: the error says which, the others' proofs
// serve the next attempt, and nothing is left.
func TestOneOfManyCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		var bad atomic.Bool
		bad.Store(true)
		w.before = func(_ context.Context, call string) error {
			if bad.Load() && strings.Contains(call, "_acme-challenge.n21=") {
				return errors.New("403: not allowed")
			}
			return nil
		}
		m := newManaged(t, w)
		s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
		mgr := m.start(m.config(s))
		err := mgr.Manage(t.Context(), certwright.Spec{Names: numbered(30)})
		wantError(t, err, "n21.example.com", "403: not allowed", `zone "example.com"`)
		time.Sleep(time.Minute)
		want(t, "records", w.records("example.com"), []string{})
		bad.Store(false)
		time.Sleep(2 * time.Hour)
		if st := mgr.Status(); st[0].NotAfter.IsZero() {
			t.Errorf("Status %+v", st[0])
		}
		if n := len(w.made("append")); n > 40 {
			t.Errorf("%d appends", n)
		}
		want(t, "records", w.records("example.com"), []string{})
		want(t, "journal", m.journal(), nil)
	})
}

// The provider is down for a day when records are to be removed, and the process
// starts anew with another configuration meanwhile: they go when it is back.
func TestRecordsGoAfterADayOfOutage(t *testing.T) {
	for what, change := range map[string]func(s *dnsprovider.Solver, conf *certwright.Config){
		"same":           func(*dnsprovider.Solver, *certwright.Config) {},
		"Target":         func(s *dnsprovider.Solver, _ *certwright.Config) { s.Target = "acme.example.com" },
		"Zone":           func(s *dnsprovider.Solver, _ *certwright.Config) { s.Zone = "example.com" },
		"another Zone":   func(s *dnsprovider.Solver, _ *certwright.Config) { s.Zone = "example.net" },
		"account's type": func(s *dnsprovider.Solver, c *certwright.Config) { solvers(c)["dns-account-01"] = s },
		"Spec alone": func(s *dnsprovider.Solver, c *certwright.Config) {
			a := *c.Issuers[0].(*certwright.ACME)
			a.Solvers, a.Account = nil, "other"
			c.Issuers = []certwright.Issuer{&a}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWriter("example.com", "example.net")
				w.put("example.com", "_acme-challenge", "foreign")
				var down atomic.Bool
				w.before = func(_ context.Context, call string) error {
					if down.Load() {
						return errors.New("503")
					}
					return nil
				}
				m := newManaged(t, w)
				s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
				m.validated = func() { down.Store(true) }
				mgr := m.start(m.config(s))
				if err := mgr.ManageSync(t.Context(), []string{"*.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(12 * time.Hour)
				if n := len(w.made("get")) + len(w.made("delete")); n > 120 {
					t.Errorf("%d calls in half a day", n)
				}
				m.stop(mgr)
				want(t, "records", slices.DeleteFunc(w.records("example.com"), func(r string) bool { return !strings.Contains(r, "foreign") }), []string{"_acme-challenge foreign"})
				if len(w.records("example.com")) != 2 {
					t.Fatalf("records %q", w.records("example.com"))
				}
				m.validated = nil
				next, _ := newSolver(w, &fakeGetter{fakeWriter: w})
				conf := m.config(next)
				spec := certwright.Spec{Names: []string{"*.example.com"}, Issuers: slices.Clone(conf.Issuers)}
				change(next, &conf)
				mgr = m.start(conf)
				if what == "Spec alone" {
					if err := mgr.Manage(t.Context(), spec); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(12 * time.Hour)
				down.Store(false)
				time.Sleep(61 * time.Minute)
				want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
				want(t, "journal", m.journal(), nil)
			})
		})
	}
}

func solvers(c *certwright.Config) map[string]certwright.Solver {
	return c.Issuers[0].(*certwright.ACME).Solvers
}
