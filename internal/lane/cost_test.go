package lane_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

// countingContext counts what it has been asked to call at its end.
type countingContext struct {
	context.Context
	n atomic.Int64
}

// Value hides that there is a context of package context within, which would be
// asked in its place.
func (c *countingContext) Value(any) any { return nil }

func (c *countingContext) AfterFunc(f func()) (stop func() bool) {
	c.n.Add(1)
	forget := context.AfterFunc(c.Context, f)
	return func() bool {
		stopped := forget()
		if stopped {
			c.n.Add(-1)
		}
		return stopped
	}
}

// A name's context lives for years, and its flights leave nothing in it.
func TestContextForgetsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, cancel := context.WithCancel(t.Context())
		defer cancel()
		ctx := &countingContext{Context: own}
		l := lane.New(lane.Options{Slots: 2})
		submit := func(n int) {
			for range n {
				l.Submit(&lane.Flight{Context: ctx, Timeout: time.Minute, Do: works(time.Second), Done: func(error) {}})
			}
			synctest.Wait()
		}
		submit(10)
		if got := ctx.n.Load(); got != 8 { // two fly
			t.Errorf("the context knows of %d queued flights; want 8", got)
		}
		at(time.Hour)
		l.Stop(time.Now().Add(time.Hour))
		submit(10)
		l.Close()
		if got := ctx.n.Load(); got != 0 {
			t.Errorf("the context still knows of %d flights", got)
		}
	})
}

func BenchmarkFlight(b *testing.B) {
	l := lane.New(lane.Options{})
	done := make(chan error)
	b.ReportAllocs()
	for b.Loop() {
		l.Submit(&lane.Flight{
			Context: b.Context(),
			Do:      func(context.Context) error { return nil },
			Done:    func(err error) { done <- err },
		})
		<-done
	}
}

func BenchmarkQueued(b *testing.B) {
	l := lane.New(lane.Options{})
	l.Stop(time.Now().Add(time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		l.Submit(&lane.Flight{Context: b.Context(), Need: time.Now().UnixNano() % 1000, Done: func(error) {}})
	}
}
