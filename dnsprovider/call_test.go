package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/dnsprovider"
)

func TestAProviderThatPanicsOrEndsItsGoroutine(t *testing.T) {
	for what, f := range map[string]func(){"panicked: boom": func() { panic("boom") }, "ended the goroutine": runtime.Goexit} {
		w := newWriter("example.com")
		s, _ := newSolver(w, &fakeAll{fakeGetter{fakeWriter: w}, &fakeLister{fakeWriter: w}})
		c := newChallenge("example.com", "A")
		w.before = func(context.Context, string) error { f(); return nil }
		wantError(t, s.Present(t.Context(), c.now()), what, `in zone "example.com"`)
		w.before = nil
		mustPresent(t, s, c)
		w.before = func(context.Context, string) error { f(); return nil }
		wantError(t, s.CleanUp(t.Context(), c.now()), what)
		w.before = nil
		mustCleanUp(t, s, c)
		want(t, "records", w.records("example.com"), []string{})
	}
}

func TestAtMostFourCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		var now, most atomic.Int32
		w.before = func(context.Context, string) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(200 * time.Millisecond)
			now.Add(-1)
			return nil
		}
		s, _ := newSolver(w, w)
		done := make(chan error)
		start := time.Now()
		for i := range 100 {
			go func() { done <- s.Present(t.Context(), newChallenge(fmt.Sprintf("n%d.example.com", i), "A").now()) }()
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); most.Load() != 4 || took != 5*time.Second {
			t.Errorf("%d calls at once, in %v", most.Load(), took)
		}
	})
}

// All who ask what is in a zone at the same time share the provider's answer.
func TestReadingAZoneIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		w.before = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "get") {
				time.Sleep(time.Second)
			}
			return nil
		}
		s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
		done := make(chan error)
		for i := range 100 {
			go func() { done <- s.Present(t.Context(), newChallenge(fmt.Sprintf("n%d.example.com", i), "A").now()) }()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Present(ctx, newChallenge("gone.example.com", "A").now()); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := len(w.made("get")); n > 3 {
			t.Errorf("the zone was read %d times", n)
		}
		if n := len(w.records("example.com")); n != 100 {
			t.Errorf("%d records", n)
		}
	})
}

// Who leaves does not end the reading for those who stay, and nobody reads for nobody.
func TestLeavingASharedReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		ended := 0
		w.before = func(ctx context.Context, call string) error {
			if !strings.HasPrefix(call, "get") {
				return nil
			}
			select {
			case <-time.After(10 * time.Second):
				return nil
			case <-ctx.Done():
				ended++
				return ctx.Err()
			}
		}
		s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
		present := func(i int, patience time.Duration) chan error {
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				done <- s.Present(ctx, newChallenge(fmt.Sprintf("n%d.example.com", i), "A").now())
			}()
			synctest.Wait()
			return done
		}
		first := present(0, 5*time.Second)
		leaves, stays := present(1, 6*time.Second), present(2, time.Hour)
		start := time.Now()
		for _, done := range []chan error{first, leaves} {
			if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 15*time.Second || ended != 1 {
			t.Errorf("it took %v, and %d readings were ended", took, ended)
		}
		first, leaves = present(3, 5*time.Second), present(4, time.Second)
		<-leaves
		stays = present(5, time.Hour)
		<-first
		if err := <-stays; err != nil {
			t.Error(err)
		}
		if ended != 2 || len(w.made("get")) != 4 {
			t.Errorf("%d readings of %d were ended", ended, len(w.made("get")))
		}
	})
}

// A call that never returns keeps its slot, and costs the others no more than that.
func TestCallsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		release := make(chan struct{})
		w.before = func(_ context.Context, call string) error {
			if strings.Contains(call, "hang") {
				<-release
			}
			return nil
		}
		s, _ := newSolver(w, w)
		hung := make(chan error)
		for i := range 3 {
			go func() { hung <- s.Present(t.Context(), newChallenge(fmt.Sprintf("hang%d.example.com", i), "A").now()) }()
		}
		synctest.Wait()
		start := time.Now()
		mustPresent(t, s, newChallenge("fine.example.com", "A"))
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		for range 3 {
			wantError(t, <-hung, "no answer within 1m0s", `in zone "example.com"`)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("they were given up after %v", took)
		}
		mustPresent(t, s, newChallenge("good.example.com", "A"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s.Present(ctx, newChallenge("hang4.example.com", "A").now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		waits := make(chan error)
		go func() { waits <- s.Present(t.Context(), newChallenge("waits.example.com", "A").now()) }()
		time.Sleep(2 * time.Second)
		err := <-waits
		wantError(t, err, "have not returned", "no more than 4", `writing TXT "_acme-challenge.hang4" in zone "example.com"`)
		if took := time.Since(start); took != 67*time.Second {
			t.Errorf("it was told after %v", took)
		}
		close(release)
		synctest.Wait()
		mustPresent(t, s, newChallenge("again.example.com", "A"))
	})
}

// Reading is not needed: a provider where it hangs is still written to.
func TestAZoneWhoseReadingHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		release := make(chan struct{})
		w.before = func(_ context.Context, call string) error {
			if strings.HasPrefix(call, "get") {
				<-release
			}
			return nil
		}
		s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
		start := time.Now()
		var cs []*challenge
		for i := range 10 {
			c := newChallenge(fmt.Sprintf("n%d.example.com", i), "A")
			mustPresent(t, s, c)
			cs = append(cs, c)
		}
		mustCleanUp(t, s, cs...)
		if took := time.Since(start); took > 3*time.Minute {
			t.Errorf("it took %v", took)
		}
		want(t, "records", w.records("example.com"), []string{})
		close(release)
	})
}

// A call ends with the context that it was made for.
func TestCallsEndWithTheContext(t *testing.T) {
	w := newWriter("example.com")
	closing := errors.New("the Manager is closing")
	for _, p := range []dnsprovider.Provider{w, &fakeGetter{fakeWriter: w}} {
		s, _ := newSolver(w, p)
		ctx, cancel := context.WithCancelCause(t.Context())
		w.before = func(ctx context.Context, _ string) error {
			cancel(closing)
			<-ctx.Done()
			return ctx.Err()
		}
		if err := s.Present(ctx, newChallenge("example.com", "A").now()); !errors.Is(err, closing) {
			t.Errorf("error %v", err)
		}
	}
}
