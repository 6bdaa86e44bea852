package acmeflow

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// Whatever an issue waits for, it waits through Sleep, but for the directory, for
// which others may wait meanwhile; and it says what it does.
func TestEveryPauseGoesThroughSleep(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsBeforeValid: 3, PollsProcessing: 3})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", N: 1, Status: 500})
		e.ca.On(fakeca.Rule{Endpoint: "directory", N: 1, HangUp: fakeca.Before})
		req := e.request(t, "example.com")
		var mu sync.Mutex // guards slept, steps
		var slept time.Duration
		var steps []string
		req.Sleep = func(_ context.Context, d time.Duration) error {
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			slept += d
			return nil
		}
		req.Progress = func(step, detail string) {
			mu.Lock()
			defer mu.Unlock()
			if steps = append(steps, step); detail == "" {
				t.Errorf("%s: no detail", step)
			}
		}
		began := time.Now()
		if _, err := e.client.Issue(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != slept+retryPause || slept < retryPause {
			t.Errorf("it took %v, %v of them in Sleep", took, slept)
		}
		want := []string{"account", "order", "present", "challenge", "finalize", "download"}
		if steps = slices.Compact(steps); !slices.Equal(steps, want) {
			t.Errorf("steps %v, want %v", steps, want)
		}
		e.solver.checkClean(t)
	})
}

// A Sleep that does not come back to its turn ends the issue.
func TestSleepEndsTheIssue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsProcessing: 3})
		ctx, cancel := context.WithCancelCause(t.Context())
		req := e.request(t, "example.com")
		req.Sleep = func(ctx context.Context, _ time.Duration) error {
			cancel(errUnexpected)
			return context.Cause(ctx)
		}
		if _, err := e.client.Issue(ctx, req); err == nil {
			t.Error("it was issued")
		}
		e.solver.checkClean(t)
	})
}
