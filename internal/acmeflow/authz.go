package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	maxParallelAuthz = 10 // authorizations of one order solved side by side
	cleanUpTimeout   = 10 * time.Second

	// interimTime is for how long a challenge is waited for that the CA says has
	// failed so far and that it says nothing new of (F20; RFC 8555 §8.2).
	interimTime = 2 * time.Minute

	// lingerTime is for how long a validation that the CA has begun is waited for
	// when the order cannot come to anything any more (F32).
	lingerTime = time.Minute
)

// authorize brings every authorization of the order to valid. Valid ones cost
// one look each and no challenge. A name that fails does not stop the others:
// they would pile up as pending, and their valid authorizations serve the next
// order (F32). Any other failure lets begin nothing more.
func (r *run) authorize(ctx context.Context, o *order) error {
	if n, most := len(o.Authorizations), 2*len(r.req.Names)+10; n > most { // F53
		return &Error{Step: StepAuthorize, URL: o.URL, dead: true, Err: fmt.Errorf("the CA asks for %d authorizations for %d names", n, len(r.req.Names))}
	}
	stop, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]*Error, len(o.Authorizations))
	slots := make(chan struct{}, maxParallelAuthz)
	var wg sync.WaitGroup
	for i, u := range o.Authorizations {
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
	var first *Error
	for _, e := range errs {
		switch {
		case e == nil || errors.Is(e, errStopped):
		case first == nil:
			first = e
		default:
			first.Earlier = append(first.Earlier, e)
		}
	}
	if first != nil {
		return first
	}
	return nil
}

// errStopped is the end of what another name's failure kept from beginning.
var errStopped = errors.New("acmeflow: another name has failed")

// authorizeOne brings one authorization to valid. It asks the CA for nothing
// new once stop has ended.
func (r *run) authorizeOne(ctx, stop context.Context, authzURL string) error {
	a, _, err := r.getAuthz(stop, authzURL)
	if err != nil {
		return err
	}
	if a.Status == acme.StatusValid {
		return nil
	}
	var ok bool
	if a.name, ok = r.match(a); !ok {
		return &Error{Step: StepAuthorize, URL: a.URL, dead: true, Err: fmt.Errorf("the authorization is for %q, which is none of %v", a.Identifier.Value, r.req.Names)}
	}
	if waiting(a.Status) {
		err = r.solve(ctx, stop, a)
	} else {
		err = r.authzError(a, "")
	}
	if e := asError(err); e != nil {
		e.Identifier = a.name
		if e.Challenge != "" && ctx.Err() == nil {
			r.noteFailed(a.name, e.Challenge, e.Step == StepChallenge)
			e.others = r.others(a, e.Problem)
		}
	}
	return err
}

// waiting reports whether an authorization has not been decided yet.
func waiting(status string) bool {
	return status == acme.StatusPending || status == acme.StatusProcessing || status == ""
}

// others returns the challenge types that have not failed for a name and may
// succeed where one has failed with p.
func (r *run) others(a *authorization, p *Problem) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for _, ch := range a.Challenges {
		if r.solvable(&ch) && !slices.Contains(r.failed[a.name], ch.Type) && !p.concerns(ch.Type) {
			list = append(list, ch.Type)
		}
	}
	return list
}

// solvable reports whether a Solver is there for the challenge and it has what
// the Solver needs.
func (r *run) solvable(ch *challenge) bool {
	return r.req.Solvers[ch.Type] != nil && ch.URL != "" && (ch.Token != "" || ch.Type == acme.ChallengeTypeDNSPersist01)
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
	var offered, enabled []string
	for i := range a.Challenges {
		ch := &a.Challenges[i]
		offered = append(offered, ch.Type)
		if r.solvable(ch) && (best == nil || rank(ch.Type) < rank(best.Type)) {
			best = ch
		}
	}
	if best != nil {
		return best, nil
	}
	for t := range r.req.Solvers {
		enabled = append(enabled, t)
	}
	slices.Sort(enabled)
	hint := ""
	if strings.HasPrefix(a.name, "*.") {
		hint = "; a wildcard needs a dns-01 solver"
	}
	return nil, &Error{
		Step: StepAuthorize, Identifier: a.name, URL: a.URL, dead: true,
		Err: fmt.Errorf("no challenge in common: the CA offers %v, enabled are %v%s", offered, enabled, hint),
	}
}

// task is what the Solver is given for a challenge.
func (r *run) task(a *authorization, ch *challenge) (Challenge, error) {
	print, err := r.acct.Thumbprint()
	if err != nil {
		return Challenge{}, &Error{Step: StepPresent, Identifier: a.name, Err: fmt.Errorf("computing the thumbprint of the account key: %w", err)}
	}
	value, wildcard := strings.CutPrefix(a.name, "*.")
	return Challenge{
		Type: ch.Type, Identifier: value, IdentifierType: identifier(value).Type, Wildcard: wildcard,
		Token: ch.Token, KeyAuthorization: ch.Token + "." + print, Account: r.acct.Location, IssuerDomains: ch.IssuerDomains,
	}, nil
}

// solve presents a challenge, has the CA validate it and waits for the verdict.
// What was presented is cleaned up on every way out: the CA, which needs it no
// more, is not kept waiting for that.
func (r *run) solve(ctx, stop context.Context, a *authorization) error {
	ch, err := r.choose(a)
	if err != nil {
		return err
	}
	solver := r.req.Solvers[ch.Type]
	task, err := r.task(a, ch)
	if err != nil {
		return err
	}
	if stop.Err() != nil {
		return &Error{Step: StepPresent, Err: context.Cause(stop)}
	}
	defer r.cleaning.Go(func() {
		r.cleanSlots <- struct{}{}
		defer func() { <-r.cleanSlots }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if err := guard(func() error { return solver.CleanUp(ctx, task) }); err != nil {
			r.c.log.WarnContext(ctx, "cleaning up a challenge", "name", task.Identifier, "challenge", task.Type, "err", err)
		}
	})
	r.progress(StepPresent, "setting up %s for %q", ch.Type, a.name)
	if err := guard(func() error { return solver.Present(ctx, task) }); err != nil {
		return &Error{Step: StepPresent, Identifier: a.name, Challenge: ch.Type, Err: err}
	}
	r.progress(StepChallenge, "the CA validates %s for %q", ch.Type, a.name)
	p := newPoll()
	if ch.Status != acme.StatusProcessing {
		if stop.Err() != nil {
			return &Error{Step: StepChallenge, Err: context.Cause(stop)}
		}
		retryAfter, err := r.initiate(ctx, ch)
		if err != nil {
			return err
		}
		if retryAfter > 0 {
			p.next(retryAfter)
		}
	}
	if err = r.pollAuthz(ctx, stop, a, ch.Type, p); err == nil {
		r.noteSolved(a.name, ch.Type)
	}
	return err
}

// guard calls a Solver: a panic or an end of the goroutine is an error too.
func guard(call func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("the solver ended its goroutine")
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the solver panicked: %v", p)
			}
			result <- err
		}()
		err = call()
	}()
	return <-result
}

// initiate tells the CA that the challenge can be validated. A CA that has
// begun already, or has decided, is asked for the authorization instead. It
// returns how long the CA asks to wait before the first look at that.
func (r *run) initiate(ctx context.Context, ch *challenge) (retryAfter time.Duration, err error) {
	x, err := r.c.call(ctx, StepChallenge, idempotent, func(ctx context.Context, api *acme.Client) error {
		_, err := api.InitiateChallenge(ctx, *r.acct, acme.Challenge{URL: ch.URL})
		return err
	})
	if e := asError(err); e != nil && e.Problem != nil && e.Problem.Status == 400 && !e.Problem.is(accountDoesNotExist) {
		r.c.log.DebugContext(ctx, "the challenge was not accepted; looking at its authorization", "err", err)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return x.retryAfter, nil
}

func (r *run) getAuthz(ctx context.Context, authzURL string) (*authorization, time.Duration, error) {
	x, obj, err := r.fetchObject(ctx, StepAuthorize, authzURL)
	if err != nil {
		return nil, 0, err
	}
	return readAuthorization(authzURL, obj), x.retryAfter, nil
}

// pollAuthz waits for the verdict on a challenge. What the CA says meanwhile is
// told at once.
func (r *run) pollAuthz(ctx, stop context.Context, a *authorization, challengeType string, p *poll) error {
	var interim *Problem
	var since, stopped time.Time
	fail := func(err error) error {
		return &Error{Step: StepChallenge, Identifier: a.name, URL: a.URL, Challenge: challengeType, Problem: interim, Err: err}
	}
	for {
		if !p.wait(ctx) {
			return fail(fmt.Errorf("waiting for the CA's validation: %w", context.Cause(ctx)))
		}
		got, retryAfter, err := r.getAuthz(ctx, a.URL)
		if err != nil {
			return err
		}
		if got.name = a.name; got.Status == acme.StatusValid {
			return nil
		}
		if !waiting(got.Status) {
			return r.authzError(got, challengeType)
		}
		if ch := got.of(challengeType); ch != nil && ch.Problem != nil {
			said := r.withoutSecret(ch)
			if interim == nil || said.Error() != interim.Error() {
				interim, since = said, time.Now()
				r.progress(StepChallenge, "the CA validates %s for %q; so far: %v", challengeType, a.name, said)
				r.c.log.WarnContext(ctx, "a challenge has failed so far", "name", a.name, "challenge", challengeType, "err", said)
			}
		}
		if stop.Err() != nil && stopped.IsZero() {
			stopped = time.Now()
		}
		switch {
		case interim != nil && time.Since(since) > interimTime:
			return fail(fmt.Errorf("the CA has not decided in %v", interimTime))
		case !stopped.IsZero() && time.Since(stopped) > lingerTime:
			return &Error{Step: StepChallenge, Err: errStopped}
		}
		p.next(retryAfter)
	}
}

// withoutSecret returns what the CA says about a challenge without the key
// authorization.
func (r *run) withoutSecret(ch *challenge) *Problem {
	print, _ := r.acct.Thumbprint() // it was made for the task already
	return ch.Problem.without(ch.Token + "." + print)
}

// authzError says why the CA refused an authorization.
func (r *run) authzError(a *authorization, challengeType string) error {
	e := &Error{Step: StepChallenge, Identifier: a.name, URL: a.URL, Challenge: challengeType, dead: true, Err: fmt.Errorf("the authorization is %s", a.Status)}
	for i := range a.Challenges {
		ch := &a.Challenges[i]
		if ch.Problem == nil || e.Problem != nil && ch.Type != challengeType {
			continue
		}
		e.Problem = r.withoutSecret(ch)
		if challengeType == "" {
			e.Challenge = ch.Type
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
