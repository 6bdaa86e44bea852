package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeWork notes what ran and when, and then does what the test wants.
type fakeWork struct {
	began time.Time
	work  func(ctx context.Context, key string)

	mu   sync.Mutex // guards runs
	runs []string   // "key@time since the beginning"
}

func (f *fakeWork) run(ctx context.Context, key string) {
	f.mu.Lock()
	f.runs = append(f.runs, fmt.Sprintf("%s@%v", key, time.Since(f.began)))
	f.mu.Unlock()
	if f.work != nil {
		f.work(ctx, key)
	}
}

func (f *fakeWork) want(t *testing.T, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.runs, want) {
		t.Errorf("ran %q; want %q", f.runs, want)
	}
}

// inBubble runs a test with a queue that runs.
func inBubble(t *testing.T, opts Options, test func(t *testing.T, q *Queue, f *fakeWork)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeWork{began: time.Now()}
		opts.Run = f.run
		q := New(opts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		synctest.Wait()
		test(t, q, f)
		cancel()
		<-done
	})
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

func at(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRunsInOrderAndOnTheSecond(t *testing.T) {
	inBubble(t, Options{Workers: 1}, func(t *testing.T, q *Queue, f *fakeWork) {
		q.Set("c", in(3*time.Hour))
		q.Set("a", in(time.Second))
		q.Set("b2", in(time.Minute))
		q.Set("b1", in(time.Minute)) // same time, set later
		q.Set("past", in(-time.Hour))
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
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakeWork) {
		q.Set("later", in(time.Second))
		q.Set("later", in(time.Minute))
		q.Set("earlier", in(time.Hour))
		q.Set("earlier", in(time.Second))
		q.Set("gone", in(time.Second))
		q.Remove("gone")
		q.Remove("unknown")
		if due, ok := q.Due("later"); !ok || !due.Equal(in(time.Minute)) {
			t.Errorf("Due = %v, %v", due, ok)
		}
		for _, key := range []string{"gone", "unknown"} {
			if due, ok := q.Due(key); ok {
				t.Errorf("Due(%q) = %v", key, due)
			}
		}
		at(2 * time.Hour)
		f.want(t, "earlier@1s", "later@1m0s")
	})
}

func TestKeyThatRunsIsRunAgainAndNeverTwiceAtOnce(t *testing.T) {
	var running, most atomic.Int32
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(context.Context, string) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(10 * time.Second)
			running.Add(-1)
		}
		q.SetNow("a")
		at(time.Second)
		if due, ok := q.Due("a"); ok {
			t.Errorf("Due of a key that runs only = %v", due)
		}
		q.Set("a", in(time.Second)) // due while it runs: right after it
		at(time.Second)
		if due, ok := q.Due("a"); !ok || !due.Equal(time.Now()) {
			t.Errorf("Due = %v, %v", due, ok)
		}
		at(10 * time.Second) // 12s: runs again
		q.Set("a", in(time.Minute))
		q.Set("a", in(2*time.Minute)) // the last one counts
		at(time.Hour)
		f.want(t, "a@0s", "a@10s", "a@2m12s")
	})
	if most.Load() != 1 {
		t.Errorf("%d runs at once", most.Load())
	}
}

func TestKeySetsItselfAnew(t *testing.T) {
	inBubble(t, Options{Workers: 2}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(_ context.Context, key string) { q.Set(key, in(time.Hour)) }
		q.SetNow("a")
		at(3*time.Hour + time.Second)
		f.want(t, "a@0s", "a@1h0m0s", "a@2h0m0s", "a@3h0m0s")
	})
}

func TestRemoveWhileRunning(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(context.Context, string) { time.Sleep(time.Minute) }
		for _, key := range []string{"a", "b"} {
			q.SetNow(key)
			at(0)
			q.SetNow(key)
			q.Remove(key)
		}
		q.Set("b", in(time.Hour))
		at(2 * time.Hour)
		f.want(t, "a@0s", "b@0s", "b@1h0m0s")
	})
}

func TestSetNowGoesAheadOfAll(t *testing.T) {
	inBubble(t, Options{Workers: 1}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(context.Context, string) { time.Sleep(time.Second) }
		q.SetNow("first")
		at(0)
		q.Set("due", in(-time.Hour))
		q.SetNow("x")
		q.SetNow("y")
		q.SetNow("x") // keeps its place
		q.SetNow("z")
		q.Set("z", in(time.Hour)) // a waiting key moves
		for key, want := range map[string]int{"first": 0, "x": 0, "y": 1, "due": 2, "z": 3} {
			if got, ok := q.Position(key); !ok || got != want {
				t.Errorf("Position(%q) = %d, %v; want %d", key, got, ok, want)
			}
		}
		if got, ok := q.Position("unknown"); ok {
			t.Errorf("Position of an unknown key = %d", got)
		}
		at(10 * time.Second)
		f.want(t, "first@0s", "x@1s", "y@2s", "due@3s")
	})
}

func TestSetNowDuringARunIsNotLost(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(_ context.Context, key string) {
			next := in(time.Hour) // decided before the request comes
			time.Sleep(time.Second)
			q.Set(key, next)
		}
		q.SetNow("a")
		at(500 * time.Millisecond)
		q.SetNow("a")
		at(30 * time.Minute)
		f.want(t, "a@0s", "a@1s")
		if due, ok := q.Due("a"); !ok || due.Sub(f.began) != time.Hour+time.Second {
			t.Errorf("Due = %v, %v", due.Sub(f.began), ok)
		}
	})
}

func TestWorkersAreBounded(t *testing.T) {
	var running, most atomic.Int32
	inBubble(t, Options{Workers: 3}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(context.Context, string) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
		}
		for i := range 30 {
			q.Set(fmt.Sprint(i), in(0))
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

func TestManyKeysEachAtItsTime(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	var wrong, runs atomic.Int32
	var mu sync.Mutex // guards dues
	dues := make(map[string]time.Time, n)
	inBubble(t, Options{}, func(t *testing.T, q *Queue, f *fakeWork) {
		f.work = func(_ context.Context, key string) {
			runs.Add(1)
			mu.Lock()
			defer mu.Unlock()
			if !dues[key].Equal(time.Now()) {
				wrong.Add(1)
			}
		}
		mu.Lock()
		for i := range n {
			key := fmt.Sprint(i)
			dues[key] = in(time.Second + time.Duration(rand.IntN(3600))*time.Second)
			q.Set(key, dues[key])
		}
		mu.Unlock()
		if got, ok := q.Position("0"); !ok || got < 0 || got >= n {
			t.Errorf("Position = %d, %v", got, ok)
		}
		at(2 * time.Hour)
	})
	if wrong.Load() != 0 || int(runs.Load()) != n {
		t.Errorf("%d runs, %d at another time than theirs; want %d and 0", runs.Load(), wrong.Load(), n)
	}
}

func TestR12_PositionCountsWhatIsBefore(t *testing.T) {
	q := New(Options{})
	const n = 1000
	order := rand.Perm(n)
	begin := time.Now()
	for _, i := range order {
		q.Set(fmt.Sprint(i), begin.Add(time.Duration(i/2)*time.Second)) // two of each time
	}
	for _, i := range order[:n/2] {
		q.Set(fmt.Sprint(i), begin.Add(time.Duration(i/2)*time.Second)) // no change, keeps its place
	}
	var want []string
	for i := range n / 2 {
		a, b := 2*i, 2*i+1
		if slices.Index(order, a) > slices.Index(order, b) {
			a, b = b, a
		}
		want = append(want, fmt.Sprint(a), fmt.Sprint(b))
	}
	for i, key := range want {
		if got, ok := q.Position(key); !ok || got != i {
			t.Fatalf("Position(%q) = %d, %v; want %d", key, got, ok, i)
		}
	}
}

func BenchmarkSet(b *testing.B) {
	q := New(Options{})
	begin := time.Now()
	for i := range 100_000 {
		q.Set(fmt.Sprint(i), begin.Add(time.Duration(rand.IntN(1_000_000))*time.Second))
	}
	i := 0
	for b.Loop() {
		q.Set(fmt.Sprint(i%100_000), begin.Add(time.Duration(rand.IntN(1_000_000))*time.Second))
		i++
	}
}
