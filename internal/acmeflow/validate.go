package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
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

// validate has the CA look at a challenge that is presented.
func (r *run) validate(ctx, stop context.Context, s *solving) error {
	ch := s.ch
	r.progress(StepChallenge, "the CA validates %s for %q", ch.Type, s.a.name)
	p, so := newPoll(), &interim{pause: askAgain}
	if ch.Status != acme.StatusProcessing {
		if stop.Err() != nil {
			return &Error{Step: StepChallenge, Err: context.Cause(stop)}
		}
		if err := r.initiate(ctx, ch, p, so); err != nil {
			return err
		}
	}
	err := r.pollAuthz(ctx, stop, &s.a, ch.Type, p, so)
	if err == nil {
		r.noteSolved(s.a.name, ch.Type)
	}
	return err
}

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
