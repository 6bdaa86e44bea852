package certwright

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/storage"
)

// tick does what is due for one certificate and sets when it is looked at
// again. Exactly one tick for a certificate runs at a time; after Unmanage and
// Manage the last tick of the one before may still run, under its own lease.
func (m *Manager) tick(ctx context.Context, kept *managed) {
	ctx, waiters, ok := kept.begin(ctx)
	if !ok {
		return
	}
	defer kept.end()
	c := kept.open()
	answered := false
	answer := func(err error) {
		for _, w := range waiters {
			w.tell(err)
		}
		answered = true
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover() // nil when an Issuer ended the goroutine
		if !answered {
			answer(panicError(p))
		}
		c.panics++
		m.plan(c, stepRetry, time.Now().Add(delay(c.panics, c.left(), 0)))
		if p != nil {
			panic(p) // counted and logged by the schedule
		}
	}()
	m.do(ctx, c, waiters, answer)
	returned = true
	c.panics = 0
	c.keep()
}

// do ensures that there is a certificate, answers those who wait, and does what
// else is due.
func (m *Manager) do(ctx context.Context, c *job, waiters []waiter, answer func(error)) {
	before := c.bundle
	retry, err := m.ensure(ctx, c, waiters)
	if next := waitsFor(err); next != stepNone && ctx.Err() == nil {
		if lostLease(err) {
			m.log.Warn("lost the lease while getting a certificate", "name", c.Names[0], "due", retry, "err", err)
		}
		c.putBack(waiters)
		m.plan(c, next, retry)
		return
	}
	if ctx.Err() != nil {
		answer(m.outcome(c, waiters, err))
		return
	}
	if err != nil {
		m.reportFailure(c, err, retry)
	}
	m.replan(c, retry) // before anybody who waits asks for Status
	answer(m.outcome(c, waiters, err))
	if c.bundle != before && m.asksOthers(c) {
		// The rest comes in a run of its own, behind names that are waited for:
		// a slow responder must not keep them from being served.
		m.queue.Set(c.managed, time.Now())
		return
	}
	m.maintain(ctx, c)
	m.replan(c, retry)
}

// asksOthers reports whether upkeep of c asks storage or somebody else.
func (m *Manager) asksOthers(c *job) bool {
	return c.served != nil && (m.informer(c) != nil || m.stapling(c))
}

// waitsFor says what a run has to wait for that failed in nothing.
func waitsFor(err error) step {
	switch {
	case errors.Is(err, errQueued):
		return stepSlot
	case errors.Is(err, errBusy), lostLease(err):
		return stepInstance
	}
	return stepNone
}

// lostLease reports whether work ended because its lease did: whoever took it
// over goes on with it.
func lostLease(err error) bool { return errors.Is(err, storage.ErrLeaseLost) && !isIssueError(err) }

// outcome is what waiters are told: an error of a renewal concerns only those
// who asked for one, as long as a good certificate is served.
func (m *Manager) outcome(c *job, waiters []waiter, err error) error {
	switch {
	case err == nil, !forced(waiters) && c.usable(c.served, time.Now()):
		return nil
	case c.isGone():
		return fmt.Errorf("name %q: %w", c.Names[0], ErrNotManaged)
	case m.ctx.Err() != nil:
		return fmt.Errorf("name %q: %w", c.Names[0], ErrClosed)
	}
	return err
}

// ensure sees to it that c has a certificate that is not due for renewal. It
// returns when to try again what failed or what had to wait.
func (m *Manager) ensure(ctx context.Context, c *job, waiters []waiter) (retry time.Time, err error) {
	force := forced(waiters)
	if !c.loaded {
		if err := m.load(ctx, c); err != nil {
			return c.trouble(), err
		}
	}
	m.install(c)
	if !force && !m.due(c) {
		return time.Time{}, nil
	}
	if len(waiters) == 0 && time.Now().Before(c.state.Next) {
		return c.state.Next, nil // something else was due
	}
	if at, ok := m.reserve(c); !ok {
		return at, errQueued
	}
	c.slot = time.Time{} // used now, or free again
	old := c.bundle
	b, adopted, err := m.obtain(ctx, c, force)
	if err != nil {
		var failure *IssueError
		switch {
		case errors.As(err, &failure):
			return failure.RetryAt, err
		case errors.Is(err, errBusy):
			return time.Now().Add(quickRetry), err
		}
		return c.trouble(), err
	}
	c.troubles = 0
	m.take(c, b)
	kind := EventIssued
	switch {
	case adopted:
		kind = EventAdopted
	case old != nil:
		kind = EventRenewed
	}
	m.reportSuccess(c, kind)
	return time.Time{}, nil
}

// trouble notes a failure that is no issuer's, such as one of storage, and
// returns when to try again.
func (c *job) trouble() time.Time {
	c.troubles++
	return time.Now().Add(backoff.Policy{First: quickRetry, Max: 15 * time.Minute}.Delay(c.troubles, rand.Float64())).Round(0)
}

// load reads what storage has for c, for the first time.
func (m *Manager) load(ctx context.Context, c *job) error {
	found, err := m.loadBundle(ctx, c.managed)
	if err != nil {
		return err
	}
	b := found.bundle
	if b != nil {
		c.note(b, found.facts)
	}
	isAdopted := false
	if !c.usable(b, time.Now()) && m.sources != nil {
		adopted, err := m.sources.adopt(ctx, m, c)
		if err != nil {
			return err
		}
		if adopted != nil {
			b, isAdopted = adopted, true
		}
	}
	if !c.usable(b, time.Now()) { // the back-off matters
		if c.state, err = m.loadState(ctx, c); err != nil {
			return err
		}
	}
	c.loaded, c.troubles = true, 0
	if b != nil {
		m.take(c, b)
	}
	if isAdopted {
		m.emit(c, Event{Kind: EventAdopted})
	}
	return nil
}

// due reports whether c needs another certificate now.
func (m *Manager) due(c *job) bool {
	now := time.Now()
	if c.bundle == nil || c.revoked || c.isBroken(c.bundle) {
		return true
	}
	return !now.Before(c.renewAt(c.bundle, c.window))
}

// take makes b the certificate of c and serves it, unless clients could not
// accept it yet and the one before is still good.
func (m *Manager) take(c *job, b *bundle) {
	if !b.same(c.bundle) {
		c.window, c.ari, c.ariKnown = window{}, ariRecord{}, false
		c.staple, c.stapleAt, c.stapled = nil, time.Time{}, false
		c.revoked = false
	}
	c.bundle = b
	m.install(c)
}

// install serves the certificate of c once its time has come.
func (m *Manager) install(c *job) {
	now := time.Now()
	if c.bundle == nil || c.bundle == c.served {
		return
	}
	if now.Before(c.facts(c.bundle).NotBefore) && c.usable(c.served, now) {
		return
	}
	c.served, c.expired = c.bundle, false
	m.serve(c)
	c.publish(stepCheck, now.Round(0)) // before an event or Wait tells of it
}

// serve puts the served certificate with its staple into the cache.
func (m *Manager) serve(c *job) {
	s := c.served.served(c.facts(c.served), m.stapleOf(c))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.goneLocked() {
		m.cache.Serve(&c.Entry, s)
	}
}

// maintain does what is due beside the certificate itself. None of it keeps a
// certificate from being served.
func (m *Manager) maintain(ctx context.Context, c *job) {
	if c.served == nil {
		return
	}
	now := time.Now()
	if !c.expired && !now.Before(c.facts(c.served).NotAfter) {
		c.expired = true
		m.log.Error("a certificate has expired", "name", c.Names[0], "not_after", c.served.notAfter())
		m.emit(c, Event{Kind: EventExpired})
	}
	m.refreshRenewalInfo(ctx, c)
	m.refreshStaple(ctx, c)
}

// replan sets when c is looked at again. retry is when a failed attempt is
// repeated, zero when none failed.
func (m *Manager) replan(c *job, retry time.Time) {
	next, at := stepRetry, retry
	if retry.IsZero() && c.bundle != nil {
		next, at = stepRenew, c.renewAt(c.bundle, c.window)
		if c.revoked {
			at = time.Now()
		}
	}
	earlier := func(s step, t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			next, at = s, t
		}
	}
	if c.bundle != nil && c.bundle != c.served {
		earlier(stepServe, c.facts(c.bundle).NotBefore)
	}
	if c.served != nil {
		if !c.expired {
			earlier(stepExpire, c.facts(c.served).NotAfter)
		}
		if !m.conf.DisableRenewalInfo {
			earlier(stepRenewalInfo, c.ari.Refresh)
		}
		earlier(stepStaple, c.stapleAt)
	}
	m.plan(c, next, at)
}

func (m *Manager) plan(c *job, next step, at time.Time) {
	c.publish(next, at)
	if !c.isGone() {
		m.queue.Set(c.managed, at)
	}
}

func (m *Manager) reportSuccess(c *job, kind EventKind) {
	c.noteDegraded("")
	b := c.bundle
	m.log.Info("certificate "+string(kind), "name", c.Names[0], "issuer", b.issuer,
		"serial", b.serial(), "not_after", b.notAfter())
	m.emit(c, Event{Kind: kind})
}

// reportFailure tells of a failed attempt, and once of one that was made before
// this Manager was.
func (m *Manager) reportFailure(c *job, err error, retry time.Time) {
	var wait *waitError
	if errors.As(err, &wait) && c.state.Last.Equal(c.reported) {
		return
	}
	c.reported = c.state.Last
	if c.state.Error == "" || !isIssueError(err) {
		c.state.Error = err.Error()
	}
	m.log.Error("no certificate could be obtained", "name", c.Names[0], "attempt", c.state.Attempts,
		"due", retry, "err", err)
	m.emit(c, Event{Kind: EventFailed, Attempt: c.state.Attempts, Next: retry, Err: err})
}

func isIssueError(err error) bool {
	var e *IssueError
	return errors.As(err, &e)
}

// emit fills in what is known of c.
func (m *Manager) emit(c *job, e Event) {
	if !m.events.heard() {
		return
	}
	e.Name, e.Names = c.Names[0], c.Names
	if b := c.bundle; b != nil {
		e.Issuer, e.Serial, e.NotAfter = b.issuer, b.serial(), b.notAfter()
	}
	m.events.emit(e)
}
