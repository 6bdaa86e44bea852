package lane_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

func TestFullOfAbandonedSendsAllBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{Most: 2})
		back := make(chan struct{})
		for i := range 3 {
			f := n.quietly(t.Context(), fmt.Sprint(i), func(context.Context) error { <-back; return nil })
			f.Timeout = time.Second
			f.Done = func(err error) { n.add("%v", err) }
			l.Submit(f)
		}
		at(time.Minute)
		abandoned := fmt.Sprintf("%v: %v@11s", lane.ErrAbandoned, context.DeadlineExceeded)
		n.want(t, "0@0s", "1@0s", abandoned, abandoned, lane.ErrFull.Error()+"@11s")
		l.Submit(n.flight(t.Context(), "a", works(time.Second)))
		at(time.Minute)
		n.want(t, "a: "+lane.ErrFull.Error()+"@1m0s")
		close(back)
		at(time.Second)
		l.Submit(n.flight(t.Context(), "b", works(time.Second)))
		at(time.Second)
		n.want(t, "b@2m1s", "b done@2m2s")
	})
}

func TestProbeGoesBeforeTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNotes(), lane.New(lane.Options{})
		l.Probe() // it is not stopped
		l.Stop(time.Now().Add(time.Hour))
		l.Submit(n.flight(t.Context(), "a", works(time.Second)))
		l.Submit(n.flight(t.Context(), "b", works(time.Second)))
		at(time.Minute)
		l.Probe()
		at(time.Minute)
		n.want(t, "a@1m0s", "a done@1m1s", "b@1m1s", "b done@1m2s")
	})
}
