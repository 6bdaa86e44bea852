package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/guard"
)

const (
	maxParallelAuthz = 10 // authorizations of one order solved side by side
	cleanUpTimeout   = 10 * time.Second

	// interimTime is for how long a challenge is waited for that the CA says has
	// failed so far and that it says nothing new of (F20; RFC 8555 §8.2).
	interimTime = 2 * time.Minute

	// A CA that has set a failed challenge back to pending looks at it again only
	// when it is asked to (RFC 8555 §8.2): after askAgain, and after twice as long
	// each further time. While there is another type that goes on for pendingTime.
	askAgain    = 5 * time.Second
	pendingTime = 20 * time.Second

	// lingerTime is for how long a validation that the CA has begun is waited for
	// when the order cannot come to anything any more (F32).
	lingerTime = time.Minute
)

// authorize brings every authorization of the order to valid. Valid ones cost
// one look each and no challenge. A name that fails does not stop the others:
// they would pile up as pending, and their valid authorizations serve the next
// order (F32). Any other failure lets begin nothing more.
func (r *run) authorize(ctx context.Context, o *order) error {
	if n := len(o.Authorizations); n > r.mostAuthorizations() {
		return &Error{Step: StepAuthorize, URL: o.URL, dead: true, Err: fmt.Errorf("the CA asks for %d authorizations for %d names", n, len(r.req.Names))}
	}
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	urls := slices.Compact(slices.Sorted(slices.Values(o.Authorizations)))
	errs := make([]*Error, len(urls))
	slots := make(chan struct{}, maxParallelAuthz)
	var wg sync.WaitGroup
	for i, u := range urls {
		slots <- struct{}{} // those who hold one end with ctx
		wg.Go(func() {
			defer func() { <-slots }()
			err := r.authorizeOne(ctx, stop, u)
			if errs[i] = asError(err); errs[i] != nil && errs[i].Challenge == "" {
				cancel(errStopped)
			}
		})
	}
	wg.Wait()
	errs = slices.DeleteFunc(errs, func(e *Error) bool { return e == nil || errors.Is(e, errStopped) })
	if len(errs) == 0 {
		return nil
	}
	errs[0].Earlier = append(errs[0].Earlier, errs[1:]...)
	return errs[0]
}

// errStopped is the end of what another name's failure kept from beginning.
var errStopped = errors.New("acmeflow: another name has failed")

// authorizeOne brings one authorization to valid. It asks the CA for nothing
// new once stop has ended.
func (r *run) authorizeOne(ctx, stop context.Context, authzURL string) error {
	a := &authorization{URL: authzURL}
	if _, err := r.fetchInto(stop, StepAuthorize, authzURL, a); err != nil {
		return err
	}
	if a.Status == acme.StatusValid {
		if r.made == "" {
			r.withdraw(ctx, a)
		}
		return nil
	}
	var ok bool
	if a.name, ok = r.match(a); !ok {
		return &Error{Step: StepAuthorize, URL: a.URL, dead: true, Err: fmt.Errorf("the authorization is for %q, which is none of %v", a.Identifier.Value, r.req.Names)}
	}
	var err error
	if waiting(a.Status) {
		err = r.solve(ctx, stop, a)
	} else {
		err = r.authzError(a, "")
	}
	if e := asError(err); e != nil {
		e.Identifier = a.name
		if e.Challenge != "" && ctx.Err() == nil {
			r.noteFailed(a.name, e.Challenge, e.Step == StepChallenge)
			e.another = r.another(a, e.Problem)
		}
	}
	return err
}

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

// solve presents a challenge, has the CA validate it and waits for the verdict.
// What was presented is cleaned up on every way out: the CA, which needs it no
// more, is not kept waiting for that.
func (r *run) solve(ctx, stop context.Context, a *authorization) error {
	ch, err := r.choose(a)
	if err != nil {
		return err
	}
	task := r.task(a, ch)
	if stop.Err() != nil {
		return &Error{Step: StepPresent, Err: context.Cause(stop)}
	}
	defer r.cleanUp(ctx, task)
	r.progress(StepPresent, "setting up %s for %q", ch.Type, a.name)
	if err := <-guard.Call(nil, "the solver", func() error { return r.req.Solvers[ch.Type].Present(ctx, task) }); err != nil {
		return &Error{Step: StepPresent, Identifier: a.name, Challenge: ch.Type, Err: err}
	}
	r.progress(StepChallenge, "the CA validates %s for %q", ch.Type, a.name)
	p, so := newPoll(), &interim{pause: askAgain}
	if ch.Status != acme.StatusProcessing {
		if stop.Err() != nil {
			return &Error{Step: StepChallenge, Err: context.Cause(stop)}
		}
		if err := r.initiate(ctx, ch, p, so); err != nil {
			return err
		}
	}
	if err = r.pollAuthz(ctx, stop, a, ch.Type, p, so); err == nil {
		r.noteSolved(a.name, ch.Type)
	}
	return err
}

// task is what a Solver is asked to present, and to clean up.
func (r *run) task(a *authorization, ch *challenge) Challenge {
	value, wildcard := strings.CutPrefix(a.name, "*.")
	return Challenge{
		Type: ch.Type, Identifier: value, IdentifierType: identifier(value).Type, Wildcard: wildcard,
		Token: ch.Token, KeyAuthorization: r.keyAuth(ch), Account: r.acct.Location, IssuerDomains: ch.IssuerDomains,
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

// mostAuthorizations is how many an order may have (F53).
func (r *run) mostAuthorizations() int { return 2*len(r.req.Names) + 10 }

// initiate tells the CA that the challenge can be validated. A CA that has
// begun already, or has decided, may refuse that: the authorization tells.
func (r *run) initiate(ctx context.Context, ch *challenge, p *poll, so *interim) error {
	x, err := r.c.call(ctx, StepChallenge, func(ctx context.Context, api *acme.Client) error {
		_, err := api.InitiateChallenge(ctx, r.acct.Account, acme.Challenge{URL: ch.URL})
		return err
	})
	if x.problem != nil && x.problem.Status == 400 && !x.problem.is(accountDoesNotExist) {
		r.c.log.DebugContext(ctx, "the challenge was not accepted; looking at its authorization", "err", err)
		so.refused = x.problem.without(r.keyAuth(ch))
		so.refused.document = false // the order is good
		return nil
	}
	if err == nil && !hasStatus(x.body) {
		so.refused = &Problem{Type: "about:blank", Status: x.status, Detail: "it is not a CA that answered: " + x.firstBytes()}
		return nil
	}
	if x.retryAfter > 0 {
		p.next(x.retryAfter)
	}
	if err == nil && so.refused != nil {
		so.said, so.refused = nil, nil
	}
	return err
}

// keyAuth is the key authorization of a challenge (RFC 8555 §8.1).
func (r *run) keyAuth(ch *challenge) string { return ch.Token + "." + r.acct.thumbprint }

// pollAuthz waits for the verdict on a challenge. What the CA says meanwhile is
// told at once.
func (r *run) pollAuthz(ctx, stop context.Context, a *authorization, challengeType string, p *poll, so *interim) error {
	var stopped time.Time
	fail := func(err error) error {
		return &Error{Step: StepChallenge, Identifier: a.name, URL: a.URL, Challenge: challengeType, Problem: so.said, Err: err}
	}
	for {
		if !p.wait(ctx) {
			return fail(fmt.Errorf("waiting for the CA's validation: %w", context.Cause(ctx)))
		}
		got := &authorization{URL: a.URL, name: a.name}
		retryAfter, err := r.fetchInto(ctx, StepAuthorize, a.URL, got)
		if err != nil || got.Status == acme.StatusValid {
			return err
		}
		if !waiting(got.Status) || got.spent(challengeType) {
			return r.authzError(got, challengeType)
		}
		if r.hear(so, got, challengeType) {
			r.progress(StepChallenge, "the CA validates %s for %q; so far: %v", challengeType, a.name, so.said)
			r.c.log.WarnContext(ctx, "a challenge has failed so far", "name", a.name, "challenge", challengeType, "err", so.said)
		}
		if stop.Err() != nil && stopped.IsZero() {
			stopped = time.Now()
		}
		switch patience := r.patience(so, got); {
		case so.said != nil && time.Since(so.since) > patience:
			return fail(fmt.Errorf("the CA has not decided in %v", patience))
		case !stopped.IsZero() && time.Since(stopped) > lingerTime:
			return &Error{Step: StepChallenge, Err: errStopped}
		case stopped.IsZero() && so.pending != nil && time.Since(so.asked) > so.pause:
			so.asked, so.pause = time.Now(), 2*so.pause
			if err := r.initiate(ctx, so.pending, p, so); err != nil { // the next look says how things are
				r.c.log.DebugContext(ctx, "asking the CA to look at a challenge again", "name", a.name, "challenge", challengeType, "err", err)
			}
		}
		p.next(retryAfter)
	}
}

// interim is what the CA has said so far of a challenge that it has not decided.
type interim struct {
	said    *Problem      // nil: nothing
	since   time.Time     // nothing new was said; for one that is pending, the first word
	pending *challenge    // looked at again only when asked to; nil: the CA goes on by itself
	asked   time.Time     // the CA to look at it, as far as known here
	pause   time.Duration // until it is asked again
	refused *Problem      // what it said when it was asked last; nil: it took it
}

// hear notes what the CA says of a challenge and reports whether that is new.
func (r *run) hear(so *interim, a *authorization, challengeType string) bool {
	so.pending = nil
	for i := range a.Challenges {
		if ch := &a.Challenges[i]; ch.Type == challengeType && ch.Status == acme.StatusPending {
			so.pending = ch
		}
	}
	said := r.said(a, challengeType)
	if said == nil && so.pending != nil {
		said = so.refused
	}
	if said == nil {
		so.pending = nil
		return false
	}
	isFirst := so.said == nil
	if !isFirst && said.Error() == so.said.Error() {
		return false
	}
	so.said = said
	if isFirst {
		so.asked = time.Now()
	}
	if isFirst || so.pending == nil {
		so.since = time.Now()
	}
	return true
}

// patience is for how long a challenge that has failed so far is waited for.
func (r *run) patience(so *interim, a *authorization) time.Duration {
	if so.pending == nil {
		return interimTime
	}
	rest := *a
	rest.Challenges = slices.DeleteFunc(slices.Clone(a.Challenges), func(ch challenge) bool { return ch.Type == so.pending.Type })
	if r.another(&rest, so.said) {
		return pendingTime
	}
	return interimTime
}

// said returns what the CA says of a challenge, without the key authorization,
// or nil.
func (r *run) said(a *authorization, challengeType string) *Problem {
	for _, ch := range a.Challenges {
		if ch.Type == challengeType {
			return ch.Problem.without(r.keyAuth(&ch))
		}
	}
	return nil
}

// authzError says why the CA refused an authorization: by the challenge of a
// type, when it says something of that one, else by the first of which it does.
func (r *run) authzError(a *authorization, challengeType string) error {
	what := "the authorization is " + a.Status
	if waiting(a.Status) {
		what = "the challenge is invalid"
	}
	e := &Error{Step: StepChallenge, Identifier: a.name, URL: a.URL, Challenge: challengeType, dead: true, Err: errors.New(what)}
	e.Problem = r.said(a, challengeType)
	for i := 0; e.Problem == nil && i < len(a.Challenges); i++ {
		e.Problem = r.said(a, a.Challenges[i].Type)
		if e.Problem != nil && challengeType == "" {
			e.Challenge = a.Challenges[i].Type
		}
	}
	return e
}

// poll paces the looks at something the CA works on: quickly at first, since
// many CAs are done within milliseconds, then slower; a Retry-After of the CA
// is obeyed, up to a bound, because some send absurd ones (RFC 8555 §7.5.1).
type poll struct{ pause time.Duration }

const (
	firstPoll    = time.Millisecond
	quickPolls   = 100 * time.Millisecond // from here on a pause is half of what it adds up to
	slowestPoll  = 5 * time.Second
	longestAsked = time.Minute
)

func newPoll() *poll { return &poll{pause: firstPoll} }

func (p *poll) wait(ctx context.Context) bool { return sleep(ctx, p.pause) }

func (p *poll) next(retryAfter time.Duration) {
	switch {
	case retryAfter > 0:
		p.pause = min(retryAfter, longestAsked)
	case p.pause == 0:
		p.pause = firstPoll
	case p.pause < quickPolls:
		p.pause *= 3
	default:
		p.pause = min(p.pause*3/2, slowestPoll)
	}
}
