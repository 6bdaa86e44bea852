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

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeWork notes when it was called, and then does what the test wants.
type fakeWork struct {
	Task
	name string
	of   *fakes
	do   func()
}

func (w *fakeWork) Schedule() *Task { return &w.Task }

func (w *fakeWork) String() string { return w.name }

func (w *fakeWork) Due() {
	if w.of != nil {
		w.of.note(w.name)
	}
	if w.do != nil {
		w.do()
	}
}

// fakes is a running queue and what it called.
type fakes struct {
	*Queue
	began  time.Time
	offset atomic.Int64 // of the wall clock

	mu    sync.Mutex // guards calls
	calls []string   // "name@time since the beginning"
}

func (f *fakes) note(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprint(name, "@", time.Since(f.began)))
}

func (f *fakes) work(name string, do func()) *fakeWork {
	return &fakeWork{name: name, of: f, do: do}
}

// in is so long from now by the wall clock, in Unix seconds.
func (f *fakes) in(d time.Duration) int64 { return f.wall().Add(d).Unix() }

// want compares what was called since the last want, those of one time by name.
func (f *fakes) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.calls)
	slices.Sort(want)
	if !slices.Equal(f.calls, want) {
		t.Errorf("called %q; want %q", f.calls, want)
	}
	f.calls = nil
}

// inBubble runs a test with a queue that runs.
func inBubble(t *testing.T, o Options, test func(t *testing.T, f *fakes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{Queue: New(o), began: time.Now()}
		f.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(f.offset.Load())) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		synctest.Wait()
		test(t, f)
		cancel()
		<-done
	})
}

func TestWorkIsCalledWhenItIsDue(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		a, b, c, d := f.work("a", nil), f.work("b", nil), f.work("c", nil), f.work("d", nil)
		f.Set(a, f.in(time.Hour))
		f.Set(b, f.in(10*time.Second))
		f.Set(b, f.in(90*time.Second)) // in place of the first
		f.Set(c, f.in(-time.Hour))
		f.Set(d, f.in(time.Second))
		f.Set(d, Never)
		f.Set(d, Never)
		f.SetNow()
		if h := f.Health(); h.Waiting > 3 || h.NextDue.After(f.began) {
			t.Errorf("Health = %+v", h)
		}
		f.want(t, "c@0s")
		if h := f.Health(); h.Waiting != 2 || !h.NextDue.Equal(f.began.Add(90*time.Second)) || !h.LastWake.Equal(f.began) {
			t.Errorf("Health = %+v", h)
		}
		time.Sleep(2 * time.Hour)
		f.want(t, "b@1m30s", "a@1h0m0s")
		h := f.Health()
		if h.Waiting != 0 || !h.NextDue.IsZero() || time.Since(h.LastWake) > time.Minute {
			t.Errorf("Health = %+v", h)
		}
	})
}

// Unix seconds say when, however the clock stands within its second.
func TestDueWithinASecond(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		time.Sleep(1700 * time.Millisecond)
		f.Set(f.work("a", nil), f.in(time.Second))
		f.Set(f.work("b", nil), f.in(0))
		time.Sleep(time.Minute)
		f.want(t, "b@1.7s", "a@2s")
	})
}

func TestRemovedWorkIsNotCalled(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		a, b := f.work("a", nil), f.work("b", nil)
		f.Set(a, f.in(time.Second))
		f.Set(b, f.in(2*time.Second))
		f.Remove(a)
		f.Remove(a)
		time.Sleep(time.Minute)
		f.want(t, "b@2s")
		f.Set(a, f.in(time.Second)) // it may come back
		time.Sleep(time.Minute)
		f.want(t, "a@1m1s")
	})
}

func TestDueMaySetItselfAndOthers(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		other := f.work("other", nil)
		n := 0
		a := f.work("a", nil)
		a.do = func() {
			if n++; n < 3 {
				f.Set(a, f.in(10*time.Second))
				f.SetNow(other)
				return
			}
			f.Remove(a)
			f.Remove(other)
		}
		f.SetNow(a)
		time.Sleep(time.Hour)
		f.want(t, "a@0s", "other@0s", "a@10s", "other@10s", "a@20s")
	})
}

// One that is always due does not keep the others from being called.
func TestOneThatIsAlwaysDueStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, began := New(Options{}), time.Now()
		called := 0
		ctx, cancel := context.WithCancel(t.Context())
		always := &fakeWork{}
		always.do = func() {
			time.Sleep(time.Millisecond) // what it costs
			q.SetNow(always)
			if time.Since(began) > time.Minute {
				cancel()
			}
		}
		q.SetNow(always)
		for i := range 100 {
			q.Set(&fakeWork{do: func() { called++ }}, began.Unix()+int64(i%30))
		}
		q.Run(ctx)
		if called != 100 {
			t.Errorf("%d of 100 others were called", called)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		const many = 100_000
		var called, late atomic.Int64
		all := make([]Work, many)
		for i := range all {
			all[i] = &fakeWork{do: func() { called.Add(1) }}
		}
		f.Set(all[7], f.in(time.Hour))
		f.Set(&fakeWork{do: func() { late.Add(1) }}, f.in(time.Second))
		f.SetNow(all...)
		synctest.Wait()
		if called.Load() != many || late.Load() != 0 {
			t.Errorf("%d of %d called, and %d before its time", called.Load(), many, late.Load())
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if called.Load() != many || late.Load() != 1 {
			t.Errorf("%d of %d called, and %d of the later", called.Load(), many, late.Load())
		}
	})
}

func TestSetNowTwiceIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Options{})
		called := 0
		w := &fakeWork{do: func() { called++ }}
		q.SetNow(w, w, w)
		q.SetNow(w)
		if h := q.Health(); h.Waiting != 1 || !h.LastWake.IsZero() {
			t.Errorf("Health = %+v", h)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		q.Run(ctx)
		if called != 1 {
			t.Errorf("called %d times; want 1", called)
		}
	})
}

// The host slept, or the clock was set: what is due is called within a minute.
func TestClockJumpsForward(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		f.Set(f.work("a", nil), f.in(10*time.Hour))
		time.Sleep(30 * time.Second)
		f.offset.Store(int64(12 * time.Hour))
		time.Sleep(29 * time.Second)
		f.want(t)
		time.Sleep(time.Second)
		f.want(t, "a@1m0s")
	})
}

// After the clock was set back, each work looks for itself whether its time is
// still right: it may have been reckoned from a time that never was.
func TestClockJumpsBack(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, f *fakes) {
		f.offset.Store(int64(365 * 24 * time.Hour))
		a := f.work("a", nil)
		a.do = func() { f.Set(a, f.in(10*time.Minute)) }
		f.SetNow(a)
		f.Set(f.work("b", nil), f.in(24*time.Hour))
		time.Sleep(90 * time.Second)
		f.want(t, "a@0s")
		f.offset.Store(0)
		time.Sleep(10 * time.Minute)
		f.want(t, "a@2m0s", "b@2m0s")
		// A small step only delays by as much.
		f.offset.Store(-int64(time.Minute))
		time.Sleep(10 * time.Minute)
		f.want(t, "a@13m0s")
	})
}

func TestPanicLosesNoWork(t *testing.T) {
	var told []string
	o := Options{Panic: func(w Work, value any, stack []byte) {
		told = append(told, fmt.Sprint(w, ": ", value))
		if !strings.Contains(string(stack), "TestPanicLosesNoWork") {
			t.Errorf("the stack does not show where: %s", stack)
		}
		panic("in the report")
	}}
	inBubble(t, o, func(t *testing.T, f *fakes) {
		once := func(name string, do func()) *fakeWork {
			first := true
			return f.work(name, func() {
				if first {
					first = false
					do()
				}
			})
		}
		a, b := once("a", func() { panic("boom") }), once("b", runtime.Goexit)
		var c *fakeWork
		c = once("c", func() { f.Set(c, f.in(10*time.Second)); panic("set") })
		f.Set(a, f.in(time.Second))
		f.Set(b, f.in(2*time.Second))
		f.Set(c, f.in(3*time.Second))
		time.Sleep(time.Hour)
		f.want(t, "a@1s", "b@2s", "c@3s", "c@13s", "a@1m1s", "b@1m2s")
		if want := []string{"a: boom", "b: due ended its goroutine", "c: set"}; !slices.Equal(told, want) {
			t.Errorf("told %q; want %q", told, want)
		}
		if h := f.Health(); h.Panics != 3 || h.Waiting != 0 {
			t.Errorf("Health = %+v", h)
		}
	})
	inBubble(t, Options{}, func(t *testing.T, f *fakes) { // nobody to tell
		f.SetNow(f.work("a", func() { panic("boom") }))
		f.want(t, "a@0s")
		if h := f.Health(); h.Panics != 1 || h.Waiting != 1 {
			t.Errorf("Health = %+v", h)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		called := 0
		for range 100 {
			q.SetNow(&fakeWork{do: func() {
				if called++; called == 10 {
					cancel()
				}
			}})
		}
		q.Run(ctx)
		if h := q.Health(); called != 10 || h.Waiting != 90 {
			t.Errorf("called %d, Health = %+v", called, h)
		}
	})
}
