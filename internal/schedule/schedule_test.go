package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func TestRunsInOrderAndOnTheSecond(t *testing.T) {
	inBubble(t, Options{Workers: 1}, func(t *testing.T, q *Queue, f *fakes) {
		q.Set(f.named("c"), in(3*time.Hour))
		q.Set(f.named("a"), in(time.Second))
		q.Set(f.named("b2"), in(time.Minute))
		q.Set(f.named("b1"), in(time.Minute)) // same time, set later
		q.Set(f.named("past"), in(-time.Hour))
		at(0)
		if got := q.Len(); got != 4 {
			t.Errorf("Len = %d; want 4", got)
		}
		at(24 * time.Hour)
		f.want(t, "past@0s", "a@1s", "b2@1m0s", "b1@1m0s", "c@3h0m0s")
		if got := q.Len(); got != 0 {
			t.Errorf("Len = %d; want 0", got)
		}
	})
}

func TestMovesAndRemovals(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakes) {
		q.Set(f.named("later"), in(time.Second))
		q.Set(f.named("later"), in(time.Minute))
		q.Set(f.named("earlier"), in(time.Hour))
		q.Set(f.named("earlier"), in(time.Second))
		q.Set(f.named("gone"), in(time.Second))
		q.Remove(f.named("gone"))
		q.Remove(f.named("unknown"))
		if due, ok := q.Due(f.named("later")); !ok || !due.Equal(in(time.Minute)) {
			t.Errorf("Due = %v, %v", due, ok)
		}
		for _, name := range []string{"gone", "unknown"} {
			if due, ok := q.Due(f.named(name)); ok {
				t.Errorf("Due(%q) = %v", name, due)
			}
		}
		at(2 * time.Hour)
		f.want(t, "earlier@1s", "later@1m0s")
	})
}

func TestWorkThatRunsIsRunAgainAndNeverTwiceAtOnce(t *testing.T) {
	var running, most atomic.Int32
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(context.Context, *fakeWork) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(10 * time.Second)
			running.Add(-1)
		}
		q.SetNow(f.named("a"))
		at(time.Second)
		if due, ok := q.Due(f.named("a")); ok {
			t.Errorf("Due of what runs only = %v", due)
		}
		q.Set(f.named("a"), in(time.Second)) // due while it runs: right after it
		at(time.Second)
		if due, ok := q.Due(f.named("a")); !ok || !due.Equal(time.Now()) {
			t.Errorf("Due = %v, %v", due, ok)
		}
		at(10 * time.Second) // 12s: runs again
		q.Set(f.named("a"), in(time.Minute))
		q.Set(f.named("a"), in(2*time.Minute)) // the last one counts
		at(time.Hour)
		f.want(t, "a@0s", "a@10s", "a@2m12s")
	})
	if most.Load() != 1 {
		t.Errorf("%d runs at once", most.Load())
	}
}

func TestWorkSetsItselfAnew(t *testing.T) {
	inBubble(t, Options{Workers: 2}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(_ context.Context, w *fakeWork) { q.Set(w, in(time.Hour)) }
		q.SetNow(f.named("a"))
		at(3*time.Hour + time.Second)
		f.want(t, "a@0s", "a@1h0m0s", "a@2h0m0s", "a@3h0m0s")
	})
}

func TestRemoveWhileRunning(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(context.Context, *fakeWork) { time.Sleep(time.Minute) }
		for _, name := range []string{"a", "b"} {
			q.SetNow(f.named(name))
			at(0)
			q.SetNow(f.named(name))
			q.Remove(f.named(name))
		}
		q.Set(f.named("b"), in(time.Hour))
		at(2 * time.Hour)
		f.want(t, "a@0s", "b@0s", "b@1h0m0s")
	})
}

func TestSetNowGoesAheadOfAll(t *testing.T) {
	inBubble(t, Options{Workers: 1}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(context.Context, *fakeWork) { time.Sleep(time.Second) }
		q.SetNow(f.named("first"))
		at(0)
		q.Set(f.named("due"), in(-time.Hour))
		q.SetNow(f.named("x"))
		q.SetNow(f.named("y"))
		q.SetNow(f.named("x")) // keeps its place
		q.SetNow(f.named("z"))
		q.Set(f.named("z"), in(time.Hour)) // what waits moves
		for name, want := range map[string]int{"first": 0, "x": 0, "y": 1, "due": 2, "z": 3} {
			if got, ok := q.Position(f.named(name)); !ok || got != want {
				t.Errorf("Position(%q) = %d, %v; want %d", name, got, ok, want)
			}
		}
		if got, ok := q.Position(f.named("unknown")); ok {
			t.Errorf("Position of what is not in the queue = %d", got)
		}
		at(10 * time.Second)
		f.want(t, "first@0s", "x@1s", "y@2s", "due@3s")
	})
}

func TestSetNowDuringARunIsNotLost(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(_ context.Context, w *fakeWork) {
			next := in(time.Hour) // decided before the request comes
			time.Sleep(time.Second)
			q.Set(w, next)
		}
		q.SetNow(f.named("a"))
		at(500 * time.Millisecond)
		q.SetNow(f.named("a"))
		at(30 * time.Minute)
		f.want(t, "a@0s", "a@1s")
		if due, ok := q.Due(f.named("a")); !ok || due.Sub(f.began) != time.Hour+time.Second {
			t.Errorf("Due = %v, %v", due.Sub(f.began), ok)
		}
	})
}

func TestWorkersAreBounded(t *testing.T) {
	var running, most atomic.Int32
	inBubble(t, Options{Workers: 3}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(context.Context, *fakeWork) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
		}
		for i := range 30 {
			q.Set(f.named(fmt.Sprint(i)), in(0))
		}
		at(500 * time.Millisecond)
		if h := q.Health(); h.Running != 3 || h.Waiting != 27 {
			t.Errorf("Health = %+v", h)
		}
		at(9 * time.Second)
		if got := len(f.runs); got != 30 || q.Health().Running != 3 {
			t.Errorf("%d runs after 9.5s; want 30", got)
		}
		at(time.Second)
	})
	if most.Load() != 3 {
		t.Errorf("%d runs at once; want 3", most.Load())
	}
}

func TestManyEachAtItsTime(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	var wrong, runs atomic.Int32
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(_ context.Context, w *fakeWork) {
			runs.Add(1)
			if !w.due.Equal(time.Now()) {
				wrong.Add(1)
			}
		}
		for i := range n {
			w := f.named(fmt.Sprint(i))
			w.due = in(time.Second + time.Duration(rand.IntN(3600))*time.Second)
			q.Set(w, w.due)
		}
		if got, ok := q.Position(f.named("0")); !ok || got < 0 || got >= n {
			t.Errorf("Position = %d, %v", got, ok)
		}
		at(2 * time.Hour)
	})
	if wrong.Load() != 0 || int(runs.Load()) != n {
		t.Errorf("%d runs, %d at another time than theirs; want %d and 0", runs.Load(), wrong.Load(), n)
	}
}

func TestR12_PositionCountsWhatIsBefore(t *testing.T) {
	q, f := New(Options{}), newFakes()
	const n = 1000
	order := rand.Perm(n)
	begin := time.Now()
	for _, i := range order {
		q.Set(f.named(fmt.Sprint(i)), begin.Add(time.Duration(i/2)*time.Second)) // two of each time
	}
	for _, i := range order[:n/2] {
		q.Set(f.named(fmt.Sprint(i)), begin.Add(time.Duration(i/2)*time.Second)) // no change, keeps its place
	}
	var want []string
	for i := range n / 2 {
		a, b := 2*i, 2*i+1
		if slices.Index(order, a) > slices.Index(order, b) {
			a, b = b, a
		}
		want = append(want, fmt.Sprint(a), fmt.Sprint(b))
	}
	for i, name := range want {
		if got, ok := q.Position(f.named(name)); !ok || got != i {
			t.Fatalf("Position(%q) = %d, %v; want %d", name, got, ok, i)
		}
	}
}
