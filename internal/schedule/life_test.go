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
		f := newFakes()
		q := New(Options{MaxIdle: 30 * time.Second})
		q.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		q.Set(f.named("a"), in(10*time.Hour))
		at(31 * time.Second)
		f.want(t)
		offset.Store(int64(12 * time.Hour)) // the host slept, or the clock was set
		at(28 * time.Second)
		f.want(t)
		at(time.Second)
		f.want(t, "a@1m0s")
		// Back again: what is due later by the clock waits for the clock.
		offset.Store(0)
		q.Set(f.named("b"), in(time.Minute))
		at(time.Minute)
		f.want(t, "a@1m0s", "b@2m0s")
		cancel()
		<-done
	})
}

// A worker that goes on with what only a jump of the clock made due does so
// without the dispatcher, which must see the new time of what ran before.
func TestWorkSetAnewIsWatchedWhenItsWorkerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		f := newFakes()
		q := New(Options{Workers: 2, MaxIdle: time.Hour})
		q.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		f.do = func(_ context.Context, w *fakeWork) {
			time.Sleep(time.Second)
			switch {
			case w.name == "long":
				time.Sleep(time.Minute)
			case offset.Load() == 0:
				offset.Store(int64(2 * time.Hour))
				q.Set(w, q.now().Add(5*time.Second))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		q.Set(f.named("long"), in(2*time.Hour))
		q.SetNow(f.named("again"))
		at(30 * time.Second)
		f.want(t, "again@0s", "long@1s", "again@6s")
		cancel()
		<-done
	})
}

func TestL6_PanicsDoNotStopTheQueue(t *testing.T) {
	var told []string
	var mu sync.Mutex // guards told
	opts := Options{Workers: 1, MaxIdle: time.Minute, Panic: func(w Work, value any, stack []byte) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(w, ": ", value))
		if w.String() == "boom" && !strings.Contains(string(stack), "TestL6_PanicsDoNotStopTheQueue") {
			t.Errorf("the stack does not show where: %s", stack)
		}
		if w.String() == "worse" {
			panic("in the report")
		}
	}}
	inBubble(t, opts, func(t *testing.T, q *Queue, f *fakes) {
		first := true
		f.do = func(_ context.Context, w *fakeWork) {
			switch w.name {
			case "boom":
				if first {
					first = false
					panic("no luck")
				}
			case "removed", "worse":
				q.Remove(w)
				panic("no luck")
			case "set":
				q.Set(w, in(time.Hour))
				q.Remove(f.named("good"))
				panic("no luck")
			case "exit":
				q.Remove(w)
				runtime.Goexit()
			}
		}
		for _, name := range []string{"boom", "removed", "worse", "exit", "set", "good", "good2"} {
			q.Set(f.named(name), in(0))
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
		q.Remove(f.named("set"))
	})
}

// What a run leaves behind must not change what becomes of the next.
func TestFailureIsRepeatedAfterMaxIdle(t *testing.T) {
	inBubble(t, Options{MaxIdle: time.Minute}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(_ context.Context, w *fakeWork) {
			switch time.Since(f.began) {
			case 0:
				q.Remove(w)
			case time.Second:
				panic("no luck")
			}
		}
		w := f.named("a")
		q.SetNow(w)
		at(time.Second)
		q.SetNow(w)
		at(time.Second)
		if due, ok := q.Due(w); !ok || due.Sub(f.began) != time.Minute+time.Second {
			t.Errorf("Due = %v, %v", due.Sub(f.began), ok)
		}
		at(time.Hour)
		f.want(t, "a@0s", "a@1s", "a@1m1s")
	})
}

func TestL6_HealthShowsLifeAndWhatHangs(t *testing.T) {
	inBubble(t, Options{Workers: 2, MaxIdle: time.Minute}, func(t *testing.T, q *Queue, f *fakes) {
		release := make(chan struct{})
		f.do = func(context.Context, *fakeWork) { <-release }
		q.Set(f.named("later"), in(24*time.Hour))
		at(time.Hour + time.Second)
		h := q.Health()
		if since := time.Since(h.LastWake); since > time.Minute {
			t.Errorf("the last look at the clock was %v ago", since)
		}
		if !h.NextDue.Equal(f.began.Add(24*time.Hour)) || h.Waiting != 1 || h.Running != 0 || h.OldestRunning != "" {
			t.Errorf("Health = %+v", h)
		}
		q.SetNow(f.named("a"))
		at(time.Second)
		q.SetNow(f.named("b"))
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
		f := newFakes()
		q := New(Options{Workers: 2})
		var ended atomic.Int32
		f.do = func(ctx context.Context, w *fakeWork) {
			if w.name == "c" {
				return
			}
			<-ctx.Done()
			time.Sleep(5 * time.Second)
			ended.Add(1)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		second := make(chan struct{})
		for _, name := range []string{"a", "b", "c"} {
			q.Set(f.named(name), in(0))
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
		q.SetNow(f.named("d"))
		q.Run(gone)
		if q.Len() != 1 || len(f.runs) != 3 {
			t.Errorf("Len = %d, ran %q", q.Len(), f.runs)
		}
	})
}
