package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/dnsprobe"
)

// Whether a delete that says nothing counts.
func TestADeleteThatDoesNothingIsNotBelieved(t *testing.T) {
	for _, gets := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWriter("example.com")
			w.idle = true
			var p dnsprovider.Provider = w
			if gets {
				p = &fakeGetter{fakeWriter: w}
			}
			s, _ := newSolver(w, p)
			c := newChallenge("example.com", "A")
			mustPresent(t, s, c)
			wantError(t, s.CleanUp(t.Context(), c.now()), "the record is still there", `deleting TXT "_acme-challenge" in zone "example.com" with `)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			wantError(t, s.CleanUp(ctx, c.now()), "the record is still there")
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			w.idle = false
			mustCleanUp(t, s, c)
			want(t, "records", w.records("example.com"), []string{})
		})
	}
}

// The servers show a deleted record for a while.
func TestADeleteIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		w.quiet = true
		s, d := newSolver(w, w)
		c := newChallenge("example.com", "A")
		mustPresent(t, s, c)
		start := time.Now()
		d.look = func(zone, name string) ([]dnsprobe.Answer, error) {
			a := d.shown(zone, name)
			if time.Since(start) < 10*time.Second {
				a.Values = []string{"A"}
			}
			return []dnsprobe.Answer{a}, nil
		}
		mustCleanUp(t, s, c)
		if took := time.Since(start); took < 10*time.Second || took > 25*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestADeleteThatCannotBeSeenIsAnError(t *testing.T) {
	w := newWriter("example.com")
	w.quiet = true
	s, d := newSolver(w, w)
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	d.look = func(string, string) ([]dnsprobe.Answer, error) { return nil, errors.New("no network") }
	wantError(t, s.CleanUp(t.Context(), c.now()), "cannot be seen", "no network")
	d.look = nil
	mustCleanUp(t, s, c)
}

// A record that the servers do not show yet is not one that is not there: what
// failed to be deleted a moment after it was written is there.
func TestAFailedDeleteIsNotGoneBecauseServersAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		s, d := newSolver(w, w)
		c := newChallenge("example.com", "A")
		mustPresent(t, s, c)
		d.look = func(zone, _ string) ([]dnsprobe.Answer, error) {
			return []dnsprobe.Answer{{Server: "ns1." + zone}}, nil
		}
		w.before = func(context.Context, string) error { return errors.New("502") }
		wantError(t, s.CleanUp(t.Context(), c.now()), "502")
		time.Sleep(11 * time.Minute)
		mustCleanUp(t, s, c) // somebody else has deleted it by now
	})
}

// What has gone meanwhile is gone, and a delete that the provider refuses for that
// reason is none that has failed.
func TestWhatIsGoneIsGone(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	w.zones["example.com."] = nil
	mustCleanUp(t, s, c)

	mustPresent(t, s, c)
	w.before = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "delete") {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.zones["example.com."] = nil
			return errors.New("no such record")
		}
		return nil
	}
	mustCleanUp(t, s, c)
}

// The provider was taken out of the configuration.
func TestCleanUpWithoutAProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		s, _ := newSolver(w, w)
		c := newChallenge("example.com", "A")
		mustPresent(t, s, c)
		time.Sleep(time.Hour)
		var none *fakeWriter
		for _, p := range []dnsprovider.Provider{nil, none} {
			s, _ = newSolver(w, p)
			wantError(t, s.CleanUp(t.Context(), c.now()), "no Provider any more", "by hand")
		}
		w.zones["example.com."] = nil
		mustCleanUp(t, s, c)
	})
}

// Others' values that a provider has removed and does not take back are told.
func TestLostValuesAreTold(t *testing.T) { synctest.Test(t, testLostValues) }

func testLostValues(t *testing.T) {
	w := newWriter("example.com")
	w.put("example.com", "_acme-challenge", "foreign")
	w.wipes = true
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	w.before = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "append") {
			return errors.New("quota")
		}
		return nil
	}
	wantError(t, s.CleanUp(t.Context(), c.now()), "removed values of others", `"foreign"`, "quota", "by hand")
}

func TestWhatWasCleanedUpIsForgotten(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, w)
	s.Zone, s.Target = "example.com", "x.example.com"
	for i := range 300 {
		c := newChallenge("example.com", fmt.Sprint(i))
		mustPresent(t, s, c)
		if i%2 == 0 {
			mustCleanUp(t, s, c)
		}
	}
	if n := s.Presents(); n != 150 {
		t.Errorf("%d are remembered", n)
	}
}
