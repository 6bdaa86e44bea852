package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/storage"
)

// Two values at one name: a certificate for a name and its wildcard (D1).
func TestTwoValuesLiveAtOneName(t *testing.T) {
	for what, change := range map[string]func(*fakeWriter){
		"it appends as libdns demands":        func(*fakeWriter) {},
		"an append replaces what was there":   func(w *fakeWriter) { w.sets = true },
		"a delete removes all at the name":    func(w *fakeWriter) { w.wipes = true },
		"both":                                func(w *fakeWriter) { w.sets, w.wipes = true, true },
		"a value that is there is refused":    func(w *fakeWriter) { w.rejects = true },
		"it returns nothing":                  func(w *fakeWriter) { w.quiet = true },
		"it returns odd names and nil":        func(w *fakeWriter) { w.odd = true },
		"it knows records by ID":              func(w *fakeWriter) { w.ids = true },
		"by ID, and an append replaces":       func(w *fakeWriter) { w.ids, w.sets = true, true },
		"its TTLs are not what was asked for": func(w *fakeWriter) { w.ttl = 37 * time.Minute },
	} {
		synctest.Test(t, func(t *testing.T) {
			t.Log(what)
			w := newWriter("example.com")
			w.put("example.com", "_acme-challenge.x", "foreign")
			change(w)
			s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
			start := time.Now()
			a, b := newChallenge("x.example.com", "A"), newChallenge("x.example.com", "B")
			mustPresent(t, s, a, b)
			want(t, "presented", w.records("example.com"), []string{"_acme-challenge.x A", "_acme-challenge.x B", "_acme-challenge.x foreign"})
			mustCleanUp(t, s, a)
			want(t, "one cleaned up", w.records("example.com"), []string{"_acme-challenge.x B", "_acme-challenge.x foreign"})
			mustCleanUp(t, s, b)
			want(t, "both cleaned up", w.records("example.com"), []string{"_acme-challenge.x foreign"})
			if took := time.Since(start); took > 0 && w.ttl == 0 {
				t.Errorf("it took %v: a record was not deleted at first", took)
			}
			if n := s.Presents(); n != 0 {
				t.Errorf("%d challenges are remembered", n)
			}
		})
	}
}

func TestAProviderThatKeepsOneValueANameIsAnErrorAndLosesNothing(t *testing.T) {
	synctest.Test(t, testOneValueAName)
}

func testOneValueAName(t *testing.T) {
	w := newWriter("example.com")
	w.single = true
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	a, b := newChallenge("x.example.com", "A"), newChallenge("x.example.com", "B")
	mustPresent(t, s, a)
	err := s.Present(t.Context(), b.now())
	want(t, "after the second has failed", w.records("example.com"), []string{"_acme-challenge.x A"})
	wantError(t, err, "only one value a name", `writing TXT "_acme-challenge.x" in zone "example.com" with dnsprovider_test: `)
	mustCleanUp(t, s, b)
	want(t, "after the clean-up of the second", w.records("example.com"), []string{"_acme-challenge.x A"})
	mustCleanUp(t, s, a)
	want(t, "after both", w.records("example.com"), []string{})
}

func TestAValueThatIsThereIsNeitherAddedNorDeleted(t *testing.T) {
	w := newWriter("example.com")
	w.put("example.com", "_acme-challenge", "A")
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{"_acme-challenge A"})
	want(t, "appended", w.made("append"), nil)
	want(t, "deleted", w.made("delete"), nil)
}

// "Already exists" with the same value is success (D3).
func TestAnAppendThatFailsAlthoughTheValueIsThere(t *testing.T) {
	w := newWriter("example.com")
	w.afterAppend = errors.New("the gateway timed out")
	s, _ := newSolver(w, w)
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{})
}

// A Solver that somebody calls without a Manager has nobody who saves or locks.
func TestWithoutAManager(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, w)
	ch := certwright.Challenge{Type: "dns-01", Name: "example.com", DNSName: "_acme-challenge.example.com", DNSValue: "A"}
	if err := s.Present(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	want(t, "presented", w.records("example.com"), []string{"_acme-challenge A"})
	if err := s.CleanUp(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	want(t, "cleaned up", w.records("example.com"), []string{})
}

// What no zone took is nothing to clean up, unless it is there after all.
func TestCleanUpAfterAPresentThatFailed(t *testing.T) {
	for _, there := range []bool{false, true} {
		w := newWriter()
		s, d := newSolver(w, w)
		d.zones = []string{"www.example.com", "example.com"}
		c := newChallenge("www.example.com", "A")
		wantError(t, s.Present(t.Context(), c.now()), "no zone")
		s, d = newSolver(w, w) // another process
		d.look = func(zone, _ string) ([]dnsprobe.Answer, error) {
			if there && zone == "example.com" {
				return answers{server(1, "A")}, nil
			}
			return answers{server(1)}, nil
		}
		if there {
			wantError(t, s.CleanUp(t.Context(), c.now()), `deleting TXT "_acme-challenge.www" in zone "example.com"`)
			there = false
		}
		mustCleanUp(t, s, c)
	}
}

// Who says when to come back, or does not answer, is not asked for other zones.
func TestOtherZonesAreNotTriedWhenTheProviderIsInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, f := range []func(context.Context) error{
			func(context.Context) error { return retryLater{} },
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		} {
			w := newWriter("www.example.com", "example.com")
			s, _ := newSolver(w, w)
			w.before = func(ctx context.Context, _ string) error { return f(ctx) }
			c := newChallenge("www.example.com", "A")
			if err := s.Present(t.Context(), c.now()); err == nil {
				t.Error("no error")
			}
			want(t, "calls", w.made(""), []string{"append www.example.com. _acme-challenge=A"})
			w.before = nil
			mustCleanUp(t, s, c)
		}
	})
}

// A zone that the provider can read is its own.
func TestOtherZonesAreNotTriedAfterOneThatIsTheProviders(t *testing.T) {
	w := newWriter("www.example.com", "example.com")
	w.before = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "append") {
			return errors.New("quota")
		}
		return nil
	}
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	wantError(t, s.Present(t.Context(), newChallenge("www.example.com", "A").now()), "quota")
	want(t, "appends", w.made("append"), []string{"append www.example.com. _acme-challenge=A"})
}

// That nobody can say whether others' values are still there is no success.
func TestReadingFailsAfterAnAppend(t *testing.T) {
	for _, fails := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWriter("example.com")
			w.put("example.com", "_acme-challenge", "foreign")
			w.sets = true
			s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
			left := fails
			w.before = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "get") && len(w.made("append")) == 1 && left > 0 {
					left--
					return errors.New("502")
				}
				return nil
			}
			c := newChallenge("example.com", "A")
			if fails == 1 {
				mustPresent(t, s, c)
				want(t, "records", w.records("example.com"), []string{"_acme-challenge A", "_acme-challenge foreign"})
				return
			}
			wantError(t, s.Present(t.Context(), c.now()), "whether others' values at this name are still there is not known", "502")
		})
	}
}

// Presented twice, what was added the first time is still this challenge's.
func TestPresentedTwice(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c, c)
	if n := len(w.made("append")); n != 1 {
		t.Errorf("%d appends", n)
	}
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{})
}

type fakeLease struct {
	ctx    context.Context
	unlock func()
}

func (l fakeLease) Context() context.Context     { return l.ctx }
func (l fakeLease) Unlock(context.Context) error { l.unlock(); return nil }

// Each name's records are changed by one at a time, among all instances.
func TestOneWriterAtATimeForAName(t *testing.T) {
	var mu sync.Mutex
	held := map[string]bool{}
	var names []string
	lock := func(ctx context.Context, name string) (storage.Lease, error) {
		mu.Lock()
		defer mu.Unlock()
		if held[name] {
			t.Errorf("%s is locked twice", name)
		}
		held[name] = true
		names = append(names, name)
		return fakeLease{ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			held[name] = false
		}}, nil
	}
	w := newWriter("example.com")
	w.before = func(context.Context, string) error {
		mu.Lock()
		defer mu.Unlock()
		if !held["txt/_acme-challenge.example.com"] {
			t.Error("a call without the lock")
		}
		return nil
	}
	s, d := newSolver(w, w)
	d.look = func(zone, name string) ([]dnsprobe.Answer, error) {
		return []dnsprobe.Answer{d.shown(zone, name)}, nil
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := newChallenge("example.com", fmt.Sprint("v", i))
			c.Lock = lock
			if err := s.Present(t.Context(), c.now()); err != nil {
				t.Error(err)
			}
			if err := s.CleanUp(t.Context(), c.now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want(t, "records", w.records("example.com"), []string{})
	if len(names) != 16 {
		t.Errorf("%d locks: %q", len(names), names)
	}
}

func TestALostLeaseEndsTheCall(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, w)
	c := newChallenge("example.com", "A")
	lost, lose := context.WithCancelCause(t.Context())
	lose(storage.ErrLeaseLost)
	unlocked := false
	c.Lock = func(context.Context, string) (storage.Lease, error) {
		return fakeLease{lost, func() { unlocked = true }}, nil
	}
	if err := s.Present(t.Context(), c.now()); !errors.Is(err, storage.ErrLeaseLost) {
		t.Errorf("error %v", err)
	}
	if !unlocked {
		t.Error("it is not unlocked")
	}
	want(t, "appended", w.made("append"), nil)
	c.Lock = func(context.Context, string) (storage.Lease, error) { return nil, errors.New("held by another") }
	wantError(t, s.Present(t.Context(), c.now()), "held by another", "waiting for others")
}

type retryLater struct{}

func (retryLater) Error() string             { return "429" }
func (retryLater) RetryAfter() time.Duration { return 42 * time.Second }

func TestErrorsNameProviderZoneAndStepAndKeepRetryAfter(t *testing.T) {
	w := newWriter("example.com")
	w.before = func(context.Context, string) error { return fmt.Errorf("limited: %w", retryLater{}) }
	for _, p := range []dnsprovider.Provider{w, &fakeGetter{fakeWriter: w}, namedProvider{w}} {
		s, _ := newSolver(w, p)
		c := newChallenge("x.example.com", "A")
		err := s.Present(t.Context(), c.now())
		name := "dnsprovider_test"
		if _, ok := p.(namedProvider); ok {
			name = "my DNS"
		}
		wantError(t, err, `writing TXT "_acme-challenge.x" in zone "example.com" with `+name+`: limited: 429`)
		if got, ok := certwright.RetryAfter(err); !ok || got != 42*time.Second {
			t.Errorf("RetryAfter %v", got)
		}
		wantError(t, s.CleanUp(t.Context(), c.now()), `deleting TXT "_acme-challenge.x" in zone "example.com" with `+name+`: limited: 429`)
	}
}

type namedProvider struct{ *fakeWriter }

func (namedProvider) String() string { return "my DNS" }

// A provider's fields hold secrets.
func TestErrorsDoNotHoldTheProvidersFields(t *testing.T) {
	w := newWriter()
	w.zones["secret-token."] = nil
	s, _ := newSolver(w, w)
	s.Zone = "example.com"
	err := s.Present(t.Context(), newChallenge("example.com", "A").now())
	if err == nil || strings.Contains(fmt.Sprintf("%+v %v", err, err), "secret-token") {
		t.Errorf("error %v", err)
	}
}
