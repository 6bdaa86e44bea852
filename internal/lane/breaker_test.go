package lane_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

// A CA that is down is asked by one, not by all.
func TestOneProbesWhileTheOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		l.Submit(n.flight(t.Context(), "flies", works(time.Second)))
		synctest.Wait()
		l.Stop(time.Now().Add(time.Minute))
		l.Stop(time.Now().Add(time.Second)) // sooner than what counts
		for _, name := range []string{"a", "b", "c"} {
			l.Submit(n.flight(t.Context(), name, works(time.Second)))
		}
		at(59 * time.Second)
		n.want(t, "flies@0s", "flies done@1s")
		if got := l.StoppedUntil().Sub(n.began); got != time.Minute {
			t.Errorf("stopped until %v; want 1m", got)
		}
		at(time.Second)
		n.want(t, "a@1m0s")
		if got := l.StoppedUntil().Sub(n.began); got != time.Minute {
			t.Errorf("stopped until %v; want 1m", got)
		}
		at(time.Minute)
		n.want(t, "a done@1m1s", "b@1m1s", "c@1m1s", "b done@1m2s", "c done@1m2s")
		if got := l.StoppedUntil(); !got.IsZero() {
			t.Errorf("stopped until %v", got)
		}
	})
}

func TestProbeThatStopsAgainSendsAllBack(t *testing.T) {
	stop := func(l *lane.Lane) { l.Stop(time.Now().Add(time.Hour)) }
	for _, place := range []string{"Do", "Done"} {
		synctest.Test(t, func(t *testing.T) {
			n, l := newNotes(), lane.New(lane.Options{})
			l.Stop(time.Now().Add(time.Minute))
			f := n.quietly(t.Context(), "probe", func(context.Context) error {
				time.Sleep(time.Second)
				if place == "Do" {
					stop(l)
				}
				return errTest
			})
			f.Done = func(error) {
				if place == "Done" {
					stop(l)
				}
			}
			l.Submit(f)
			l.Submit(n.flight(t.Context(), "a", works(time.Second)))
			token := n.flight(t.Context(), "b", works(time.Second))
			token.Token = true
			l.Submit(token)
			at(2 * time.Minute)
			sent := ": " + lane.ErrStopped.Error() + "@1m1s"
			n.want(t, "probe@1m0s", "a"+sent, "b"+sent)
			// What comes later waits for the next probe.
			l.Submit(n.flight(t.Context(), "c", works(time.Second)))
			l.Submit(n.flight(t.Context(), "d", works(time.Second)))
			at(2 * time.Hour)
			n.want(t, "c@1h1m1s", "c done@1h1m2s", "d@1h1m2s", "d done@1h1m3s")
		})
	}
}

// A probe that hangs shows nothing: others probe beside it, one in two minutes, until
// one has an answer.
func TestProbeThatHangsIsNotTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		l.Stop(time.Now())
		for _, name := range []string{"a", "b"} {
			l.Submit(n.quietly(t.Context(), name, works(time.Hour)))
		}
		stops := n.flight(t.Context(), "stops", works(2*time.Second))
		stops.Done = func(error) { l.Stop(time.Now().Add(10 * time.Second)) }
		l.Submit(stops)
		sent := n.flight(t.Context(), "sent", works(time.Second))
		l.Submit(sent)
		at(4*time.Minute + 5*time.Second)
		n.want(t, "a@0s", "b@2m0s", "stops@4m0s", "sent: "+lane.ErrStopped.Error()+"@4m2s")
		for _, name := range []string{"c", "d", "e"} {
			l.Submit(n.quietly(t.Context(), name, works(time.Second)))
		}
		at(2 * time.Hour)
		n.want(t, "c@4m12s", "d@4m13s", "e@4m13s")
	})
}

func TestResumeEndsAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		l.Stop(time.Now().Add(time.Minute))
		l.Submit(n.quietly(t.Context(), "a", works(time.Second)))
		at(time.Second)
		l.Resume()
		n.want(t, "a@1s")
		// Also while a probe flies, which then is none.
		l.Stop(time.Now())
		l.Submit(n.quietly(t.Context(), "probe", works(time.Hour)))
		l.Submit(n.quietly(t.Context(), "b", works(time.Second)))
		n.want(t, "probe@1s")
		l.Resume()
		n.want(t, "b@1s")
		l.Stop(time.Now().Add(time.Minute))
		l.Submit(n.flight(t.Context(), "c", works(time.Second)))
		at(2 * time.Hour)
		n.want(t, "c@1m1s", "c done@1m2s")
	})
}

// A probe that its owner cancels shows nothing; one that times out or is
// abandoned, and whose Done does not stop the lane, ends the stop like another.
func TestWhatAProbeShows(t *testing.T) {
	for _, test := range []struct {
		name    string
		do      func(context.Context) error
		timeout time.Duration
		cancel  bool
		want    []string
	}{
		{"cancelled", obeys, 0, true, []string{"probe@0s", "a@2s", "b@3s"}},
		{"timed out", obeys, 2 * time.Second, false, []string{"probe@0s", "a@2s", "b@2s"}},
		{"abandoned", works(time.Hour), 2 * time.Second, false, []string{"probe@0s", "a@12s", "b@12s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, l := newNotes(), lane.New(lane.Options{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				l.Stop(time.Now())
				f := n.quietly(ctx, "probe", test.do)
				f.Timeout = test.timeout
				l.Submit(f)
				l.Submit(n.quietly(t.Context(), "a", works(time.Second)))
				l.Submit(n.quietly(t.Context(), "b", works(time.Second)))
				at(2 * time.Second)
				if test.cancel {
					cancel()
				}
				at(2 * time.Hour)
				n.want(t, test.want...)
			})
		})
	}
}

// F28: a token is taken by who needs it most when there is one.
func TestTokensAreTakenAtTakeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		l.SetRate(2, 10*time.Second) // two at once, then one in 5 s
		submit := func(ctx context.Context, name string, need int64, token bool) {
			f := n.quietly(ctx, name, works(time.Second))
			f.Need, f.Token = need, token
			l.Submit(f)
		}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			submit(t.Context(), name, 5, true)
		}
		ctx, cancel := context.WithCancel(t.Context())
		submit(ctx, "unmanaged", 4, true)
		submit(t.Context(), "upkeep", 9, false) // waits for no token
		at(time.Second)
		cancel() // takes none
		submit(t.Context(), "revoked", 1, true)
		at(time.Minute)
		n.want(t, "a@0s", "b@0s", "upkeep@0s", "revoked@5s", "c@10s", "d@15s", "e@20s")
		// Unused tokens add up to two, not more.
		for i := range 3 {
			submit(t.Context(), fmt.Sprint(i), 0, true)
		}
		at(time.Minute)
		n.want(t, "0@1m1s", "1@1m1s", "2@1m6s")
	})
}

// A flight that turns out to need no token gives it back, once.
func TestTokenIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := lane.New(lane.Options{}), newNotes()
		l.SetRate(1, time.Hour)
		lane.Refund(t.Context()) // outside of a flight
		for i := range 3 {
			f := n.flight(t.Context(), fmt.Sprint(i), func(ctx context.Context) error {
				time.Sleep(time.Second)
				if i < 2 {
					lane.Refund(ctx)
					lane.Refund(ctx)
				}
				return nil
			})
			f.Token = true
			l.Submit(f)
		}
		f := n.flight(t.Context(), "last", works(0))
		f.Need, f.Token = 9, true
		l.Submit(f)
		at(3 * time.Hour)
		n.want(t, "0@0s", "1@1s", "0 done@1s", "2@2s", "1 done@2s", "2 done@3s", "last@1h0m2s", "last done@1h0m2s")
	})
}

func TestRateMayChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		submit := func(names ...string) {
			for _, name := range names {
				f := n.quietly(t.Context(), name, works(time.Second))
				f.Token = true
				l.Submit(f)
			}
			synctest.Wait()
		}
		l.SetRate(1, time.Hour)
		submit("a", "b", "c", "d")
		n.want(t, "a@0s")
		l.SetRate(1, time.Minute) // no longer an hour, but what was taken is
		at(time.Minute)
		n.want(t, "b@1m0s")
		l.SetRate(0, 0)
		n.want(t, "c@1m0s", "d@1m0s")
		at(time.Minute)
	})
}

// Slow flights, tokens and stops together: all end, no more work than may.
func TestManyFlightsOfAllKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, most, all = 4, 30, 2000
		l := lane.New(lane.Options{Slots: slots, Most: most})
		l.SetRate(10, time.Second)
		ended := make(chan error, all)
		for i := range all {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7+1)*5*time.Minute)
			f := &lane.Flight{Name: fmt.Sprint(i), Context: ctx, Token: i%3 == 0, Need: int64(i * 7919 % all)}
			f.Do = func(ctx context.Context) error {
				switch i % 5 {
				case 0:
					return lane.Sleep(ctx, time.Duration(i%60)*time.Second)
				case 1:
					time.Sleep(time.Duration(i%40) * time.Second)
				case 2:
					defer lane.Idle(ctx)()
					time.Sleep(time.Duration(i%20) * time.Second)
				case 3:
					panic(i)
				}
				if i%400 == 4 {
					l.Stop(time.Now().Add(20 * time.Second))
				}
				return nil
			}
			f.Done = func(err error) { cancel(); ended <- err }
			l.Submit(f)
		}
		for l.Status().Queued > 0 {
			at(time.Second)
			s := l.Status()
			if s.Running-s.Slow > slots || len(s.Flying)+len(s.Abandoned) > most || s.Running+s.Parked != len(s.Flying) {
				t.Fatalf("Status = %+v", s)
			}
		}
		at(time.Hour)
		wantStatus(t, l, "running 0 slow 0 parked 0 queued 0 abandoned 0")
		close(ended)
		results := make(map[string]int)
		n := 0
		for err := range ended {
			n++
			_, panicked := errors.AsType[*lane.PanicError](err)
			switch {
			case panicked:
				results["panic"]++
			default:
				results[fmt.Sprint(err)]++
			}
		}
		if n != all || results["panic"] == 0 || len(results) < 3 || l.Status().Panics != results["panic"] {
			t.Errorf("%d of %d ended: %v", n, all, results)
		}
	})
}
