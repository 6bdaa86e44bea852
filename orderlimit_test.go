package certwright_test

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
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
