package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// waitingSolver is a Solver whose responses are seen after a while.
type waitingSolver struct {
	*fakeSolver
	wait func(ctx context.Context, ch Challenge) error
}

func (s waitingSolver) Wait(ctx context.Context, ch Challenge) error { return s.wait(ctx, ch) }

// Two orders that need each other's turns, as tls-alpn-01 has them, do not wait for
// each other: what need not be waited for is validated as soon as it is presented.
func TestWithoutWaiterNothingWaitsForAnothersPresent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
		cleaned := make(chan struct{})
		e.solver.onPresent = func(ch Challenge) {
			if ch.Identifier == "b.example.com" { // only when the other has been validated
				select {
				case <-cleaned:
				case <-time.After(time.Minute):
					t.Error("the other name waits for this one's Present")
				}
			}
		}
		req := e.request(t, "a.example.com", "b.example.com")
		req.Solvers = map[string]Solver{"http-01": signalling{e.solver, cleaned}}
		if _, err := e.client.Issue(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	})
}

// signalling says when a.example.com is cleaned up.
type signalling struct {
	*fakeSolver
	cleaned chan struct{}
}

func (s signalling) CleanUp(ctx context.Context, ch Challenge) error {
	if ch.Identifier == "a.example.com" {
		close(s.cleaned)
	}
	return s.fakeSolver.CleanUp(ctx, ch)
}

// Of names that are waited for one cannot be seen: the others are validated, and all
// are cleaned up. Who panics has failed like any other.
func TestOneThatIsNotSeenDoesNotStopTheOthers(t *testing.T) {
	for name, bad := range map[string]func() error{
		"error":  func() error { return errors.New("ns2 lacks it") },
		"panics": func() error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Challenges: []string{"dns-01"}})
				var names []string
				for i := range 30 {
					names = append(names, fmt.Sprintf("n%d.example.com", i))
				}
				req := e.request(t, names...)
				req.Solvers = map[string]Solver{"dns-01": waitingSolver{e.solver, func(_ context.Context, ch Challenge) error {
					if ch.Identifier == names[7] {
						return bad()
					}
					return nil
				}}}
				_, err := e.client.Issue(t.Context(), req)
				got := asError(err)
				if got == nil || got.Step != StepWait || got.Identifier != names[7] || got.Challenge != "dns-01" || len(got.Validations) > 0 {
					t.Errorf("%v", err)
				}
				e.wantCount(t, "challenge", 29)
				e.solver.checkClean(t)
			})
		})
	}
}

// An order that fails for a reason of its own begins nothing more, and what was
// presented is cleaned up.
func TestWhatWasPresentedIsCleanedUpWhenTheOrderFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Challenges: []string{"dns-01"}})
		e.ca.On(fakeca.Rule{Endpoint: "authz", N: 2, Status: 403, Problem: &fakeca.Problem{Type: "urn:ietf:params:acme:error:unauthorized"}})
		req := e.request(t, "a.example.com", "b.example.com", "c.example.com")
		req.Solvers = map[string]Solver{"dns-01": waitingSolver{e.solver, func(context.Context, Challenge) error {
			t.Error("it is waited for")
			return nil
		}}}
		_, err := e.client.Issue(t.Context(), req)
		if got := asError(err); got == nil || got.Step != StepAuthorize || !strings.Contains(err.Error(), "unauthorized") {
			t.Errorf("%v", err)
		}
		e.wantCount(t, "challenge", 0)
		e.solver.checkClean(t)
	})
}
