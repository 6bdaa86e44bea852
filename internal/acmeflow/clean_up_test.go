package acmeflow

import (
	"context"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// slowSolver takes its time to clean up.
type slowSolver struct {
	*fakeSolver
	pause time.Duration
}

func (s slowSolver) CleanUp(ctx context.Context, ch Challenge) error {
	if !sleep(ctx, s.pause) {
		return context.Cause(ctx)
	}
	return s.fakeSolver.CleanUp(ctx, ch)
}

// Cleaning up takes no time of its own where the CA takes as long, and is over
// when Issue returns.
func TestCleanUp_BesideTheRequestsThatFollow(t *testing.T) {
	for name, row := range map[string]struct{ pause, want time.Duration }{
		"quick": {2 * time.Second, 6 * time.Second}, // newOrder, authz, challenge, authz, finalize, cert
		"slow":  {5 * time.Second, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.issue(t, "warm.example.com")
				e.ca.On(fakeca.Rule{Delay: time.Second})
				req := e.request(t, "example.com")
				req.State = nil
				for kind := range req.Solvers {
					req.Solvers[kind] = slowSolver{e.solver, row.pause}
				}
				began := time.Now()
				if _, err := e.client.Issue(t.Context(), req); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began) - firstPoll; took != row.want {
					t.Errorf("took %v, want %v", took, row.want)
				}
				e.solver.checkClean(t)
			})
		})
	}
}

// Another challenge is presented only when the one that failed is cleaned up.
func TestCleanUp_BeforeAnotherChallenge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Challenges: []string{"http-01", "tls-alpn-01"}})
		e.solver.onPresent = func(ch Challenge) {
			e.solver.mu.Lock()
			defer e.solver.mu.Unlock()
			if ch.Type == "http-01" {
				delete(e.solver.live, ch.Type+" "+ch.Identifier+" "+ch.Token)
			}
			if ch.Type == "tls-alpn-01" && len(e.solver.cleaned) != 1 {
				t.Errorf("%d challenges were cleaned up before the second one", len(e.solver.cleaned))
			}
		}
		req := e.request(t, "example.com")
		for kind := range req.Solvers {
			req.Solvers[kind] = slowSolver{e.solver, 5 * time.Second}
		}
		if _, err := e.client.Issue(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if got := e.solver.types(); len(got) != 2 {
			t.Errorf("presented %v", got)
		}
		e.solver.checkClean(t)
	})
}
