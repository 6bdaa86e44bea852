package lane_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

func TestSlowFlightLosesItsSlotAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1, Slow: 3 * time.Second})
		l.Submit(n.flight(t.Context(), "slow", works(10*time.Second)))
		l.Submit(n.flight(t.Context(), "next", works(time.Second)))
		at(3 * time.Second)
		wantStatus(t, l, "running 2 slow 1 parked 0 queued 0 abandoned 0")
		at(time.Minute)
		n.want(t, "slow@0s", "next@3s", "next done@4s", "slow done@10s")
		wantStatus(t, l, "running 0 slow 0 parked 0 queued 0 abandoned 0")
	})
}

// A flight that gives its slot back in between is not slow.
func TestTimeWithoutASlotIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1, Slow: 3 * time.Second})
		l.Submit(n.flight(t.Context(), "polls", func(ctx context.Context) error {
			for range 4 {
				time.Sleep(2 * time.Second)
				if err := lane.Sleep(ctx, 10*time.Second); err != nil {
					return err
				}
			}
			wantStatus(t, l, "running 1 slow 0 parked 0 queued 0 abandoned 0")
			return nil
		}))
		at(time.Hour)
		n.want(t, "polls@0s", "polls done@48s")
	})
}

func TestFlightThatIgnoresItsContextIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1, Most: 2})
		hang := make(chan struct{})
		ctx, cancel := context.WithCancelCause(t.Context())
		var result error
		f := n.quietly(ctx, "hangs", func(context.Context) error { <-hang; return errTest })
		f.Done = func(err error) { n.add("done"); result = err }
		l.Submit(f)
		at(time.Second)
		cancel(errTest)
		at(9 * time.Second)
		n.want(t, "hangs@0s")
		at(time.Second)
		n.want(t, "done@11s")
		if !errors.Is(result, lane.ErrAbandoned) || !errors.Is(result, errTest) {
			t.Errorf("Done(%v); want ErrAbandoned with the cause", result)
		}
		// It counts against Most until it returns, and then nobody is told.
		l.Submit(n.flight(t.Context(), "other", works(20*time.Second)))
		l.Submit(n.flight(t.Context(), "third", works(time.Second)))
		at(5 * time.Second)
		wantStatus(t, l, "running 1 slow 1 parked 0 queued 1 abandoned 1")
		if s := l.Status(); !slices.Equal(s.Abandoned, []string{"hangs"}) || !slices.Equal(s.Flying, []string{"other"}) {
			t.Errorf("Status = %+v", s)
		}
		close(hang)
		n.want(t, "other@11s", "third@16s")
		at(time.Minute)
		n.want(t, "third done@17s", "other done@31s")
		wantStatus(t, l, "running 0 slow 0 parked 0 queued 0 abandoned 0")
	})
}

// It has no slot any more, also when it was not slow yet.
func TestAbandonedFlightHasNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1, Slow: time.Hour, Grace: time.Second})
		f := n.quietly(t.Context(), "hangs", works(30*time.Minute))
		f.Timeout = time.Minute
		l.Submit(f)
		l.Submit(n.quietly(t.Context(), "next", works(time.Second)))
		at(2 * time.Hour)
		n.want(t, "hangs@0s", "next@1m1s")
	})
}

// One that is late, but within the grace, has its own result.
func TestFlightMayTakeItsTimeToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		f := n.flight(t.Context(), "late", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(9 * time.Second)
			return errTest
		})
		f.Timeout = time.Minute
		l.Submit(f)
		at(time.Hour)
		n.want(t, "late@0s", "late: test@1m9s")
	})
}

func TestPanicsAreResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lane.New(lane.Options{Slots: 1})
		for name, do := range map[string]func(){
			"panic: boom":                           func() { panic("boom") },
			"panic: test":                           func() { panic(errTest) },
			"panic: the call ended its goroutine":   runtime.Goexit,
			"panic: panic called with nil argument": func() { panic(nil) },
		} {
			var result error
			l.Submit(&lane.Flight{
				Context: t.Context(),
				Do:      func(context.Context) error { do(); return nil },
				Done:    func(err error) { result = err },
			})
			synctest.Wait()
			p, ok := errors.AsType[*lane.PanicError](result)
			if !ok || !strings.HasPrefix(result.Error(), name) || len(p.Stack) == 0 {
				t.Errorf("Done(%v); want a PanicError with %q and a stack", result, name)
			}
			if name == "panic: test" && !errors.Is(result, errTest) {
				t.Error("the error is not unwrapped")
			}
		}
		if s := l.Status(); s.Panics != 4 || s.Running != 0 {
			t.Errorf("Status = %+v", s)
		}
	})
}

func TestPanicInDoneKeepsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		for i, done := range []func(error){
			func(error) { panic("boom") },
			func(error) { runtime.Goexit() },
		} {
			f := n.quietly(t.Context(), fmt.Sprint(i), works(time.Second))
			f.Done = done
			l.Submit(f)
		}
		l.Submit(n.flight(t.Context(), "next", works(time.Second)))
		at(time.Minute)
		n.want(t, "0@0s", "1@1s", "next@2s", "next done@3s")
		if s := l.Status(); s.Panics != 1 || len(s.Flying) > 0 {
			t.Errorf("Status = %+v", s)
		}
	})
}

const (
	all     = 3000
	hanging = 40
)

// flyAll returns how long all took that do not hang, with those that hang in
// between.
func flyAll(t *testing.T, o lane.Options, do func(context.Context) error, hang []func(context.Context) error) (took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), neverKey{}, make(chan struct{})))
		l, began := lane.New(o), time.Now()
		var done, stuck atomic.Int64
		for i := range all - hanging {
			if i%20 == 0 && len(hang) > 0 {
				stuck.Add(1)
				l.Submit(&lane.Flight{Context: ctx, Timeout: 5 * time.Minute, Do: hang[0], Done: func(error) { stuck.Add(-1) }})
				hang = hang[1:]
			}
			l.Submit(&lane.Flight{Context: ctx, Do: do, Done: func(error) {
				if done.Add(1) == all-hanging {
					took = time.Since(began)
				}
			}})
		}
		at(24 * time.Hour)
		if len(hang) > 0 || stuck.Load() != 0 || took == 0 {
			t.Errorf("%d of those that hang did not fly and %d are not given up; the others took %v", len(hang), stuck.Load(), took)
		}
		cancel()
		close(ctx.Value(neverKey{}).(chan struct{})) // what was abandoned ends
	})
	return took
}

// neverKey has, in a context, a channel that is closed at the end of the test.
type neverKey struct{}

// F5: flights that hang, whatever the way, cost the others little.
func TestFortyThatHangDelayTheOthersLittle(t *testing.T) {
	ways := map[string]func(context.Context) error{
		"ignores its context": func(ctx context.Context) error { <-ctx.Value(neverKey{}).(chan struct{}); return nil },
		"ends late": func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(8 * time.Second)
			return ctx.Err()
		},
		"sleeps":            func(ctx context.Context) error { return lane.Sleep(ctx, 1000*time.Hour) },
		"waits for a lease": func(ctx context.Context) error { defer lane.Idle(ctx)(); return obeys(ctx) },
	}
	hang := make(map[string][]func(context.Context) error)
	for name, way := range ways {
		hang[name] = slices.Repeat([]func(context.Context) error{way}, hanging)
		hang["mixed"] = append(hang["mixed"], hang[name][:hanging/len(ways)]...)
	}
	for _, test := range []struct {
		name string
		opts lane.Options
		do   func(context.Context) error
	}{
		{"issuer", lane.Options{}, func(ctx context.Context) error {
			time.Sleep(200 * time.Millisecond)
			err := lane.Sleep(ctx, time.Second)
			time.Sleep(200 * time.Millisecond)
			return err
		}},
		{"storage", lane.Options{Slow: 200 * time.Millisecond}, works(10 * time.Millisecond)},
	} {
		without := flyAll(t, test.opts, test.do, nil)
		for name, hang := range hang {
			took := flyAll(t, test.opts, test.do, hang)
			t.Logf("%s: %s: the others took %v; without them %v", test.name, name, took, without)
			if took > without*3/2 {
				t.Errorf("%s: %s: the others took %v; without them %v", test.name, name, took, without)
			}
		}
	}
}
