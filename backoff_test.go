package certwright_test

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// failing is one name whose orders the CA refuses.
type failing struct {
	ca   *fakeca.CA
	conf Config
	name string
}

func newFailing(t *testing.T, opt fakeca.Options) *failing {
	f := &failing{name: "fails.example.com"}
	f.ca, f.conf = newFake(t, opt)
	return f
}

func (f *failing) refuse() {
	f.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", http.StatusForbidden, "not for you")})
}

// times are those of the attempts that were refused. One that says what it
// replaces is made once more without.
func (f *failing) times() []time.Time {
	var list []time.Time
	for _, r := range f.ca.Requests("newOrder") {
		if r.Status == http.StatusForbidden && (len(list) == 0 || r.Time.Sub(list[len(list)-1]) > time.Second) {
			list = append(list, r.Time)
		}
	}
	return list
}

// TestBacksOffForAWeekAcrossRestarts follows one name that fails for a week,
// during which the program is restarted every seven hours and waits for nothing:
// there is one curve, each wait is a random part of a fifth below its nominal
// length, and no restart costs an attempt. (R3)
func TestBacksOffForAWeekAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailing(t, fakeca.Options{})
		f.refuse()
		began := time.Now()
		for time.Since(began) < 7*day {
			m := startAlone(t, f.conf)
			if err := m.ManageAsync([]string{f.name}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // storage was read, and the first attempt made
			synctest.Wait()         // also when the next is due just now
			s := statusFor(t, m, f.name)
			if s.State != StateMissing || s.NextAction != ActionRetry || !s.NextAt.After(time.Now()) || s.Attempts != len(f.times()) {
				t.Errorf("after %d attempts Status says %+v", len(f.times()), s)
			}
			time.Sleep(7*time.Hour - time.Second)
			closeManager(t, m)
		}
		nominal := []time.Duration{time.Minute, 150 * time.Second, 375 * time.Second, 937 * time.Second, 2343 * time.Second, 5859 * time.Second, 14648 * time.Second}
		at := f.times()
		if len(at) < 33 || len(at) > 40 { // 7, and then one each 4.8 h to 6 h
			t.Errorf("%d attempts in a week, want 33 to 40", len(at))
		}
		exact := 0
		for i := 1; i < len(at); i++ {
			want := 6 * time.Hour
			if i <= len(nominal) {
				want = nominal[i-1]
			}
			got := at[i].Sub(at[i-1])
			if got < want*4/5 || got > want+time.Second {
				t.Errorf("the wait after failure %d was %v, want %v to %v", i, got, want*4/5, want)
			}
			if got > want*99/100 {
				exact++
			}
		}
		if exact > len(at)/2 {
			t.Errorf("%d of %d waits were not shortened by chance", exact, len(at))
		}
	})
}

// TestRenewalBackOffIsBoundedByTheLifeLeft follows one certificate for six days whose renewal fails
// until it has expired and then for two days more: the waits are bounded by a
// twelfth of the life that is left, and what is due meanwhile for other reasons
// neither makes an attempt nor takes the name's lease nor tells of a failure.
func TestRenewalBackOffIsBoundedByTheLifeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailing(t, fakeca.Options{DefaultLifetime: 6 * day, ARIRetryAfter: 20 * time.Minute})
		storage := &slowStorage{Memory: storage.NewMemory()}
		var log eventLog
		f.conf.Storage, f.conf.OnEvent = storage, log.add
		m := startAlone(t, f.conf)
		manage(t, m, f.name)
		f.refuse()
		leaf := mustLeaf(t, m, f.name)
		time.Sleep(8 * day)
		synctest.Wait()
		at := f.times()
		if len(at) < 20 {
			t.Fatalf("%d attempts in four days", len(at))
		}
		for i := 1; i < len(at); i++ {
			most := 6 * time.Hour
			if left := leaf.NotAfter.Sub(at[i-1]); left > 0 {
				most = min(most, max(left/12, 5*time.Minute))
			}
			if got := at[i].Sub(at[i-1]); got > most+time.Second {
				t.Errorf("the wait after failure %d, %v before expiry, was %v, want at most %v", i, leaf.NotAfter.Sub(at[i-1]), got, most)
			}
		}
		if got := log.count(EventFailed); got != len(at) {
			t.Errorf("%d failures were told of, there were %d attempts", got, len(at))
		}
		storage.mu.Lock()
		defer storage.mu.Unlock()
		locks := len(slices.DeleteFunc(slices.Clone(storage.locks), func(s string) bool { return !strings.HasPrefix(s, "issue/") }))
		// The first order, and the look at the moment of expiry.
		if locks > len(at)+2 {
			t.Errorf("the name's lease was taken %d times for %d attempts", locks, len(at))
		}
	})
}

// TestFreshManagersShareOneBackOff runs what a caller does who makes
// everything anew every few seconds.
func TestFreshManagersShareOneBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(0, "slow down")})
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(5 * time.Second) {
			again := conf
			again.Issuers = []Issuer{issuerAt(ca)}
			m := start(t, again)
			if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
				t.Fatal("a certificate came from a CA that refuses all orders")
			}
			closeManager(t, m)
		}
		// At 0, 1, 3.5, 10, 26 and, with the most jitter, 52 minutes.
		if n := ca.Count("newOrder"); n < 4 || n > 6 {
			t.Errorf("%d orders in an hour; want one back-off curve, 4 to 6", n)
		}
	})
}

func TestRepeatedManageSyncIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		remove := ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(0, "slow down")})
		log, logs := observed(slog.LevelError)
		conf.Logger = log
		m := startAlone(t, conf)
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(5 * time.Second) {
			err := m.ManageSync(t.Context(), []string{"a.example.com"})
			var failure *IssueError
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), "slow down") {
				t.Fatalf("ManageSync = %v; want the CA's words", err)
			}
		}
		orders := ca.Count("newOrder")
		if orders > 6 {
			t.Errorf("%d orders in an hour", orders)
		}
		if n := logs.Len(); n > orders {
			t.Errorf("%d error lines for %d attempts", n, orders)
		}
		if s := statusFor(t, m, "a.example.com"); s.Attempts != orders || s.State != StateMissing {
			t.Errorf("status says %d attempts and %q; want %d and missing", s.Attempts, s.State, orders)
		}
		remove()
		time.Sleep(6 * time.Hour)
		before := ca.Count("newOrder")
		for range 100 {
			manage(t, m, "a.example.com")
		}
		if n := ca.Count("newOrder"); n != before {
			t.Errorf("%d orders by ManageSync of a good name", n-before)
		}
	})
}
