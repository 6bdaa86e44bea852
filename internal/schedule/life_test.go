package schedule

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestClockIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		f := &fakeWork{began: time.Now()}
		q := New(Options{Run: f.run, MaxIdle: 30 * time.Second})
		q.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		q.Set("a", in(10*time.Hour))
		at(31 * time.Second)
		f.want(t)
		offset.Store(int64(12 * time.Hour)) // the host slept, or the clock was set
		at(28 * time.Second)
		f.want(t)
		at(time.Second)
		f.want(t, "a@1m0s")
		// Back again: what is due later by the clock waits for the clock.
		offset.Store(0)
		q.Set("b", in(time.Minute))
		at(time.Minute)
		f.want(t, "a@1m0s", "b@2m0s")
		cancel()
		<-done
	})
}

// A worker that goes on with a key which only a jump of the clock made due does
// so without the dispatcher, which must see the new time of the key before.
func TestKeySetAnewIsWatchedWhenItsWorkerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		f := &fakeWork{began: time.Now()}
		q := New(Options{Run: f.run, Workers: 2, MaxIdle: time.Hour})
		q.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		f.work = func(_ context.Context, key string) {
			time.Sleep(time.Second)
			switch {
			case key == "long":
				time.Sleep(time.Minute)
			case offset.Load() == 0:
				offset.Store(int64(2 * time.Hour))
				q.Set(key, q.now().Add(5*time.Second))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		q.Set("long", in(2*time.Hour))
		q.SetNow("again")
		at(30 * time.Second)
		f.want(t, "again@0s", "long@1s", "again@6s")
		cancel()
		<-done
	})
}

func TestL6_PanicsDoNotStopTheQueue(t *testing.T) {
	var told []string
	var mu sync.Mutex // guards told
	opts := Options{Workers: 1, MaxIdle: time.Minute, Panic: func(key string, value any, stack []byte) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(key, ": ", value))
		if key == "boom" && !strings.Contains(string(stack), "TestL6_PanicsDoNotStopTheQueue") {
			t.Errorf("the stack does not show where: %s", stack)
		}
		if key == "worse" {
			panic("in the report")
		}
	}}
	inBubble(t, opts, func(t *testing.T, q *Queue, f *fakeWork) {
		first := true
		f.work = func(_ context.Context, key string) {
			switch key {
			case "boom":
				if first {
					first = false
					panic("no luck")
				}
			case "removed", "worse":
				q.Remove(key)
				panic("no luck")
			case "set":
				q.Set(key, in(time.Hour))
				q.Remove("good")
				panic("no luck")
			case "exit":
				q.Remove(key)
				runtime.Goexit()
			}
		}
		for _, key := range []string{"boom", "removed", "worse", "exit", "set", "good", "good2"} {
			q.Set(key, in(0))
		}
		at(59 * time.Minute)
		f.want(t, "boom@0s", "removed@0s", "worse@0s", "exit@0s", "set@0s", "good2@0s", "boom@1m0s")
		if h := q.Health(); h.Panics != 6 || h.Running != 0 || h.Waiting != 1 {
			t.Errorf("Health = %+v", h)
		}
		want := []string{"boom: no luck", "removed: no luck", "worse: no luck", "exit: run ended its goroutine", "set: no luck"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q; want %q", told, want)
		}
		q.Remove("set")
	})
}

func TestL6_HealthShowsLifeAndWhatHangs(t *testing.T) {
	inBubble(t, Options{Workers: 2, MaxIdle: time.Minute}, func(t *testing.T, q *Queue, f *fakeWork) {
		release := make(chan struct{})
		f.work = func(context.Context, string) { <-release }
		q.Set("later", in(24*time.Hour))
		at(time.Hour + time.Second)
		h := q.Health()
		if since := time.Since(h.LastWake); since > time.Minute {
			t.Errorf("the last look at the clock was %v ago", since)
		}
		if !h.NextDue.Equal(f.began.Add(24*time.Hour)) || h.Waiting != 1 || h.Running != 0 || h.OldestRunning != "" {
			t.Errorf("Health = %+v", h)
		}
		q.SetNow("a")
		at(time.Second)
		q.SetNow("b")
		at(time.Hour)
		h = q.Health()
		if h.Running != 2 || h.OldestRunning != "a" || time.Since(h.OldestSince) != time.Hour+time.Second {
			t.Errorf("Health = %+v", h)
		}
		if since := time.Since(h.LastWake); since > time.Minute {
			t.Errorf("with all workers busy the last look at the clock was %v ago", since)
		}
		close(release)
	})
}

func TestShutdownWaitsForWorkAndKeepsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeWork{began: time.Now()}
		q := New(Options{Workers: 2, Run: f.run})
		var ended atomic.Int32
		f.work = func(ctx context.Context, key string) {
			if key == "c" {
				return
			}
			<-ctx.Done()
			time.Sleep(5 * time.Second)
			ended.Add(1)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		second := make(chan struct{})
		for _, key := range []string{"a", "b", "c"} {
			q.Set(key, in(0))
		}
		go func() {
			defer close(second)
			time.Sleep(time.Second)
			late, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			q.Run(late) // takes over when the first has ended
		}()
		q.Run(ctx)
		if took := time.Since(f.began); took != 65*time.Second || ended.Load() != 2 {
			t.Errorf("Run returned after %v with %d runs ended", took, ended.Load())
		}
		<-second
		f.want(t, f.runs[0], f.runs[1], "c@1m5s")
		gone, cancelNow := context.WithCancel(t.Context())
		cancelNow()
		q.SetNow("d")
		q.Run(gone)
		if q.Len() != 1 || len(f.runs) != 3 {
			t.Errorf("Len = %d, ran %q", q.Len(), f.runs)
		}
	})
}
