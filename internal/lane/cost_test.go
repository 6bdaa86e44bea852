package lane_test

import (
	"context"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/lane"
)

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
