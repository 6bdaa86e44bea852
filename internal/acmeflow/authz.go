package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	maxParallelAuthz = 10 // authorizations of one order solved side by side
	cleanUpTimeout   = 10 * time.Second
)

// authorize brings every authorization of the order to valid. Valid ones cost
// one look each and no challenge.
func (r *run) authorize(ctx context.Context, order *acme.Order) error {
	if len(order.Authorizations) == 1 {
		return r.authorizeOne(ctx, order.Authorizations[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards first
		first error
		slots = make(chan struct{}, maxParallelAuthz)
	)
	for _, u := range order.Authorizations {
		slots <- struct{}{} // those who hold one end with ctx
		wg.Go(func() {
			defer func() { <-slots }()
			err := r.authorizeOne(ctx, u)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
				cancel()
			}
		})
	}
	wg.Wait()
	return first
}

func (r *run) authorizeOne(ctx context.Context, authzURL string) error {
	authz, _, err := r.getAuthz(ctx, authzURL)
	if err != nil {
		return err
	}
	switch authz.Status {
	case acme.StatusValid:
		return nil
	case acme.StatusPending, acme.StatusProcessing, "":
	default:
		return r.authzError(authz, "")
	}
	ch, err := r.choose(authz)
	if err != nil {
		return err
	}
	err = r.solve(ctx, authz, ch)
	if err == nil {
		r.noteSolved(ch.Type)
	}
	var e *Error
	if errors.As(err, &e) {
		e.Identifier = authz.IdentifierValue()
		if e.Challenge != "" {
			e.others = r.others(authz, ch.Type)
		}
	}
	return err
}

func (r *run) noteSolved(challengeType string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.solved, challengeType) {
		r.solved = append(r.solved, challengeType)
	}
}

// others returns the challenge types that could be answered instead of one.
func (r *run) others(authz *acme.Authorization, not string) []string {
	var list []string
	for _, ch := range authz.Challenges {
		if ch.Type != not && r.solvable(&ch) {
			list = append(list, ch.Type)
		}
	}
	return list
}

// solvable reports whether a Solver is there for the challenge and it has what
// the Solver needs.
func (r *run) solvable(ch *acme.Challenge) bool {
	return r.req.Solvers[ch.Type] != nil && ch.URL != "" && (ch.Token != "" || ch.Type == acme.ChallengeTypeDNSPersist01)
}

// choose picks the challenge to be answered: of those the CA offers and a
// Solver is there for, the one preferred most that has not failed.
func (r *run) choose(authz *acme.Authorization) (*acme.Challenge, error) {
	best, rank := -1, 0
	var offered []string
	for i, ch := range authz.Challenges {
		offered = append(offered, ch.Type)
		if !r.solvable(&ch) {
			continue
		}
		if n := r.rank(ch.Type); best < 0 || n < rank {
			best, rank = i, n
		}
	}
	if best >= 0 {
		return &authz.Challenges[best], nil
	}
	var enabled []string
	for t := range r.req.Solvers {
		enabled = append(enabled, t)
	}
	slices.Sort(enabled)
	hint := ""
	if authz.Wildcard {
		hint = "; a wildcard needs a dns-01 solver"
	}
	return nil, &Error{
		Step: StepAuthorize, Identifier: authz.IdentifierValue(), URL: authz.Location,
		Err: deadError{fmt.Errorf("no challenge in common: the CA offers %v, enabled are %v%s", offered, enabled, hint)},
	}
}

// rank is lower for what is tried earlier.
func (r *run) rank(challengeType string) int {
	n := slices.Index(r.req.Prefer, challengeType)
	if n < 0 {
		n = len(r.req.Prefer)
	}
	if i := slices.Index(r.failed, challengeType); i >= 0 {
		n += 100 + i
	}
	return n
}

// solve presents a challenge, has the CA validate it and waits for the verdict.
// What was presented is cleaned up on every way out: the CA, which needs it no
// more, is not kept waiting for that.
func (r *run) solve(ctx context.Context, authz *acme.Authorization, ch *acme.Challenge) error {
	solver := r.req.Solvers[ch.Type]
	task := Challenge{
		Type: ch.Type, Identifier: authz.Identifier.Value, IdentifierType: authz.Identifier.Type, Wildcard: authz.Wildcard,
		Token: ch.Token, KeyAuthorization: ch.KeyAuthorization, Account: r.acct.Location, IssuerDomains: ch.IssuerDomainNames,
	}
	defer r.cleaning.Go(func() {
		r.cleanSlots <- struct{}{}
		defer func() { <-r.cleanSlots }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if err := solver.CleanUp(ctx, task); err != nil {
			r.c.log.WarnContext(ctx, "cleaning up a challenge", "name", task.Identifier, "challenge", task.Type, "err", err)
		}
	})
	fail := func(step Step, err error) error {
		return &Error{Step: step, Identifier: authz.IdentifierValue(), Challenge: ch.Type, Err: err}
	}
	r.progress(StepPresent, "setting up %s for %q", ch.Type, authz.IdentifierValue())
	if err := solver.Present(ctx, task); err != nil {
		return fail(StepPresent, err)
	}
	p := newPoll()
	r.progress(StepChallenge, "the CA validates %s for %q", ch.Type, authz.IdentifierValue())
	if ch.Status != acme.StatusProcessing {
		retryAfter, err := r.initiate(ctx, ch)
		if err != nil {
			return err
		}
		if retryAfter > 0 {
			p.next(retryAfter)
		}
	}
	return r.pollAuthz(ctx, authz, ch.Type, p)
}

// initiate tells the CA that the challenge can be validated. A CA that has
// begun already, or has decided, is asked for the authorization instead. It
// returns how long the CA asks to wait before the first look at that.
func (r *run) initiate(ctx context.Context, ch *acme.Challenge) (retryAfter time.Duration, err error) {
	x, err := r.c.call(ctx, StepChallenge, idempotent, func(ctx context.Context, api *acme.Client) error {
		_, err := api.InitiateChallenge(ctx, r.acct.Account, acme.Challenge{URL: ch.URL, Type: ch.Type, Token: ch.Token})
		return err
	})
	var e *Error
	if errors.As(err, &e) && e.Problem != nil && e.Problem.Status == 400 && !e.Problem.is(accountDoesNotExist) {
		r.c.log.DebugContext(ctx, "the challenge was not accepted; looking at its authorization", "err", err)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return x.retryAfter, nil
}

func (r *run) getAuthz(ctx context.Context, authzURL string) (*acme.Authorization, time.Duration, error) {
	var authz acme.Authorization
	x, err := r.c.call(ctx, StepAuthorize, idempotent, func(ctx context.Context, api *acme.Client) error {
		var err error
		authz, err = api.GetAuthorization(ctx, r.acct.Account, authzURL)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return &authz, x.retryAfter, nil
}

func (r *run) pollAuthz(ctx context.Context, authz *acme.Authorization, challenge string, p *poll) error {
	for {
		if !p.wait(ctx) {
			return &Error{Step: StepChallenge, Identifier: authz.IdentifierValue(), Challenge: challenge, Err: fmt.Errorf("waiting for the CA's validation: %w", context.Cause(ctx))}
		}
		got, retryAfter, err := r.getAuthz(ctx, authz.Location)
		if err != nil {
			return err
		}
		switch got.Status {
		case acme.StatusValid:
			return nil
		case acme.StatusPending, acme.StatusProcessing, "":
			p.next(retryAfter)
		default:
			return r.authzError(got, challenge)
		}
	}
}

// authzError says why the CA refused an authorization.
func (r *run) authzError(authz *acme.Authorization, challenge string) error {
	e := &Error{Step: StepChallenge, Identifier: authz.IdentifierValue(), URL: authz.Location, Challenge: challenge}
	cause := fmt.Errorf("the authorization is %s", authz.Status)
	for _, ch := range authz.Challenges {
		if ch.Error == nil || e.Problem != nil && ch.Type != challenge {
			continue
		}
		e.Problem = fromAcmez(ch.Error).without(ch.KeyAuthorization)
		if challenge == "" {
			e.Challenge = ch.Type
		}
	}
	e.Err = deadError{cause}
	e.others = r.others(authz, e.Challenge)
	return e
}

func fromAcmez(p *acme.Problem) *Problem {
	out := &Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance}
	for _, s := range p.Subproblems {
		out.Subproblems = append(out.Subproblems, Subproblem{
			Problem: *fromAcmez(&s.Problem), IdentifierType: s.Identifier.Type, IdentifierValue: s.Identifier.Value,
		})
	}
	return out
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
