package acmeflow

import (
	"context"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/guard"
)

const cleanUpTimeout = 10 * time.Second

// present has a challenge's Solver set it up. It is cleaned up here when that
// fails, and else by the caller.
func (r *run) present(ctx context.Context, w *work, s *solving) error {
	if w.stop.Err() != nil {
		return &Error{Step: StepPresent, Err: context.Cause(w.stop)}
	}
	r.progress(StepPresent, "setting up %s for %q", s.ch.Type, s.a.name)
	err := r.called(StepPresent, s, func() error { return r.req.Solvers[s.ch.Type].Present(ctx, s.task) })
	if err != nil {
		r.cleanUp(ctx, s.task)
	}
	return err
}

// await returns when the CA can see what was presented.
func (r *run) await(ctx context.Context, w *work, s *solving) error {
	if w.stop.Err() != nil {
		return &Error{Step: StepWait, Err: context.Cause(w.stop)}
	}
	r.progress(StepWait, "waiting until %s for %q can be seen", s.ch.Type, s.a.name)
	return r.called(StepWait, s, func() error { return s.wait.Wait(ctx, s.task) })
}

// called calls a Solver.
func (r *run) called(step Step, s *solving, f func() error) error {
	if err := <-guard.Call(nil, "the solver", f); err != nil {
		return &Error{Step: step, Identifier: s.a.name, Challenge: s.ch.Type, Err: err}
	}
	return nil
}

// task is what a Solver is asked to present, and to clean up.
func (r *run) task(a *authorization, ch *challenge) Challenge {
	value, wildcard := strings.CutPrefix(a.name, "*.")
	return Challenge{
		Type: ch.Type, Identifier: value, IdentifierType: identifier(value).Type, Wildcard: wildcard,
		Token: ch.Token, KeyAuthorization: r.keyAuth(ch), Account: r.acct.Location, IssuerDomains: ch.IssuerDomains, AccountURI: ch.AccountURI,
	}
}

// cleanUp has a Solver withdraw a challenge, beside what else is done.
func (r *run) cleanUp(ctx context.Context, task Challenge) {
	r.cleaning.Go(func() {
		r.cleanSlots <- struct{}{}
		defer func() { <-r.cleanSlots }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if err := <-guard.Call(nil, "the solver", func() error { return r.req.Solvers[task.Type].CleanUp(ctx, task) }); err != nil {
			r.c.log.WarnContext(ctx, "cleaning up a challenge", "name", task.Identifier, "challenge", task.Type, "err", err)
		}
	})
}

// withdraw cleans up what a process that died may have presented for an
// authorization that has been decided since (F53).
func (r *run) withdraw(ctx context.Context, a *authorization) {
	var ok bool
	if a.name, ok = r.match(a); !ok {
		return
	}
	for i := range a.Challenges {
		if ch := &a.Challenges[i]; ch.Status != acme.StatusPending && r.req.Solvers[ch.Type] != nil && ch.Token != "" {
			r.cleanUp(ctx, r.task(a, ch))
		}
	}
}

// withdrawAll is withdraw for the authorizations of an order that needs none of
// them any more.
func (r *run) withdrawAll(ctx context.Context, urls []string) {
	ctx, cancel := context.WithTimeout(ctx, cleanUpTimeout)
	defer cancel()
	for _, u := range urls[:min(len(urls), r.mostAuthorizations())] {
		a := new(authorization)
		if x, err := r.ask(ctx, StepAuthorize, u); err != nil || !decode(x.body, a) {
			r.c.log.DebugContext(ctx, "looking for challenges of a process that died", "authorization", u, "err", err)
			return
		}
		r.withdraw(ctx, a)
	}
}
