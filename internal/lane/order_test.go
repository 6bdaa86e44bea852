package lane_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

// The most needed takes off first, and of equals the one submitted first.
func TestSmallestNeedFliesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		submit := func(name string, need int64) *lane.Flight {
			f := n.quietly(t.Context(), name, works(time.Second))
			f.Need = need
			l.Submit(f)
			return f
		}
		flies := submit("flies", 9)
		submit("c", 5)
		submit("d", 5)
		last := submit("last", 8)
		submit("b", 1)
		raised := submit("raised", 7)
		if got := []int{l.Ahead(flies), l.Ahead(raised), l.Ahead(last)}; !slices.Equal(got, []int{0, 3, 4}) {
			t.Errorf("ahead are %v; want 0 3 4", got)
		}
		l.Raise(raised, 0)
		l.Raise(last, 100) // not sooner: nothing
		l.Raise(flies, 0)  // flies already: nothing
		if got := l.Ahead(raised); got != 0 {
			t.Errorf("ahead of the raised are %d; want 0", got)
		}
		at(time.Minute)
		n.want(t, "flies@0s", "raised@1s", "b@2s", "c@3s", "d@4s", "last@5s")
	})
}

func TestOrderIsThatOfASortedList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lane.New(lane.Options{Slots: 1})
		l.Stop(time.Now().Add(time.Hour))
		r := rand.New(rand.NewPCG(1, 2))
		var got []int64
		var fs []*lane.Flight
		needs := make(map[*lane.Flight]int64)
		for range 1000 {
			f := &lane.Flight{Need: r.Int64N(300), Context: t.Context(), Done: func(error) {}, Token: r.IntN(2) == 0}
			f.Do = func(context.Context) error {
				got = append(got, needs[f])
				return nil
			}
			fs, needs[f] = append(fs, f), f.Need
			l.Submit(f)
			if some := fs[r.IntN(len(fs))]; r.IntN(3) == 0 {
				need := r.Int64N(300)
				l.Raise(some, need)
				needs[some] = min(needs[some], need)
			}
		}
		l.Resume()
		synctest.Wait()
		if len(got) != len(fs) || !slices.IsSorted(got) {
			t.Errorf("%d of %d flew, in this order: %v", len(got), len(fs), got)
		}
	})
}

func TestNoMoreWorkAtOnceThanSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Name: "ca", Slots: 2})
		for i := range 5 {
			l.Submit(n.quietly(t.Context(), fmt.Sprint(i), works(time.Second)))
		}
		wantStatus(t, l, "running 2 slow 0 parked 0 queued 3 abandoned 0")
		s := l.Status()
		if s.Name != "ca" || !s.OldestSince.Equal(n.began) || len(s.Flying) != 2 {
			t.Errorf("Status = %+v", s)
		}
		at(time.Minute)
		n.want(t, "0@0s", "1@0s", "2@1s", "3@1s", "4@2s")
		wantStatus(t, l, "running 0 slow 0 parked 0 queued 0 abandoned 0")
	})
}

func TestResultsReachDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lane.New(lane.Options{})
		var asked int
		for _, test := range []struct {
			name string
			do   func(context.Context) error
			want error // nil: a *PanicError
		}{
			{"nothing", func(context.Context) error { return nil }, nil},
			{"an error", func(context.Context) error { return errTest }, errTest},
			{"the time-out", obeys, context.DeadlineExceeded},
		} {
			l.Submit(&lane.Flight{
				Name: test.name, Context: t.Context(), Timeout: time.Minute, Do: test.do,
				Done: func(err error) {
					asked++
					if !errors.Is(err, test.want) {
						t.Errorf("%s: %v; want %v", test.name, err, test.want)
					}
					l.Status() // no lock is held
				},
			})
			at(time.Hour)
		}
		if asked != 3 {
			t.Errorf("Done was called %d times; want 3", asked)
		}
	})
}

func TestContextEndsQueuedFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "first", works(time.Second)))
		ctx, cancel := context.WithCancelCause(t.Context())
		queued := n.flight(ctx, "queued", works(time.Second))
		l.Submit(queued)
		time.Sleep(time.Millisecond)
		cancel(errTest)
		n.want(t, "first@0s", "queued: test@1ms")
		l.Submit(n.flight(ctx, "late", works(time.Second)))
		n.want(t, "late: test@1ms")
		wantStatus(t, l, "running 1 slow 0 parked 0 queued 0 abandoned 0")
		at(time.Second)
		n.want(t, "first done@1s")
		l.Submit(n.flight(ctx, "at once", works(time.Second))) // there is a free slot
		n.want(t, "at once: test@1.001s")
	})
}

func TestCloseSendsBackWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "flies", works(time.Second)))
		l.Submit(n.flight(t.Context(), "queued", works(time.Second)))
		token := n.flight(t.Context(), "token", works(time.Second))
		token.Token = true
		l.Submit(token)
		l.Close()
		l.Close()
		n.want(t, "flies@0s", "queued: "+lane.ErrClosed.Error()+"@0s", "token: "+lane.ErrClosed.Error()+"@0s")
		l.Submit(n.flight(t.Context(), "late", works(time.Second)))
		n.want(t, "late: "+lane.ErrClosed.Error()+"@0s")
		at(time.Second)
		n.want(t, "flies done@1s")
	})
}

func TestSecondSubmitPanics(t *testing.T) {
	l := lane.New(lane.Options{})
	l.Close()
	done := make(chan error, 1)
	f := &lane.Flight{Name: "a", Context: t.Context(), Done: func(err error) { done <- err }}
	l.Submit(f)
	if err := <-done; !errors.Is(err, lane.ErrClosed) {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		l.Status() // the lock is free
	}()
	l.Submit(f)
}

// Whatever the lane starts, it starts through Go, and Go and Done are called
// with no lock held.
func TestGoroutinesAreTheOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *lane.Lane
		started, done := 0, 0
		l = lane.New(lane.Options{Slots: 1, Go: func(f func()) {
			l.Status()
			started++
			f() // at once: it would wait for a lock that is held
		}})
		var next *lane.Flight
		flight := func(context.Context) error { return nil }
		next = &lane.Flight{Context: t.Context(), Do: flight, Done: func(error) { done++ }}
		l.Submit(&lane.Flight{Context: t.Context(), Do: flight, Done: func(error) {
			done++
			l.Submit(next)
		}})
		if started != 1 || done != 2 { // the second goes on with the first one's goroutine
			t.Errorf("%d started and %d done; want 1 and 2", started, done)
		}
	})
}
