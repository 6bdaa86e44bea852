package challenge_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/challenge"
)

// The bounds that the package states.
const (
	lookFor  = 3 * time.Second
	maxLists = 4
	maxLoads = 16
)

// goroutines is how many there may be at once for n calls at once: one runs the
// lists, and a call that has been answered may still be ending when the next begins.
func goroutines(n int) int { return 1 + 2*n }

// failOnly returns what fails calls of one kind only.
func failOnly(kind string, f func() error) func(context.Context, string) error {
	return func(_ context.Context, call string) error {
		if call != kind {
			return nil
		}
		return f()
	}
}

// ask has n strangers ask for what is not there and waits for all answers. Half
// of them come by http-01. It returns how long it took.
func ask(t *testing.T, table *challenge.Table, n int) time.Duration {
	t.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if i%2 == 0 {
				if _, ok := table.KeyAuthorization(t.Context(), "foreign"); ok {
					t.Error("answered a foreign token")
				}
			} else if _, err := table.Certificate(t.Context(), "foreign.example.com"); err == nil {
				t.Error("answered for a foreign name")
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func TestAnotherInstanceAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		a, b := instance(t, store), instance(t, store)
		start := time.Now()
		h, l := httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok2")
		wantToken(t, b, "tok1", false) // that it was not there is not kept
		wantCert(t, b, "")
		present(t, a, h)
		present(t, a, l)
		wantToken(t, b, "tok1", true)
		wantCert(t, b, "tok2")
		wantToken(t, b, "tok2", false)
		wantToken(t, b, "tok3", false)
		if _, err := b.Certificate(t.Context(), "example.com"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("another name: %v", err)
		}
		cleanUp(t, a, h)
		cleanUp(t, a, l)
		if keys := store.keys(prefix); len(keys) != 0 {
			t.Errorf("left in the store: %q", keys)
		}
		wantToken(t, b, "tok1", false)
		wantCert(t, b, "")
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// Values are loaded once, however often they are asked for, and not when their
// place was not asked for.
func TestAValueIsLoadedOnceAndOnlyWhenListed(t *testing.T) {
	store := &fakeStore{}
	a, b := instance(t, store), instance(t, store)
	for _, token := range []string{"tok1", "tok2", "tok3"} {
		present(t, a, httpChallenge("a.example.com", token))
	}
	for range 10 {
		wantToken(t, b, "tok1", true)
		wantToken(t, b, "foreign", false)
	}
	if lists, loads, _ := store.counts(); lists != 20 || loads != 1 {
		t.Errorf("%d lists, %d loads", lists, loads)
	}
}

// F60.
func TestStrangersShareTheLooksAtASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{slow: 500 * time.Millisecond}
		g := newGroup(t)
		table := instanceOf(g, store)
		if took := ask(t, table, 20_000); took > time.Second {
			t.Errorf("took %v", took)
		}
		lists, loads, most := store.counts()
		_, ran := g.counts()
		if lists > 2 || loads != 0 || most > 1 || ran > goroutines(1) {
			t.Errorf("%d lists, %d loads, %d at once, %d goroutines", lists, loads, most, ran)
		}
		// A challenge is answered among them.
		present(t, instance(t, store), httpChallenge("a.example.com", "tok1"))
		var wg sync.WaitGroup
		wg.Go(func() { ask(t, table, 20_000) })
		for range 5 {
			wg.Go(func() { wantToken(t, table, "tok1", true) })
		}
		wg.Wait()
	})
}

func TestStrangersWhoAskForAPendingNameShareItsValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		g := newGroup(t)
		table := instanceOf(g, store)
		present(t, instance(t, store), alpnChallenge("a.example.com", "tok1"))
		store.set(failOnly("load", func() error { time.Sleep(500 * time.Millisecond); return nil }))
		var wg sync.WaitGroup
		for range 20_000 {
			wg.Go(func() { wantCert(t, table, "tok1") })
		}
		wg.Wait()
		_, loads, most := store.counts()
		if _, ran := g.counts(); loads > maxLoads || most > maxLoads+maxLists || ran > goroutines(maxLoads+maxLists) {
			t.Errorf("%d loads, %d calls at once, %d goroutines", loads, most, ran)
		}
	})
}

// F47, F60: a storage that ignores its context.
func TestStrangersAtAStoreThatHangs(t *testing.T) {
	for _, kind := range []string{"list", "load"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &fakeStore{}
				g := newGroup(t)
				table := instanceOf(g, store)
				present(t, instance(t, store), alpnChallenge("foreign.example.com", "tok1"))
				heal := make(chan struct{})
				store.set(failOnly(kind, func() error { <-heal; return nil }))
				for _, n := range []int{20_000, 100, 100, 100, 100, 100, 100, 100, 100} {
					if took := ask(t, table, n); took > lookFor {
						t.Errorf("waited for %v", took)
					}
				}
				bound := maxLists
				if kind == "load" {
					bound = maxLoads
				}
				time.Sleep(time.Minute)
				if running, most := g.counts(); running > bound || most > goroutines(maxLists+maxLoads) {
					t.Errorf("%d goroutines are left, %d at once", running, most)
				}
				if _, _, most := store.counts(); most > bound+1 {
					t.Errorf("%d calls at once", most)
				}
				// It works again as soon as the storage does.
				close(heal)
				store.set(nil)
				synctest.Wait()
				if running, _ := g.counts(); running != 0 {
					t.Errorf("%d goroutines are left", running)
				}
				present(t, instance(t, store), httpChallenge("a.example.com", "tok2"))
				wantToken(t, table, "tok2", true)
			})
		})
	}
}

// One list that never returns does not stop those after it.
func TestAListThatHangsIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		table := instance(t, store)
		present(t, instance(t, store), httpChallenge("a.example.com", "tok1"))
		heal := make(chan struct{})
		defer close(heal)
		for range maxLists - 1 {
			var once sync.Once
			store.set(failOnly("list", func() error { once.Do(func() { <-heal }); return nil }))
			start := time.Now()
			if _, err := table.Certificate(t.Context(), "a.example.com"); err == nil || errors.Is(err, fs.ErrNotExist) || time.Since(start) != lookFor {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			store.set(nil)
			wantToken(t, table, "tok1", true)
		}
	})
}

// Who asks gets a list that began after he asked: a challenge that was presented
// while another list ran is found.
func TestAListIsNeverOlderThanTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{slow: time.Second}
		a, b := instance(t, store), instance(t, store)
		var wg sync.WaitGroup
		wg.Go(func() { wantToken(t, b, "tok1", false) }) // its list has begun
		time.Sleep(time.Millisecond)
		present(t, a, httpChallenge("a.example.com", "tok1"))
		start := time.Now()
		wantToken(t, b, "tok1", true)
		if took := time.Since(start); took >= lookFor {
			t.Errorf("took %v", took)
		}
		wg.Wait()
	})
}

// A look ends with the request, and takes nobody with it.
func TestAnEndedRequestLeavesTheLookToOthers(t *testing.T) {
	for name, patience := range map[string]time.Duration{"in the list": 100 * time.Millisecond, "in the load": 1200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &fakeStore{}
				table := instance(t, store)
				present(t, instance(t, store), alpnChallenge("a.example.com", "tok1"))
				store.set(func(ctx context.Context, _ string) error {
					select {
					case <-time.After(500 * time.Millisecond):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() { ask(t, table, 1) }) // all others share the list after this one's
				synctest.Wait()
				leave := func() {
					start := time.Now()
					if _, err := table.Certificate(ctx, "a.example.com"); err == nil || time.Since(start) != patience {
						t.Errorf("%v after %v", err, time.Since(start))
					}
				}
				for range 2 * maxLoads {
					wg.Go(leave)
				}
				synctest.Wait()
				wg.Go(func() { wantCert(t, table, "tok1") })
				synctest.Wait()
				for range 2 * maxLoads {
					wg.Go(leave)
				}
				wg.Wait()
			})
		})
	}
}

func TestCloseEndsAllLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		g := newGroup(t)
		table := instanceOf(g, store)
		present(t, table, httpChallenge("a.example.com", "mine"))
		store.set(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
		time.AfterFunc(time.Second, g.end)
		if took := ask(t, table, 100); took != time.Second {
			t.Errorf("took %v", took)
		}
		before, _, _ := store.counts()
		for range 3 { // nothing is started any more
			if took := ask(t, table, 100); took != 0 {
				t.Errorf("took %v", took)
			}
		}
		if after, _, _ := store.counts(); after != before {
			t.Errorf("%d lists after the end", after-before)
		}
		if running, _ := g.counts(); running != 0 {
			t.Errorf("%d goroutines", running)
		}
		wantToken(t, table, "mine", true)
	})
}

func TestAStoreThatPanicsOrEndsTheGoroutineIsAnError(t *testing.T) {
	for _, kind := range []string{"list", "load"} {
		for name, f := range map[string]func(){"panic": func() { panic("broken") }, "Goexit": runtime.Goexit} {
			t.Run(kind+" "+name, func(t *testing.T) {
				store := &fakeStore{}
				table := instance(t, store)
				present(t, instance(t, store), alpnChallenge("a.example.com", "tok1"))
				store.set(failOnly(kind, func() error { f(); return nil }))
				for range 2 * maxLoads {
					if _, err := table.Certificate(t.Context(), "a.example.com"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "a.example.com") {
						t.Errorf("error %v", err)
					}
				}
				store.set(nil)
				wantCert(t, table, "tok1")
			})
		}
	}
}

func TestAStoreThatFailsIsAskedAgain(t *testing.T) {
	for _, kind := range []string{"list", "load"} {
		store := &fakeStore{}
		table := instance(t, store)
		present(t, instance(t, store), alpnChallenge("a.example.com", "tok1"))
		present(t, instance(t, store), httpChallenge("a.example.com", "tok2"))
		down := errors.New("store is down")
		store.set(failOnly(kind, func() error { return down }))
		if _, err := table.Certificate(t.Context(), "a.example.com"); !errors.Is(err, down) {
			t.Errorf("%s: %v", kind, err)
		}
		wantToken(t, table, "tok2", false)
		store.set(nil)
		wantCert(t, table, "tok1")
		wantToken(t, table, "tok2", true)
	}
}

// One record that cannot be loaded does not hide another.
func TestADamagedRecordHidesNoOther(t *testing.T) {
	store := &fakeStore{}
	table, other := instance(t, store), instance(t, store)
	var damaged atomic.Bool
	present(t, other, alpnChallenge("a.example.com", "tok1"))
	present(t, other, alpnChallenge("a.example.com", "tok2"))
	store.set(failOnly("load", func() error {
		if damaged.Swap(true) {
			return nil
		}
		return errors.New("damaged")
	}))
	if _, err := table.Certificate(t.Context(), "a.example.com"); err != nil {
		t.Error(err)
	}
}

func TestJunkInTheStoreAnswersNobody(t *testing.T) {
	marshal := func(ch challenge.Challenge, change func(*challenge.Challenge)) string {
		change(&ch)
		b, err := json.Marshal(ch)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, good := range []challenge.Challenge{httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok1")} {
		for name, junk := range map[string]string{
			"empty": "", "cut": `{"type":"tls-`, "null": "null", "list": "[]", "types": `{"type":1}`, "object": "{}",
			"another name":         marshal(good, func(c *challenge.Challenge) { c.Identifier, c.Token = "b.example.com", "other" }),
			"another type":         marshal(good, func(c *challenge.Challenge) { c.Type = "dns-01" }),
			"another token":        marshal(good, func(c *challenge.Challenge) { c.Token = "other" }),
			"no token":             marshal(good, func(c *challenge.Challenge) { c.Token = "" }),
			"no key authorization": marshal(good, func(c *challenge.Challenge) { c.KeyAuthorization = "" }),
		} {
			t.Run(good.Type+" "+name, func(t *testing.T) {
				store := &fakeStore{}
				table, other := instance(t, store), instance(t, store)
				present(t, other, good)
				key := store.keys(prefix)[0]
				for _, k := range []string{key, key + "x", key + "/x", prefix + "/x", prefix + "/" + strings.Repeat("x", 1000)} {
					store.put(k, junk)
				}
				wantToken(t, table, "tok1", false)
				wantToken(t, table, "other", false)
				wantCert(t, table, "")
				// It is not remembered, and what is beside it hides nothing.
				present(t, other, good)
				if good.Type == challenge.HTTP01 {
					wantToken(t, table, "tok1", true)
				} else {
					wantCert(t, table, "tok1")
				}
			})
		}
	}
}
