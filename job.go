package certwright

import (
	"math"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/revocation"
)

// job is a run of the schedule for one certificate: what is known of it,
// unpacked. One job for a certificate exists at a time, and its worker alone
// uses it; publish makes what it found out visible.
type job struct {
	*managed

	bundle *bundle // the newest that is stored
	served *bundle // the one in the cache

	loaded   bool // storage was read
	expired  bool // the expiry of served was reported
	kept     bool // storage may hold a back-off
	ariKnown bool // the stored ARI record was read
	stapled  bool // the stored staple was read
	revoked  bool // by the CA's word; replaced at once

	window window
	ari    ariRecord
	rare

	next   step
	nextAt time.Time

	seen [2]seen // what was read last
}

// seen is what was read of a bundle's leaf.
type seen struct {
	b     *bundle
	facts certpem.Facts
}

// facts returns what the leaf of b says. It reads the leaf once in a run.
func (c *job) facts(b *bundle) certpem.Facts {
	for i := range c.seen {
		if c.seen[i].b == b {
			return c.seen[i].facts
		}
	}
	f := b.Facts()
	c.note(b, f)
	return f
}

func (c *job) note(b *bundle, f certpem.Facts) {
	c.seen[1], c.seen[0] = c.seen[0], seen{b, f}
}

// usable reports whether a client would accept b, which may be nil, at now.
func (c *job) usable(b *bundle, now time.Time) bool { return b != nil && isUsable(c.facts(b), now) }

// rare is what few certificates have. Nearly all of the time it is zero.
type rare struct {
	state       stateRecord
	reported    time.Time // state.Last of the failure that was reported last
	panics      int       // in a row
	troubles    int       // failures in a row that were no issuer's
	staple      *revocation.Staple
	stapleAt    time.Time       // when the staple is refreshed
	newer       map[string]bool // keys of records that a newer version wrote, which stay as they are
	slot        time.Time       // reserved for an order
	unsaved     *orderRecord    // an issue in progress that is further than the stored one; nil: none
	explanation string          // of the suggested window
	other       *bundle         // the one that is served when it is not the newest that is stored
}

func (r *rare) isZero() bool {
	return r.state.isZero() && r.reported.IsZero() && r.panics == 0 && r.troubles == 0 &&
		r.staple == nil && r.stapleAt.IsZero() && len(r.newer) == 0 && r.slot.IsZero() && r.unsaved == nil && r.explanation == "" && r.other == nil
}

// packed is what a job leaves behind, in little memory. Times are nanoseconds
// since 1970, 0 for none.
type packed struct {
	bundle                       *bundle
	ariStart, ariEnd, ariRefresh int64
	nextAt                       int64
	rare                         *rare // nil: zero
	flags                        flags
	next                         step
}

// flags are what is true of a managed certificate.
type flags uint16

const (
	isServing flags = 1 << iota // bundle is served, or rare.other
	isLoaded                    // and so on: see job
	isExpired
	isKept
	isARIKnown
	isARIOdd
	isStapled
	isRevoked
)

func (f flags) has(bit flags) bool { return f&bit != 0 }

func (f *flags) set(bit flags, on bool) {
	if on {
		*f |= bit
	}
}

// served returns the certificate that is served, nil when there is none.
func (p *packed) served() *bundle {
	switch {
	case !p.flags.has(isServing):
		return nil
	case p.rare != nil && p.rare.other != nil:
		return p.rare.other
	}
	return p.bundle
}

// nanos and fromNanos turn a time of the wall clock into a number and back.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	switch s := t.Unix(); { // what does not fit is as good as never
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// open unpacks what is known of c.
func (c *managed) open() *job {
	c.mu.Lock()
	p := c.has
	c.mu.Unlock()
	j := &job{
		managed: c, bundle: p.bundle, served: p.served(),
		loaded: p.flags.has(isLoaded), expired: p.flags.has(isExpired), kept: p.flags.has(isKept),
		ariKnown: p.flags.has(isARIKnown), stapled: p.flags.has(isStapled), revoked: p.flags.has(isRevoked),
		next: p.next, nextAt: fromNanos(p.nextAt),
	}
	j.unpackRenewalInfo(&p)
	if p.rare != nil {
		j.rare = *p.rare
		j.ari.ExplanationURL = p.rare.explanation
	}
	return j
}

// unpackRenewalInfo sets the CA's suggestion and the window that follows from it.
func (c *job) unpackRenewalInfo(p *packed) {
	r := ariRecord{Start: fromNanos(p.ariStart), End: fromNanos(p.ariEnd), Refresh: fromNanos(p.ariRefresh), Odd: p.flags.has(isARIOdd)}
	c.ari = r
	if c.served != nil && !r.Odd && p.ariStart != 0 {
		c.window, _ = newWindow(c.facts(c.served), r.Start, r.End)
	}
}

// pack is the reverse of open.
func (c *job) pack() packed {
	p := packed{
		bundle: c.bundle, ariStart: nanos(c.ari.Start), ariEnd: nanos(c.ari.End), ariRefresh: nanos(c.ari.Refresh),
		next: c.next, nextAt: nanos(c.nextAt),
	}
	p.flags.set(isServing, c.served != nil)
	p.flags.set(isLoaded, c.loaded)
	p.flags.set(isExpired, c.expired)
	p.flags.set(isKept, c.kept)
	p.flags.set(isARIKnown, c.ariKnown)
	p.flags.set(isARIOdd, c.ari.Odd)
	p.flags.set(isStapled, c.stapled)
	p.flags.set(isRevoked, c.revoked)
	r := c.rare
	r.explanation, r.other = c.ari.ExplanationURL, nil
	if c.served != c.bundle {
		r.other = c.served
	}
	if !r.isZero() {
		p.rare = &r
	}
	return p
}

// keep makes what the job knows what is known.
func (c *job) keep() {
	p := c.pack()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.has = p
	if a := c.act; a != nil && a.broken != p.served() {
		a.broken = nil // it was replaced
	}
	if p.flags.has(isServing) {
		c.tellReadyLocked()
	}
}

// step is what the Manager does next with a certificate.
type step uint8

const (
	stepNone step = iota
	stepLoad
	stepCheck
	stepRenew
	stepRetry
	stepSlot
	stepInstance
	stepServe
	stepRenewalInfo
	stepStaple
	stepExpire
)

// action returns the step as NameStatus.NextAction has it.
func (s step) action() Action {
	return [...]Action{
		"", ActionLoad, ActionCheck, ActionRenew, ActionRetry, ActionAwaitSlot, ActionAwaitInstance,
		ActionServe, ActionRenewalInfo, ActionStaple, ActionExpire,
	}[s]
}
