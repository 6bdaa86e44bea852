package lane_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

func TestSleepGivesTheSlotBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "polls", func(ctx context.Context) error {
			err := lane.Sleep(ctx, 5*time.Second)
			n.add("slept: %v", err)
			return err
		}))
		l.Submit(n.flight(t.Context(), "other", works(time.Second)))
		synctest.Wait()
		wantStatus(t, l, "running 1 slow 0 parked 1 queued 0 abandoned 0")
		at(time.Minute)
		n.want(t, "polls@0s", "other@0s", "other done@1s", "slept: <nil>@5s", "polls done@5s")
	})
}

// Who slept works on before any takes off, the first awake first.
func TestSleeperIsFirstInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		sleeps := func(d time.Duration) func(context.Context) error {
			return func(ctx context.Context) error {
				err := lane.Sleep(ctx, d)
				n.add("slept %v", d)
				time.Sleep(time.Second)
				return err
			}
		}
		l.Submit(n.quietly(t.Context(), "a", sleeps(1500*time.Millisecond)))
		l.Submit(n.quietly(t.Context(), "b", sleeps(1200*time.Millisecond)))
		synctest.Wait()
		for _, name := range []string{"1", "2", "3", "4"} {
			f := n.quietly(t.Context(), name, works(time.Second))
			f.Need = -1 // more needed than the sleepers
			l.Submit(f)
		}
		at(1700 * time.Millisecond)
		wantStatus(t, l, "running 1 slow 0 parked 2 queued 2 abandoned 0")
		at(time.Minute)
		n.want(t, "a@0s", "b@0s", "1@0s", "2@1s", "slept 1.2s@2s", "slept 1.5s@3s", "3@4s", "4@5s")
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		ctx, cancel := context.WithCancelCause(t.Context())
		l.Submit(n.flight(ctx, "sleeps", func(ctx context.Context) error {
			err := lane.Sleep(ctx, time.Hour)
			if again := lane.Sleep(ctx, time.Hour); !errors.Is(again, err) {
				t.Errorf("a second Sleep: %v; want %v", again, err)
			}
			time.Sleep(100 * time.Millisecond) // cleans up
			return err
		}))
		l.Submit(n.flight(t.Context(), "has the slot", works(90*time.Second)))
		at(time.Second)
		cancel(errTest)
		// It waits for no slot before it ends.
		wantStatus(t, l, "running 2 slow 1 parked 0 queued 0 abandoned 0")
		at(100 * time.Millisecond)
		n.want(t, "sleeps@0s", "has the slot@0s", "sleeps: test@1.1s")
		at(time.Hour)
		n.want(t, "has the slot done@1m30s")
	})
}

// A context that ends before the flight's ends the sleep, not the wait for a slot.
func TestSleepWithAShorterContextTakesASlotAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "sleeps", func(ctx context.Context) error {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return lane.Sleep(short, time.Hour)
		}))
		l.Submit(n.flight(t.Context(), "other", works(1500*time.Millisecond)))
		at(time.Hour)
		n.want(t, "sleeps@0s", "other@0s", "other done@1.5s", "sleeps: context deadline exceeded@1.5s")
	})
}

func TestSleepOutsideAFlightOnlyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := lane.Sleep(t.Context(), time.Second); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := lane.Sleep(t.Context(), -1); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := lane.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		lane.Idle(ctx)()
	})
}

func TestIdleGivesTheSlotBackUntilBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "waits", func(ctx context.Context) error {
			back := lane.Idle(ctx)
			if err := lane.Sleep(ctx, time.Second); err != nil { // within: takes no slot
				return err
			}
			n.add("slept")
			time.Sleep(800 * time.Millisecond)
			back()
			n.add("back")
			back()
			time.Sleep(time.Second)
			return nil
		}))
		l.Submit(n.flight(t.Context(), "other", works(2500*time.Millisecond)))
		l.Submit(n.flight(t.Context(), "third", works(time.Second)))
		at(time.Minute)
		// The other is slow after 2 s, and the first takes its slot.
		n.want(t, "waits@0s", "other@0s", "slept@1s", "back@2s", "other done@2.5s",
			"third@3s", "waits done@3s", "third done@4s")
		wantStatus(t, l, "running 0 slow 0 parked 0 queued 0 abandoned 0")
	})
}

// Goroutines of one flight may sleep at once; none of them takes a second slot.
func TestOneFlightHasOneSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 2})
		l.Submit(n.flight(t.Context(), "many", func(ctx context.Context) error {
			done := make(chan error)
			for i := range 10 {
				go func() { done <- lane.Sleep(ctx, time.Duration(i+1)*time.Second) }()
			}
			for range 10 {
				<-done
			}
			time.Sleep(time.Second)
			return nil
		}))
		at(10 * time.Second)
		for _, name := range []string{"a", "b"} {
			l.Submit(n.flight(t.Context(), name, works(time.Second)))
		}
		at(time.Minute)
		n.want(t, "many@0s", "many done@11s", "a@10s", "a done@11s", "b@11s", "b done@12s")
	})
}

// One goroutine waits for the slot while another leaves and comes back.
func TestGoroutinesOfOneFlightLeaveInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "two", func(ctx context.Context) error {
			var wg sync.WaitGroup
			wg.Go(func() {
				_ = lane.Sleep(ctx, time.Second) // then it waits for the slot until 1.9 s
				n.add("a")
			})
			wg.Go(func() {
				time.Sleep(1200 * time.Millisecond)
				_ = lane.Sleep(ctx, 300*time.Millisecond)
				n.add("b")
				_ = lane.Sleep(ctx, 600*time.Millisecond)
				n.add("b") // a has the slot
			})
			wg.Wait()
			return nil
		}))
		synctest.Wait()
		l.Submit(n.flight(t.Context(), "other", works(1900*time.Millisecond)))
		l.Submit(n.flight(t.Context(), "third", works(time.Second)))
		at(time.Minute)
		n.want(t, "two@0s", "other@0s", "b@1.5s", "a@1.9s", "other done@1.9s", "b@2.1s", "two done@2.1s", "third@2.1s", "third done@3.1s")
		l.Submit(n.flight(t.Context(), "last", works(time.Second)))
		wantStatus(t, l, "running 1 slow 0 parked 0 queued 0 abandoned 0")
		at(time.Second)
		n.want(t, "last@1m0s", "last done@1m1s")
	})
}

// A second call of back does not count as another's.
func TestBackTwiceIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		l.Submit(n.flight(t.Context(), "waits", func(ctx context.Context) error {
			back := lane.Idle(ctx)
			back()
			back()
			defer lane.Idle(ctx)()
			err := lane.Sleep(ctx, time.Second)
			time.Sleep(time.Second)
			return err
		}))
		at(1500 * time.Millisecond)
		wantStatus(t, l, "running 0 slow 0 parked 1 queued 0 abandoned 0")
		at(time.Minute)
		n.want(t, "waits@0s", "waits done@2s")
	})
}

// What outlives its flight does not disturb the lane.
func TestSleepAfterTheFlightEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Slots: 1})
		var of context.Context
		var back func()
		l.Submit(n.flight(t.Context(), "a", func(ctx context.Context) error {
			of, back = ctx, lane.Idle(ctx)
			return nil
		}))
		synctest.Wait()
		back()
		if err := lane.Sleep(of, time.Second); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		l.Submit(n.flight(t.Context(), "b", works(time.Second)))
		wantStatus(t, l, "running 1 slow 0 parked 0 queued 0 abandoned 0")
		at(time.Second)
		n.want(t, "a@0s", "a done@0s", "b@0s", "b done@1s")
	})
}
