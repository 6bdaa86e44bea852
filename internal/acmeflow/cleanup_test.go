package acmeflow

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// slowClean is a solver whose clean-up takes its time.
type slowClean struct {
	*fakeSolver

	mu        sync.Mutex // guards the fields below
	now, most int
}

func (s *slowClean) CleanUp(ctx context.Context, ch Challenge) error {
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	time.Sleep(5 * time.Second)
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return s.fakeSolver.CleanUp(ctx, ch)
}

func (s *slowClean) into(req *Request) *Request {
	solvers := map[string]Solver{}
	for t := range req.Solvers {
		solvers[t] = s
	}
	req.Solvers = solvers
	return req
}

// TestD3_CleanUpsAreBounded has an order with many names not throw all its
// clean-ups at a DNS provider at once, and each have its whole time.
func TestD3_CleanUpsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		s := &slowClean{fakeSolver: e.solver}
		var names []string
		for i := range 60 {
			names = append(names, fmt.Sprintf("n%d.example.com", i))
		}
		if _, err := e.client.Issue(t.Context(), s.into(e.request(t, names...))); err != nil {
			t.Fatal(err)
		}
		if s.most > maxParallelAuthz {
			t.Errorf("%d clean-ups at once; want at most %d", s.most, maxParallelAuthz)
		}
		e.solver.checkClean(t)
	})
}

// A Solver that panics or ends its goroutine has failed like any other (F80), and
// is cleaned up after.
func TestSolverThatPanics(t *testing.T) {
	for name, end := range map[string]func(Challenge){
		"panicked": func(Challenge) { panic("no") },
		"ended":    func(Challenge) { runtime.Goexit() },
	} {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
			s := &slowClean{fakeSolver: e.solver}
			e.solver.onPresent = end
			err := e.failRequest(t, s.into(e.request(t, "a.example.com", "b.example.com")))
			if err.Step != StepPresent || !strings.Contains(err.Error(), name) || len(err.Earlier) != 1 {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
