package certwright_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
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
// 5 ms for each call: each of the three lanes, storage's, the issuer's and that of
// the upkeep beside orders, has as many slots as there are workers, so that they
// bound what goes on at once, and the time is that of the calls divided by them.
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
			m := startAlone(t, conf)
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
		// The lane of orders and that of the upkeep are busy at the same time. Beside them
		// may be one call for what others changed, one for cleaning and one for old challenges.
		if storage.most < workers || storage.most > 3*workers+3 {
			t.Errorf("%d storage calls at once, want %d in each of up to three lanes, and three beside them", storage.most, workers)
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
				m := startAlone(t, conf)
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
