package certwright

import (
	"math"
	"time"

	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/revocation"
)

// Constants of the renewal policy. Everything is a fraction of a certificate's
// life, so that it is right for five minutes as for a year.
const (
	// shortLife is below what a certificate counts as short-lived. One that
	// lives for six days is renewed with 2/5 of its life left, so that it
	// outlives a CA that is down for two days.
	shortLife = 10 * 24 * time.Hour

	// spread is the part of a life over which renewals are spread, before the
	// planned time.
	spread = 1.0 / 50

	// backstop is the part of a life that must be left whatever window the CA
	// suggests.
	backstop = 1.0 / 6

	// longestSpacing bounds how long a new certificate is kept although the CA
	// says that it is revoked, or that its window has passed already.
	longestSpacing = 6 * time.Hour
)

// never is a time that does not come.
const never = math.MaxInt64

// renewalPolicy is what Config says about renewal.
type renewalPolicy struct {
	fraction float64 // of the life that is left when a certificate is renewed; 0: 1/3, or 2/5 for a short life
}

func (p renewalPolicy) left(life time.Duration) float64 {
	switch {
	case p.fraction > 0:
		return p.fraction
	case life < shortLife:
		return 2.0 / 5
	}
	return 1.0 / 3
}

// suggestion is a CA's suggested window that makes sense for a certificate, with
// the time that was selected in it, in Unix seconds.
type suggestion struct {
	start, end, selected int64
	url                  string // why the window is what it is; often empty
}

// newSuggestion judges a suggested window (RFC 9773 §4.2): one that ends before
// it starts, begins after the certificate has expired or is longer than ten years
// is nil. The selected time is uniform in the window and the same on every
// instance and after every restart, because it follows from the certificate and
// the window.
func newSuggestion(b *records.Bundle, start, end time.Time) *suggestion {
	if start.IsZero() || end.IsZero() || !start.Before(end) || start.Unix() >= b.NotAfter || end.Sub(start) > 10*365*24*time.Hour {
		return nil
	}
	s := &suggestion{start: start.Unix(), end: min(end.Unix(), b.NotAfter)}
	s.selected = s.start + int64(b.Fraction(start.Unix(), end.Unix())*float64(s.end-s.start))
	return s
}

// lifeOf is how long b can be served in all: until the first of its chain ends.
func lifeOf(b *records.Bundle) time.Duration {
	return time.Duration(max(b.End-b.NotBefore, 0)) * time.Second
}

// spacingOf is how long a new certificate is kept at least, so that an odd CA or
// responder does not make an endless loop of orders. It is a part of the leaf's own
// life: below an intermediate that is about to end, the next is no better.
func spacingOf(b *records.Bundle) int64 {
	return min(max(b.NotAfter-b.NotBefore, 0)/10, int64(longestSpacing/time.Second))
}

// renewalTime returns when a certificate is renewed. w is the CA's window, nil when
// there is none. The result may be in the past: then the renewal is due.
func renewalTime(b *records.Bundle, w *suggestion, p renewalPolicy) int64 {
	return spaced(b, plannedTime(b, w, p), b.Stored)
}

// plannedTime is the one place that decides when the renewal of b is planned for.
func plannedTime(b *records.Bundle, w *suggestion, p renewalPolicy) int64 {
	life := lifeOf(b)
	before := func(part float64) int64 { return b.End - int64(part*life.Seconds()) }
	if w != nil {
		return min(w.selected, before(backstop))
	}
	return before(p.left(life) + spread*b.Fraction())
}

// deed is what is done with a certificate.
type deed uint8

const (
	doRest     deed = iota // nothing until a time
	doInstall              // serve what is stored
	doExpire               // tell that what is served has expired
	doUnstaple             // staple no more what has ended

	// These are flights.
	doLoad   // read storage
	doObtain // get a new certificate from an issuer
	doInform // ask the CA when to renew
	doStaple // ask the OCSP responder
	deedCount
)

// deeds is a set of them.
type deeds uint8

func (d deeds) has(k deed) bool { return d&(1<<k) != 0 }

// action is what decide says.
type action struct {
	do     deed
	issuer int    // for doObtain: index in settings.issuers
	next   Action // for doRest: what comes next
	at     int64  // for doRest: when
	held   bool   // for doRest: another certificate is wanted and must wait until at
}

// decide says what is to be done now with a certificate, or when to look again.
// It is pure: chance was drawn when the times in s were set.
func decide(s *state, now int64) action {
	w := action{at: never}
	plan := func(at int64, next Action) {
		if at < w.at {
			w.at, w.next = at, next
		}
	}
	can := func(do deed, at int64, next Action) bool {
		at = max(do.sane(at, now), s.stuckUntil(do.String(), now))
		switch {
		case s.busy.has(do): // its end brings us back
			return false
		case at > now:
			plan(at, next)
			return false
		}
		return true
	}
	switch {
	case s.isGone():
		return w
	case s.next != nil && (s.nextAt(now) <= now || !s.usable(now)):
		return action{do: doInstall}
	case s.next != nil:
		plan(s.nextAt(now), ActionServe)
	}
	if b := s.cur.b; b != nil && b.NotBefore > now { // a first one; the cache follows the clock
		plan(b.NotBefore, ActionServe)
	}
	if b := s.cur.b; b != nil && s.know&isExpired == 0 {
		if b.End <= now {
			return action{do: doExpire}
		}
		plan(b.End, ActionExpire)
	}
	if st := s.cur.staple; st != nil && st.Status == revocation.Good {
		end := st.End().Unix()
		if end <= now {
			return action{do: doUnstaple}
		}
		plan(end, ActionStaple)
	}
	if s.know&isLoaded == 0 || s.readAt != 0 {
		if can(doLoad, max(s.readAt, s.retryAt()), ActionLoad) {
			return action{do: doLoad}
		}
		if s.know&isLoaded == 0 {
			return w
		}
	}
	if due := s.due(now); due > now {
		plan(due, ActionRenew)
	} else if !s.busy.has(doObtain) {
		i, at := s.nextIssuer(now)
		if at = max(at, doLoad.sane(s.retryAt(), now)); at <= now {
			return action{do: doObtain, issuer: i}
		}
		w.held = true
		plan(at, ActionRetry)
	}
	switch {
	case s.awaitsStaple(): // of the next one
		if can(doStaple, s.ocspAt, ActionStaple) {
			return action{do: doStaple}
		}
	case s.cur.b == nil || s.next != nil: // it would be of no use before the next one is served
	case can(doInform, s.ariAt, ActionRenewalInfo):
		return action{do: doInform}
	case can(doStaple, s.ocspAt, ActionStaple):
		return action{do: doStaple}
	}
	return w
}

// sane returns a time for d, or now for one that no wait can explain: it was set
// while the clock was ahead.
func (d deed) sane(at, now int64) int64 {
	most := time.Hour // for storage, which is tried again within a quarter of that
	switch d {
	case doInform:
		most = 2 * ariMost
	case doStaple:
		most = longestStaple
	}
	if at != never && at > now+int64(most/time.Second) {
		return now
	}
	return at
}

// nextAt returns when what is stored is served: when it is valid, and, where
// clients may insist on a staple, has one or what is served is good no more.
func (s *state) nextAt(now int64) int64 {
	if s.awaitsStaple() {
		return max(s.next.NotBefore, s.goodUntil(now))
	}
	return s.next.NotBefore
}

// awaitsStaple reports whether the next certificate lacks a staple that clients may
// insist on (RFC 7633).
func (s *state) awaitsStaple() bool {
	return s.next != nil && s.cfg.staples && s.next.Has(records.MustStaple|records.OCSP) && s.ocspAt != never && (s.why == nil || s.why.staple == nil)
}

// due returns when another certificate is wanted; it may be in the past.
func (s *state) due(now int64) int64 {
	b := s.newest()
	switch {
	case s.wish != 0, b == nil, s.know&isUnwanted != 0, s.why != nil && s.why.broken == b:
		return 0
	case s.know&isRevoked != 0:
		return spaced(b, 0, now)
	}
	var w *suggestion
	if b == s.cur.b {
		w = s.cur.ari
	}
	return spaced(b, plannedTime(b, w, s.cfg.policy), now)
}

// spaced returns when b, whose renewal is planned for a time, is renewed: not
// before it was kept for a while. It is no longer when it was stored by a clock
// that was ahead.
func spaced(b *records.Bundle, planned, now int64) int64 {
	if b.Stored <= now+int64(clockSkew/time.Second) {
		planned = max(planned, b.Stored+spacingOf(b))
	}
	return min(planned, b.End)
}

// nextIssuer returns the first issuer that may be asked now, or else the one that
// may be asked first, and when.
func (s *state) nextIssuer(now int64) (i int, at int64) {
	at = never
	for j, iss := range s.cfg.issuers {
		t := s.heldUntil(iss, now)
		if t <= now {
			return j, t
		}
		if t < at {
			i, at = j, t
		}
	}
	return i, at
}

// retryAt returns when storage may be tried again.
func (s *state) retryAt() int64 {
	if s.why == nil {
		return 0
	}
	return s.why.retry
}

// String returns what is done while a flight of that kind is under way.
func (d deed) String() string {
	return [...]string{"rest", "serve", "expire", "unstaple", "load", "issue", "renewal info", "staple"}[d]
}
