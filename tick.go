package certwright

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/certcache"
)

// Keys of the schedule.
const (
	certPrefix = "cert:"
	filePrefix = "file:"
)

func certKey(id string) string { return certPrefix + id }

// run does what is due for a key of the schedule.
func (m *Manager) run(ctx context.Context, key string) {
	if id, ok := strings.CutPrefix(key, certPrefix); ok {
		if c := m.entry(id); c != nil {
			m.tick(ctx, c)
		}
		return
	}
	if key == cleanKey {
		m.cleaner.start()
		return
	}
	m.checkFile(key)
}

// tick does what is due for one certificate and sets when it is looked at
// again. Exactly one tick for a certificate runs at a time.
func (m *Manager) tick(ctx context.Context, c *managed) {
	ctx, waiters, ok := c.begin(ctx)
	if !ok {
		return
	}
	defer c.end()
	answered := false
	answer := func(err error) {
		for _, w := range waiters {
			w.done <- err
		}
		answered = true
	}
	defer func() {
		if p := recover(); p != nil {
			if !answered {
				answer(panicError(p))
			}
			c.panics++
			m.queue.Set(certKey(c.id), time.Now().Add(delay(c.panics, c.left(), 0)))
			panic(p) // counted and logged by the schedule
		}
		c.panics = 0
	}()
	before := c.bundle
	retry, err := m.ensure(ctx, c, waiters)
	if action := waitsFor(err); action != "" && ctx.Err() == nil {
		if lostLease(err) {
			m.log.Warn("lost the lease while getting a certificate", zap.Strings("names", c.names), zap.Time("due", retry), zap.Error(err))
		}
		c.putBack(waiters)
		m.plan(c, action, retry)
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
	if c.bundle != before {
		// The rest comes in a run of its own, behind names that are waited for:
		// a slow responder must not keep them from being served.
		m.queue.Set(certKey(c.id), time.Now())
		return
	}
	m.maintain(ctx, c)
	m.replan(c, retry)
}

// waitsFor says what a run has to wait for that failed in nothing.
func waitsFor(err error) string {
	switch {
	case errors.Is(err, errQueued):
		return "wait for an order slot"
	case errors.Is(err, errBusy), lostLease(err):
		return "wait for another instance"
	}
	return ""
}

// lostLease reports whether work ended because its lease did: whoever took it
// over goes on with it.
func lostLease(err error) bool { return errors.Is(err, ErrLeaseLost) && !isIssueError(err) }

// outcome is what waiters are told: an error of a renewal concerns only those
// who asked for one, as long as a good certificate is served.
func (m *Manager) outcome(c *managed, waiters []waiter, err error) error {
	switch {
	case err == nil, !forced(waiters) && c.served.usable(time.Now()):
		return nil
	case c.isGone():
		return fmt.Errorf("name %q: %w", c.names[0], ErrNotManaged)
	case m.ctx.Err() != nil:
		return fmt.Errorf("name %q: %w", c.names[0], ErrClosed)
	}
	return err
}

// ensure sees to it that c has a certificate that is not due for renewal. It
// returns when to try again what failed or what had to wait.
func (m *Manager) ensure(ctx context.Context, c *managed, waiters []waiter) (retry time.Time, err error) {
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
func (c *managed) trouble() time.Time {
	c.troubles++
	return time.Now().Add(backoff.Policy{First: quickRetry, Max: 15 * time.Minute}.Delay(c.troubles, rand.Float64())).Round(0)
}

// load reads what storage has for c, for the first time.
func (m *Manager) load(ctx context.Context, c *managed) error {
	b, err := m.loadBundle(ctx, c)
	if err != nil {
		return err
	}
	if !b.usable(time.Now()) && m.sources != nil {
		adopted, err := m.sources.adopt(ctx, m, c)
		if err != nil {
			return err
		}
		if adopted != nil {
			b = adopted
		}
	}
	if !b.usable(time.Now()) { // the back-off matters
		if c.state, err = m.loadState(ctx, c); err != nil {
			return err
		}
	}
	c.loaded, c.troubles = true, 0
	if b != nil {
		m.take(c, b)
		m.emit(c, Event{Kind: EventAdopted})
	}
	return nil
}

// due reports whether c needs another certificate now.
func (m *Manager) due(c *managed) bool {
	now := time.Now()
	if c.bundle == nil || c.revoked {
		return true
	}
	return !now.Before(renewalTime(c.bundle.leaf, c.window, m.policy, c.bundle.stored))
}

// take makes b the certificate of c and serves it, unless clients could not
// accept it yet and the one before is still good.
func (m *Manager) take(c *managed, b *bundle) {
	if !b.same(c.bundle) {
		c.window, c.ari, c.ariKnown = window{}, ariRecord{}, false
		c.staple, c.stapleAt, c.stapled = nil, time.Time{}, false
		c.revoked = false
	}
	c.bundle = b
	m.install(c)
}

// install serves the certificate of c once its time has come.
func (m *Manager) install(c *managed) {
	now := time.Now()
	if c.bundle == nil || c.bundle == c.served {
		return
	}
	if now.Before(c.bundle.leaf.NotBefore) && c.served.usable(now) {
		return
	}
	c.served, c.expired = c.bundle, false
	m.serve(c)
	m.publish(c, "check", now.Round(0)) // before an event or Wait tells of it
}

// serve puts the served certificate with its staple into the cache.
func (m *Manager) serve(c *managed) {
	if c.isGone() {
		return
	}
	b := c.served
	cert := b.cert
	if s := m.stapleOf(c); s != nil {
		stapled := *cert
		stapled.OCSPStaple = s
		cert = &stapled
	}
	now := time.Now()
	m.cache.Install(now, certcache.Entry{
		Cert: cert, NotBefore: b.leaf.NotBefore, NotAfter: b.leaf.NotAfter,
		ID: c.id, Names: c.names, Managed: true, Rank: c.rank,
	})
	if c.isGone() { // Unmanage may have removed it just before it came
		m.cache.Remove(now, c.id)
	}
}

// maintain does what is due beside the certificate itself. None of it keeps a
// certificate from being served.
func (m *Manager) maintain(ctx context.Context, c *managed) {
	if c.served == nil {
		return
	}
	now := time.Now()
	if !c.expired && !now.Before(c.served.leaf.NotAfter) {
		c.expired = true
		m.cache.Refresh(now, c.id)
		m.log.Error("a certificate has expired", zap.Strings("names", c.names), zap.Time("not_after", c.served.leaf.NotAfter))
		m.emit(c, Event{Kind: EventExpired})
	}
	m.refreshRenewalInfo(ctx, c)
	m.refreshStaple(ctx, c)
}

// replan sets when c is looked at again. retry is when a failed attempt is
// repeated, zero when none failed.
func (m *Manager) replan(c *managed, retry time.Time) {
	action, at := "retry", retry
	if retry.IsZero() && c.bundle != nil {
		action, at = "renew", renewalTime(c.bundle.leaf, c.window, m.policy, c.bundle.stored)
		if c.revoked {
			at = time.Now()
		}
	}
	earlier := func(name string, t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			action, at = name, t
		}
	}
	if c.bundle != nil && c.bundle != c.served {
		earlier("serve the new certificate", c.bundle.leaf.NotBefore)
	}
	if c.served != nil {
		if !c.expired {
			earlier("expire", c.served.leaf.NotAfter)
		}
		if !m.conf.DisableRenewalInfo {
			earlier("refresh renewal info", c.ari.Refresh)
		}
		earlier("refresh staple", c.stapleAt)
	}
	m.plan(c, action, at)
}

func (m *Manager) plan(c *managed, action string, at time.Time) {
	m.publish(c, action, at)
	if !c.isGone() {
		m.queue.Set(certKey(c.id), at)
	}
}

func (m *Manager) reportSuccess(c *managed, kind EventKind) {
	c.mu.Lock()
	c.status.Degraded = ""
	c.mu.Unlock()
	b := c.bundle
	m.log.Info("certificate "+string(kind), zap.Strings("names", c.names), zap.String("issuer", b.issuer),
		zap.String("serial", serial(b)), zap.Time("not_after", b.leaf.NotAfter))
	m.emit(c, Event{Kind: kind})
}

// reportFailure tells of a failed attempt, and once of one that was made before
// this Manager was.
func (m *Manager) reportFailure(c *managed, err error, retry time.Time) {
	var wait *waitError
	if errors.As(err, &wait) && c.state.Last.Equal(c.reported) {
		return
	}
	c.reported = c.state.Last
	if c.state.Error == "" || !isIssueError(err) {
		c.state.Error = err.Error()
	}
	m.log.Error("no certificate could be obtained", zap.Strings("names", c.names), zap.Int("attempt", c.state.Attempts),
		zap.Time("due", retry), zap.Error(err))
	m.emit(c, Event{Kind: EventFailed, Attempt: c.state.Attempts, Next: retry, Err: err})
}

func isIssueError(err error) bool {
	var e *IssueError
	return errors.As(err, &e)
}

// emit fills in what is known of c.
func (m *Manager) emit(c *managed, e Event) {
	e.Name, e.Names = c.names[0], c.names
	if b := c.bundle; b != nil {
		e.Issuer, e.Serial, e.NotAfter = b.issuer, serial(b), b.leaf.NotAfter
	}
	m.events.emit(e)
}
