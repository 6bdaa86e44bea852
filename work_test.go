package certwright

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// orderFor reports whether a newOrder request is for a name.
func orderFor(r *fakeca.Request, name string) bool {
	var ask struct{ Identifiers []fakeca.Identifier }
	return json.Unmarshal(r.Payload, &ask) == nil && len(ask.Identifiers) == 1 && ask.Identifiers[0].Value == name
}

// slowStorage takes its time for each call, and knows how many there were at
// once.
type slowStorage struct {
	*storage.Memory
	pause time.Duration

	mu    sync.Mutex // guards the fields below
	now   int
	most  int
	locks []string // in the order they were asked for
}

func (s *slowStorage) work() {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	time.Sleep(s.pause)
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
}

func (s *slowStorage) Load(ctx context.Context, key string) ([]byte, error) {
	s.work()
	return s.Memory.Load(ctx, key)
}

func (s *slowStorage) Store(ctx context.Context, key string, value []byte) error {
	s.work()
	return s.Memory.Store(ctx, key, value)
}

func (s *slowStorage) Delete(ctx context.Context, key string) error {
	s.work()
	return s.Memory.Delete(ctx, key)
}

func (s *slowStorage) Lock(ctx context.Context, name string) (Lease, error) {
	s.mu.Lock()
	s.locks = append(s.locks, name)
	s.mu.Unlock()
	return s.Memory.Lock(ctx, name)
}

// TestManyNamesAtOnce gives one Manager 2,000 names with a storage that needs
// 5 ms for each call: the workers bound what goes on at once, and the time is
// that of the calls divided by them.
func TestManyNamesAtOnce(t *testing.T) {
	names := 2000
	if testing.Short() || raceEnabled {
		names = 300
	}
	synctest.Test(t, func(t *testing.T) {
		const workers, pause = 16, 5 * time.Millisecond
		storage := &slowStorage{Memory: storage.NewMemory(), pause: pause}
		ca, conf := newFake(t, fakeca.Options{KeepRequests: -1})
		conf.Storage = storage
		list := make([]string, names)
		for i := range list {
			list[i] = fmt.Sprintf("n%04d.example.com", i)
		}
		// An order takes about a dozen calls and two looks at the CA; loading
		// what is there takes two calls a name.
		for _, tt := range []struct {
			what string
			each time.Duration
		}{{"ordering", 20*pause + 50*time.Millisecond}, {"loading", 3 * pause}} {
			m := start(t, conf)
			began := time.Now()
			if err := m.ManageSync(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			t.Logf("%s %d names took %v", tt.what, names, took)
			if most := time.Duration(names/workers) * tt.each; took > most+time.Second {
				t.Errorf("%s %d names took %v, want at most %v", tt.what, names, took, most)
			}
			for _, n := range list {
				mustLeaf(t, m, n)
			}
			closeManager(t, m)
		}
		if got := len(ca.Orders()); got != names {
			t.Errorf("%d orders for %d names", got, names)
		}
		if storage.most != workers {
			t.Errorf("%d storage calls at once, want as many as there are workers, %d", storage.most, workers)
		}
	})
}

// TestHangingNameDelaysNoOther has the CA never answer for one name: 50 others
// get their certificates as if it were not there.
func TestHangingNameDelaysNoOther(t *testing.T) {
	const bad = "bad.example.com"
	for _, endpoint := range []string{"newOrder", "challenge"} {
		t.Run(endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opt := fakeca.Options{}
				if endpoint == "challenge" {
					opt.Validate = func(ctx context.Context, ch fakeca.ChallengeInfo) error {
						if ch.Identifier.Value == bad {
							<-ctx.Done()
						}
						return ctx.Err()
					}
				}
				ca, conf := newFake(t, opt)
				if endpoint == "newOrder" {
					ca.On(fakeca.Rule{Endpoint: "newOrder", When: func(r *fakeca.Request) bool { return orderFor(r, bad) }, Hang: true})
				}
				conf.Workers, conf.CleanInterval = 2, -1
				m := start(t, conf)
				began := time.Now()
				if err := m.ManageAsync([]string{bad}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				var good []string
				for i := range 50 {
					good = append(good, fmt.Sprintf("good%02d.example.com", i))
				}
				manage(t, m, good...)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the others took %v", took)
				}
				time.Sleep(time.Second) // the others ask for renewal info
				if h := m.Health(); h.Running != 1 || h.Waiting != len(good) || h.Oldest < time.Second {
					t.Errorf("Health is %+v, want the one name running for a second", h)
				}
				if s := statusFor(t, m, bad); s.State != StatePending {
					t.Errorf("the name that hangs is %q", s.State)
				}
				time.Sleep(10 * time.Minute)
				if s := statusFor(t, m, bad); s.State != StateMissing || s.LastError == "" || !s.NextAt.After(began) {
					t.Errorf("after ten minutes the name that hangs is %q, its error %q, its next attempt at %v", s.State, s.LastError, s.NextAt)
				}
			})
		})
	}
}

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

// TestR3_BackOffOfAWeek follows one name that fails for a week, during which the
// program is restarted every seven hours: there is one curve, each wait is a
// random part of a fifth below its nominal length, and no restart costs an
// attempt.
func TestR3_BackOffOfAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailing(t, fakeca.Options{})
		f.refuse()
		began := time.Now()
		for time.Since(began) < 7*day {
			m := start(t, f.conf)
			err := m.ManageSync(t.Context(), []string{f.name})
			var failure *IssueError
			if !errors.As(err, &failure) {
				t.Fatalf("ManageSync returned %v, want an *IssueError", err)
			}
			s := statusFor(t, m, f.name)
			if !failure.RetryAt.After(time.Now()) || !s.NextAt.Equal(failure.RetryAt) || s.Attempts != len(f.times()) {
				t.Errorf("%d attempts, next at %v; Status says %d, %v", len(f.times()), failure.RetryAt, s.Attempts, s.NextAt)
			}
			time.Sleep(7 * time.Hour)
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

// TestRenewalBackOff follows one certificate for six days whose renewal fails
// until it has expired and then for two days more: the waits are bounded by a
// twelfth of the life that is left, and what is due meanwhile for other reasons
// neither makes an attempt nor takes the name's lease nor tells of a failure.
func TestRenewalBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailing(t, fakeca.Options{DefaultLifetime: 6 * day, ARIRetryAfter: 20 * time.Minute})
		storage := &slowStorage{Memory: storage.NewMemory()}
		var log eventLog
		f.conf.Storage, f.conf.OnEvent = storage, log.add
		m := start(t, f.conf)
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

// TestClockIsLookedAtEveryMinute has nothing due for weeks: a clock that is set,
// or a host that wakes up, is still noticed within a minute, and Health shows
// it. That the time is read from the wall clock then is the schedule's test.
func TestClockIsLookedAtEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		conf.DisableRenewalInfo, conf.CleanInterval = true, -1
		m := start(t, conf)
		manage(t, m, "a.example.com", "b.example.com", "c.example.com")
		synctest.Wait()
		first := m.Health()
		next := statusFor(t, m, "a.example.com").NextAt
		for _, s := range m.Status() {
			if s.NextAt.Before(next) {
				next = s.NextAt
			}
		}
		if !first.NextDue.Equal(next) || time.Until(next) < 50*day {
			t.Errorf("Health says that work is next due at %v, Status says %v", first.NextDue, next)
		}
		for range 1000 {
			time.Sleep(77 * time.Minute)
			synctest.Wait()
			h := m.Health()
			if since := time.Since(h.LastWake); since > time.Minute || since < 0 {
				t.Fatalf("the schedule last looked at the clock %v ago", since)
			}
			if h.Running != 0 || h.Waiting != 3 || h.Managed != 3 || h.Failing != 0 || h.Oldest != 0 || h.Panics != 0 {
				t.Fatalf("Health is %+v", h)
			}
			if want := first.NextDue; time.Now().Before(want) && !h.NextDue.Equal(want) {
				t.Fatalf("work is next due at %v, was %v before", h.NextDue, want)
			}
		}
	})
}

// TestOutageAtAnyMoment takes the CA down for two days, each time at another
// moment in the life of certificates for six days: none expires, with the CA's
// windows and without.
func TestOutageAtAnyMoment(t *testing.T) {
	step := 6 * time.Hour
	if testing.Short() {
		step = 21 * time.Hour
	}
	for from := 54 * time.Hour; from <= 96*time.Hour; from += step {
		for _, noARI := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,NoARI=%v", from, noARI), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { outage(t, from, noARI) })
			})
		}
	}
}

func outage(t *testing.T, from time.Duration, noARI bool) {
	ca, conf := newFake(t, fakeca.Options{
		DefaultLifetime: 6 * day, NoARI: noARI,
		ARI: func(leaf *x509.Certificate) *fakeca.Window { // as Let's Encrypt does
			half := leaf.NotBefore.Add(3 * day)
			return &fakeca.Window{Start: half.Add(-90 * time.Minute), End: half.Add(90 * time.Minute)}
		},
	})
	m := start(t, conf)
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("n%d.example.com", i))
	}
	manage(t, m, names...)
	began, first := time.Now(), mustLeaf(t, m, names[0])
	for at := time.Duration(0); at < 8*day; at += time.Hour {
		switch at {
		case from:
			ca.Down(nil)
		case from + 2*day:
			ca.Up()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, n := range names {
			if leaf := mustLeaf(t, m, n); !time.Now().Before(leaf.NotAfter) {
				t.Fatalf("after %v the certificate for %s has expired", time.Since(began), n)
			}
		}
	}
	if !time.Now().After(first.NotAfter) {
		t.Error("the test ended before the first certificates did")
	}
	// The second renewal may be due or not yet, depending on the outage.
	if got := len(ca.Orders()); got < 2*len(names) || got > 3*len(names) {
		t.Errorf("%d orders for %d names in eight days, want 2 or 3 each", got, len(names))
	}
}
