package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/mholt/acmez/v3/acme"
)

// maxParallelAuthz is how many authorizations of one order are solved side by side.
const maxParallelAuthz = 10

// authorize brings every authorization of the order to valid. Valid ones cost
// one look each and no challenge. A name that fails does not stop the others:
// they would pile up as pending, and their valid authorizations serve the next
// order (F32). Any other failure lets begin nothing more. Everything that the CA
// can see only after a while is presented before any of it is waited for.
func (r *run) authorize(ctx context.Context, o *order) error {
	if n := len(o.Authorizations); n > r.mostAuthorizations() {
		return &Error{Step: StepAuthorize, URL: o.URL, dead: true, Err: fmt.Errorf("the CA asks for %d authorizations for %d names", n, len(r.req.Names))}
	}
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &work{stop: stop, cancel: cancel, slots: make(chan struct{}, maxParallelAuthz)}
	for _, u := range slices.Compact(slices.Sorted(slices.Values(o.Authorizations))) {
		w.list = append(w.list, &solving{a: authorization{URL: u}})
	}
	r.each(ctx, w, func(s *solving) error { return w.inSlot(func() error { return r.prepare(ctx, w, s) }) })
	r.each(ctx, w, func(s *solving) error { return r.solve(ctx, w, s) })
	var errs []*Error
	for _, s := range w.list {
		if s.err != nil && !errors.Is(s.err, errStopped) {
			errs = append(errs, s.err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	errs[0].Earlier = append(errs[0].Earlier, errs[1:]...)
	return errs[0]
}

// errStopped is the end of what another name's failure kept from beginning.
var errStopped = errors.New("acmeflow: another name has failed")

// work is what is to be done for the authorizations of an order, side by side.
type work struct {
	stop   context.Context // ended: nothing new is asked of the CA
	cancel context.CancelCauseFunc
	slots  chan struct{} // holds a value for each that is at work
	list   []*solving
}

// solving is an authorization being brought to valid.
type solving struct {
	a    authorization
	ch   *challenge // to be solved; nil: none
	task Challenge
	wait Waiter // nil: there is nothing to be waited for
	err  *Error
}

// each calls f for all that have not failed and notes how that ends.
func (r *run) each(ctx context.Context, w *work, f func(s *solving) error) {
	var wg sync.WaitGroup
	for _, s := range w.list {
		if s.err != nil {
			continue
		}
		wg.Go(func() {
			e := asError(f(s))
			if e != nil && s.a.name != "" {
				e.Identifier = s.a.name
				if e.Challenge != "" && ctx.Err() == nil {
					r.noteFailed(s.a.name, e.Challenge, e.Step == StepChallenge)
					e.another = r.another(&s.a, e.Problem)
				}
			}
			if s.err = e; e != nil && e.Challenge == "" {
				w.cancel(errStopped)
			}
		})
	}
	wg.Wait()
}

// inSlot calls f when there is room for it. Those who hold one end with the
// attempt.
func (w *work) inSlot(f func() error) error {
	w.slots <- struct{}{}
	defer func() { <-w.slots }()
	return f()
}

// prepare looks at an authorization and picks the challenge to be solved, which it
// presents if that has to be waited for. It asks the CA for nothing new once
// another name has failed.
func (r *run) prepare(ctx context.Context, w *work, s *solving) error {
	if _, err := r.fetchInto(w.stop, StepAuthorize, s.a.URL, &s.a); err != nil {
		return err
	}
	if s.a.Status == acme.StatusValid {
		if r.made == "" {
			r.withdraw(ctx, &s.a)
		}
		return nil
	}
	var ok bool
	if s.a.name, ok = r.match(&s.a); !ok {
		return &Error{Step: StepAuthorize, URL: s.a.URL, dead: true, Err: fmt.Errorf("the authorization is for %q, which is none of %v", s.a.Identifier.Value, r.req.Names)}
	}
	if !waiting(s.a.Status) {
		return r.authzError(&s.a, "")
	}
	ch, err := r.choose(&s.a)
	if err != nil {
		return err
	}
	s.ch, s.task = ch, r.task(&s.a, ch)
	if s.wait, ok = r.req.Solvers[ch.Type].(Waiter); ok {
		return r.present(ctx, w, s)
	}
	return nil
}

// mostAuthorizations is how many an order may have (F53).
func (r *run) mostAuthorizations() int { return 2*len(r.req.Names) + 10 }

// waiting reports whether an authorization has not been decided yet.
func waiting(status string) bool {
	return status == acme.StatusPending || status == acme.StatusProcessing || status == ""
}

// another reports whether there is a challenge type that has not failed for a
// name and may succeed where one has failed with p.
func (r *run) another(a *authorization, p *Problem) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(a.Challenges, func(ch challenge) bool {
		return r.solvable(&ch) && !slices.Contains(r.failed[a.name], ch.Type) && !p.concerns(ch.Type)
	})
}

// spent reports whether a challenge of a type has been decided against us. step-ca
// leaves the authorization pending then, and never looks at the challenge again.
func (a *authorization) spent(challengeType string) bool {
	return slices.ContainsFunc(a.Challenges, func(ch challenge) bool { return ch.Type == challengeType && ch.Status == acme.StatusInvalid })
}

// solvable reports whether a Solver is there for the challenge and it has what
// the Solver needs.
func (r *run) solvable(ch *challenge) bool {
	return r.req.Solvers[ch.Type] != nil && ch.Status != acme.StatusInvalid && ch.URL != "" && (ch.Token != "" || ch.Type == acme.ChallengeTypeDNSPersist01)
}

// choose picks the challenge to be answered: of those the CA offers and a
// Solver is there for, the one preferred most that has not failed for the name,
// or that failed longest ago.
func (r *run) choose(a *authorization) (best *challenge, err error) {
	r.mu.Lock()
	failed := r.failed[a.name]
	r.mu.Unlock()
	rank := func(t string) int {
		n := slices.Index(r.req.Prefer, t)
		if n < 0 {
			n = len(r.req.Prefer)
		}
		return n + 100*(1+slices.Index(failed, t))
	}
	var offered []string
	for i := range a.Challenges {
		ch := &a.Challenges[i]
		offered = append(offered, ch.Type)
		if r.solvable(ch) && (best == nil || rank(ch.Type) < rank(best.Type)) {
			best = ch
		}
	}
	switch i := slices.IndexFunc(offered, a.spent); {
	case best != nil:
		return best, nil
	case i >= 0:
		return nil, r.authzError(a, offered[i])
	}
	return nil, &Error{
		Step: StepAuthorize, Identifier: a.name, URL: a.URL, dead: true,
		Err: fmt.Errorf("no challenge in common: the CA offers %v, enabled are %v", offered, slices.Sorted(maps.Keys(r.req.Solvers))),
	}
}

// solve has the CA validate a challenge, once that is presented and can be seen,
// and waits for the verdict. What was presented is cleaned up on every way out: the
// CA, which needs it no more, is not kept waiting for that.
func (r *run) solve(ctx context.Context, w *work, s *solving) error {
	if s.ch == nil {
		return nil
	}
	if s.wait != nil {
		defer r.cleanUp(ctx, s.task)
		if err := r.await(ctx, w, s); err != nil {
			return err
		}
		return w.inSlot(func() error { return r.validate(ctx, w.stop, s) })
	}
	return w.inSlot(func() error {
		if err := r.present(ctx, w, s); err != nil {
			return err
		}
		defer r.cleanUp(ctx, s.task)
		return r.validate(ctx, w.stop, s)
	})
}
