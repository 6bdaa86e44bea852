package certwright_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// faultKind is a way in which a storage fails, with the word that has to be in
// the error; without one there is no error to be told.
type faultKind struct {
	name  string
	fault fault
	says  string
}

var faultKinds = []faultKind{
	{"ENOSPC", fault{err: syscall.ENOSPC}, syscall.ENOSPC.Error()},
	{"slow", fault{delay: 20 * time.Second}, ""},
	{"EIO", fault{err: syscall.EIO}, syscall.EIO.Error()},
	{"EIO after the fact", fault{err: syscall.EIO, late: true}, syscall.EIO.Error()},
	{"short write", fault{err: syscall.EFBIG, torn: true}, ""},
	{"stuck", fault{delay: 24 * time.Hour}, ""},
	{"stale", fault{stale: true}, ""},
	{"wrong list", fault{list: wrongList}, ""},
}

// said is every error that a Manager tells: in logs, in events, to its caller.
type said struct {
	logs *fakeLogs

	mu   sync.Mutex // guards list
	list []string
}

func (s *said) event(e Event) { s.add(e.Err) }

func (s *said) add(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, err.Error())
}

func (s *said) texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := slices.Clone(s.list)
	for _, e := range s.logs.All() {
		texts = append(texts, e.Message+fmt.Sprint(e.Fields))
	}
	return texts
}

// has reports whether one of the texts has all parts.
func (s *said) has(parts ...string) bool {
	return slices.ContainsFunc(s.texts(), func(text string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
	})
}

// rig is a Manager on a storage that fails, and everything it says.
type rig struct {
	t     *testing.T
	ca    *fakeca.CA
	conf  Config
	f     *faulty
	said  said
	m     *Manager
	fault *call // the call that failed; guarded by f.mu while it runs
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t}
	r.ca, r.conf = newFake(t, fakeca.Options{DefaultLifetime: 4 * day})
	r.f = newFaulty(r.conf.Storage.(*storage.Memory))
	r.conf.Storage = r.f
	r.conf.Logger, r.said.logs = observed(slog.LevelDebug)
	r.conf.OnEvent = r.said.event
	return r
}

// breakCall has the n-th call from now on fail. Of the looks for what other
// instances have changed, which come each half a minute, only the first counts.
func (r *rig) breakCall(n int, k fault) {
	calls, looks := 0, 0
	r.f.set(func(c call) fault {
		if c.op == "list" && c.key == keyChanges {
			if looks++; looks > 1 {
				return fault{}
			}
		}
		if calls++; calls != n {
			return fault{}
		}
		if r.fault == nil {
			r.fault = &c
		}
		return k
	})
}

// told reports whether something that was said names the broken call's key and
// operation and the cause.
func (r *rig) told(cause string) bool {
	key := r.fault.key
	if strings.HasPrefix(key, keyChallenges) { // a token is not told
		key = "challenge"
	}
	verbs := map[string][]string{
		"load": {"loading", "reading"}, "store": {"storing", "sharing"}, "delete": {"deleting", "removing"}, "list": {"listing"},
	}[r.fault.op]
	return slices.ContainsFunc(verbs, func(verb string) bool { return r.said.has(key, cause, verb) })
}

// scenario is something that is done on a storage that fails.
type scenario struct {
	name   string
	calls  int          // that do makes at least
	before func(r *rig) // on a good storage
	do     func(r *rig) // on the bad one
}

const faultName = "a.test"

var scenarios = []scenario{
	{
		name:   "issue",
		calls:  15,
		before: func(*rig) {},
		do: func(r *rig) {
			r.m = start(r.t, r.conf)
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Hour)
			defer cancel()
			r.said.add(r.m.ManageSync(ctx, []string{faultName}))
		},
	},
	{
		name:  "renew",
		calls: 15,
		before: func(r *rig) {
			r.m = start(r.t, r.conf)
			manage(r.t, r.m, faultName)
		},
		do: func(r *rig) {
			first := mustLeaf(r.t, r.m, faultName)
			for range 3 * 24 { // up to a day before it expires
				time.Sleep(time.Hour)
				if leaf := mustLeaf(r.t, r.m, faultName); !leaf.Equal(first) {
					return
				}
			}
			r.t.Error("not renewed a day before its end")
		},
	},
	{
		name:  "adopt",
		calls: 1,
		before: func(r *rig) {
			m := start(r.t, r.conf)
			manage(r.t, m, faultName)
			closeManager(r.t, m)
		},
		do: func(r *rig) {
			r.m = start(r.t, r.conf)
			ctx, cancel := context.WithTimeout(r.t.Context(), time.Hour)
			defer cancel()
			r.said.add(r.m.ManageSync(ctx, []string{faultName}))
		},
	},
	{
		name:  "clean",
		calls: 20,
		before: func(r *rig) {
			r.conf.CleanInterval, r.conf.CleanGrace = 2*time.Hour, time.Minute
			r.m = start(r.t, r.conf)
			manage(r.t, r.m, faultName)
			time.Sleep(15 * time.Minute) // the first round
			residue(r.t, r.f, "old.test")
		},
		do: func(r *rig) {
			for range 8 { // four rounds, of which one may fail
				time.Sleep(time.Hour)
				mustLeaf(r.t, r.m, faultName)
			}
			if left := keysOf(r.t, r.f.Memory); slices.ContainsFunc(left, func(k string) bool { return strings.Contains(k, "old.test") }) {
				r.t.Errorf("not cleaned: %q", left)
			}
		},
	},
}

// TestEveryCallOfAStorageMayFail has every single call fail, in every way, during
// every operation: the name is served again soon, or still, the error says which
// key and what was done to it, and no more orders are made than without the
// failure.
func TestEveryCallOfAStorageMayFail(t *testing.T) {
	kinds := faultKinds
	switch {
	case testing.Short():
		kinds = kinds[:1]
	case raceEnabled: // all of them are another step of ci/test.sh
		kinds = kinds[:2]
	}
	for _, sc := range scenarios {
		for _, k := range kinds {
			t.Run(sc.name+"/"+k.name, func(t *testing.T) {
				n := 0
				for done := false; !done; {
					n++
					ok := t.Run(fmt.Sprint(n), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { done = !faultAt(t, sc, k, n) })
					})
					if !ok || n > 200 {
						t.Fatal("stopped at call ", n)
					}
				}
				if n <= sc.calls {
					t.Errorf("only %d calls were made", n-1)
				}
				t.Log(n-1, "calls")
			})
		}
	}
}

// faultAt runs a scenario whose n-th call fails, and reports whether it made so
// many calls.
func faultAt(t *testing.T, sc scenario, k faultKind, n int) bool {
	r := newRig(t)
	sc.before(r)
	base := len(r.ca.Orders())
	r.breakCall(n, k.fault)
	sc.do(r)
	r.f.mu.Lock()
	hit := r.fault != nil
	r.f.mu.Unlock()
	if !hit {
		return false
	}
	want := base
	if sc.name == "issue" || sc.name == "renew" {
		want++
	}
	time.Sleep(30 * time.Minute) // it heals by itself
	synctest.Wait()
	leaf := mustLeaf(t, r.m, faultName)
	if got := len(r.ca.Orders()); got > want {
		t.Errorf("%v: %d orders, want %d", *r.fault, got, want)
	}
	if k.says != "" && !r.told(k.says) {
		t.Errorf("nothing says that %s of %q failed: %q", r.fault.op, r.fault.key, r.said.texts())
	}
	r.f.set(nil)
	closeManager(t, r.m)
	// What is stored is what is served.
	m := start(t, r.conf)
	manage(t, m, faultName)
	if !mustLeaf(t, m, faultName).Equal(leaf) || len(r.ca.Orders()) > want {
		t.Errorf("%v: another certificate is stored than was served; %d orders", *r.fault, len(r.ca.Orders()))
	}
	return true
}

// TestTenStoresThatFailCostNoSecondOrder has a storage take nothing for as long as
// ten stores, from each point of an issue on. (S19)
func TestTenStoresThatFailCostNoSecondOrder(t *testing.T) {
	for n, done := 1, false; !done; n++ {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			stores := 0
			r.f.set(func(c call) fault {
				if c.op != "store" {
					return fault{}
				}
				if stores++; stores >= n && stores < n+10 {
					return fault{err: syscall.ENOSPC}
				}
				return fault{}
			})
			m := start(t, r.conf)
			began := time.Now()
			_ = m.ManageSync(t.Context(), []string{faultName})
			for leafOf(m, faultName) == nil {
				time.Sleep(time.Minute)
				if time.Since(began) > 10*day {
					t.Fatalf("from store %d on: no certificate in ten days: %v", n, m.Status())
				}
			}
			if got := len(r.ca.Orders()); got != 1 {
				t.Errorf("from store %d on: %d orders, want 1", n, got)
			}
			if n > 1 && r.ca.Accounts() != 1 {
				t.Errorf("from store %d on: %d accounts", n, r.ca.Accounts())
			}
			closeManager(t, m)
			done = stores < n
		})
	}
}

// TestLeaseLostAtEachCall has the lease be lost at any call of an issue: that costs
// no order and is no failure that ManageSync returns: the name waits for whoever
// took the lease over. (S8)
func TestLeaseLostAtEachCall(t *testing.T) {
	losses, told := 0, 0
	for n, done := 1, false; !done; n++ {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			lost := false
			r.f.set(func(c call) fault {
				if c.n == n {
					lost = r.f.locks.Lose(records.IssueLock(records.ID([]string{faultName}, P256)))
				}
				return fault{}
			})
			m := start(t, r.conf)
			manage(t, m, faultName)
			mustLeaf(t, m, faultName)
			closeManager(t, m)
			done = len(r.f.seen()) < n
			if got := len(r.ca.Orders()); got != 1 {
				t.Errorf("lost at call %d: %d orders", n, got)
			}
			if r.said.has("a name has to wait", "lease lost", faultName) {
				told++
			}
			if lost {
				losses++
			}
		})
	}
	if losses < 10 || told < losses-2 { // at the last calls the certificate is stored
		t.Errorf("%d leases were lost, of %d was told", losses, told)
	}
}
