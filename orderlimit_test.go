package certwright_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
)

func TestOrderLimitHoldsUpNoOtherIssuer(t *testing.T) {
	count := 500
	if testing.Short() {
		count = 60
	}
	names := numbered(count, "example.com")
	run := func(t *testing.T, limit OrderLimit, check func(m *Manager)) time.Duration {
		ca, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "limited")})
		_, free := newFake(t, fakeca.Options{})
		iss := issuerAt(ca)
		iss.OrderLimit = limit
		conf.Issuers = []Issuer{iss}
		m := start(t, conf)
		began := time.Now()
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		// A name with another issuer does not wait for them.
		if err := m.Manage(t.Context(), Spec{Names: []string{"free.example.com"}, Issuers: free.Issuers}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Minute {
			t.Errorf("a name with another issuer waited %v", d)
		}
		check(m)
		manage(t, m, names...)
		if n := ca.Count("newOrder"); n != count {
			t.Errorf("%d orders for %d names", n, count)
		}
		return time.Since(began)
	}
	t.Run("off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if d := run(t, OrderLimit{}, func(*Manager) {}); d > time.Minute {
				t.Errorf("%d names took %v", count, d)
			}
		})
	})
	t.Run("on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := run(t, OrderLimit{Orders: 20, Per: time.Minute}, func(m *Manager) {
				synctest.Wait()
				waiting := 0
				for _, s := range m.Status() {
					if s.NextAction == ActionAwaitSlot && !s.NextAt.IsZero() {
						waiting++
					}
				}
				if waiting != count-20 {
					t.Errorf("%d names are seen waiting; want %d", waiting, count-20)
				}
			})
			want := time.Duration(count/20-1) * time.Minute
			if d < want || d > want+time.Minute {
				t.Errorf("%d names took %v; want %v", count, d, want)
			}
		})
	})
}

// A flight that asks nothing of its CA takes none of the orders that are allowed:
// for names that are held up, and for those that another instance has the lease
// of. (F28)
func TestOrdersAreCountedWhenTheIssuerIsCalled(t *testing.T) {
	for name, hold := range map[string]func(t *testing.T, ca *fakeca.CA, conf Config, names []string){
		"held up": func(t *testing.T, ca *fakeca.CA, conf Config, names []string) {
			defer ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(day, "not today")})()
			m := start(t, conf)
			if m.ManageSync(t.Context(), names) == nil {
				t.Error("all have a certificate")
			}
			closeManager(t, m)
		},
		"another's": func(t *testing.T, _ *fakeca.CA, conf Config, names []string) {
			for _, n := range names {
				lease, err := conf.Storage.(Locker).Lock(t.Context(), records.IssueLock(records.ID([]string{n}, P256)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = lease.Unlock(context.Background()) })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				names := numbered(30, "held.example.com")
				hold(t, ca, conf, names)
				limited := issuerAt(ca)
				limited.OrderLimit = OrderLimit{Orders: 2, Per: 10 * time.Hour}
				conf.Issuers = []Issuer{limited}
				m := start(t, conf)
				if err := m.ManageAsync(names); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				began := time.Now()
				manage(t, m, "a.example.com", "b.example.com")
				if took := time.Since(began); took > 2*time.Minute { // one is for the lease that a flight waits for
					t.Errorf("two new names took %v of a limit of two", took)
				}
			})
		})
	}
}

// First certificates that nobody waits for do not keep one from being renewed that
// is about to end, or replaced that is revoked. (F5, F28)
func TestWhatIsUrgentGoesBeforeFirstIssues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{DefaultLifetime: day})
		iss := issuerAt(ca)
		iss.OrderLimit = OrderLimit{Orders: 1, Per: time.Hour}
		conf.Issuers = []Issuer{iss}
		m := startAlone(t, conf)
		manage(t, m, "short.example.com")
		time.Sleep(5 * time.Hour)
		if err := m.ManageAsync(numbered(40, "first.example.com")); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			time.Sleep(50 * time.Minute) // not when the next order is allowed: a handshake has an expired one go first
			if leaf := mustLeaf(t, m, "short.example.com"); !time.Now().Before(leaf.NotAfter) {
				t.Fatalf("expired: %+v", statusFor(t, m, "short.example.com"))
			}
		}
	})
}
