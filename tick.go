package certwright

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/records"
)

const (
	// loadTimeout and askTimeout bound the flights that read storage and that ask
	// a CA or a responder; obtainTimeout bounds an attempt at an issuer of the
	// caller's, and aroundIssue what one at an *ACME takes beside ACME.Timeout.
	loadTimeout   = 5 * time.Minute
	askTimeout    = 2 * time.Minute
	obtainTimeout = 20 * time.Minute
	aroundIssue   = 5 * time.Minute
)

// news is what is done once no lock is held: telling, and starting flights.
type news struct{ list []func() }

func (n *news) add(f func()) { n.list = append(n.list, f) }

// change applies f to the state of c and does what follows from it. It is the one
// way in which the state changes.
func (m *Manager) change(c *managed, f func(n *news)) {
	var n news
	func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		f(&n)
		if m.ctx.Err() != nil && !c.isGone() {
			c.trouble().gone = ErrClosed
		}
		m.stepLocked(c, &n)
	}()
	n.tell()
}

// tell does it in its order. What panics or ends the goroutine, such as a log
// handler, keeps nothing else from being done.
func (n *news) tell() {
	defer func() {
		if len(n.list) > 0 {
			n.tell()
		}
	}()
	for len(n.list) > 0 {
		f := n.list[0]
		n.list = n.list[1:]
		f()
	}
}

// stepLocked does what decide says until there is nothing to do before a time.
func (m *Manager) stepLocked(c *managed, n *news) {
	if b := c.cur.b; b != nil && time.Now().Unix() < b.End {
		c.know &^= isExpired // which a clock said that was ahead
	}
	for {
		switch a := decide(&c.state, time.Now().Unix()); a.do {
		case doRest:
			if m.endLocked(c, a, n) {
				continue
			}
			m.answerLocked(c, n)
			if c.usable(time.Now().Unix()) || c.isGone() && !errors.Is(c.why.gone, ErrClosed) {
				m.endStandinsLocked(c)
			}
			c.tidy()
			if !c.isGone() {
				m.queue.Set(c, a.at)
			}
			return
		case doInstall:
			m.installLocked(c)
		case doExpire:
			c.know |= isExpired
			b := c.cur.b
			n.add(func() { m.tellExpired(c, b) })
		case doUnstaple:
			c.cur.staple = nil
			m.serveLocked(c)
		default:
			m.startLocked(c, a, n)
		}
	}
}

// isOver reports whether no attempt is under way.
func (c *managed) isOver() bool { return !c.busy.has(doLoad) && !c.busy.has(doObtain) }

// endLocked ends an attempt once nothing of it is left to be done: it is told of
// when it failed, and what was wished is done with. It reports whether that
// changes what is next.
func (m *Manager) endLocked(c *managed, a action, n *news) bool {
	if !c.isOver() {
		return false
	}
	if a.held {
		now := time.Now().Unix()
		if _, at := c.nextIssuer(now); c.why != nil && isWait(c.why.err) && at > max(now, c.retryAt()) {
			c.why.err = nil // it is for an issuer that it has to wait now
		}
		m.reportLocked(c, n)
	}
	if c.wish == 0 && c.know&isTried == 0 || c.why != nil && isWait(c.why.err) {
		return false // or it is wanted as soon as the other instance is done
	}
	c.wish = 0
	c.know &^= isTried
	return true
}

// answerLocked answers those whose condition is met.
func (m *Manager) answerLocked(c *managed, n *news) {
	if c.why == nil || len(c.why.waiters) == 0 {
		return
	}
	now := time.Now()
	left := c.why.waiters[:0]
	for _, w := range c.why.waiters {
		err, done := error(nil), true
		switch {
		case w.call.hasLeft():
			continue
		case c.isGone():
			err = c.goneError()
		default:
			err, done = w.done(c, now)
		}
		if done {
			n.add(func() { w.call.end(w.i, err) })
		} else {
			left = append(left, w)
		}
	}
	clear(c.why.waiters[len(left):])
	c.why.waiters = left
}

// installLocked serves what is stored and was not served yet.
func (m *Manager) installLocked(c *managed) {
	b := c.next
	c.next = nil
	if !b.Same(c.cur.b) {
		c.cur = served{b: b}
		c.know &^= isExpired | isRevoked
		c.ariAt, c.ocspAt = m.upkeepOf(c, b)
		if c.why != nil && c.why.staple != nil {
			c.cur.staple, c.ocspAt = c.why.staple, nextStaple(c.why.staple, b, time.Now()).Unix()
		}
	} else {
		c.cur.b = b
	}
	if c.why != nil {
		c.why.staple = nil
		if c.why.broken != b {
			c.why.broken = nil
		}
	}
	m.serveLocked(c)
}

// serveLocked puts what is served with its staple into the cache.
func (m *Manager) serveLocked(c *managed) {
	if c.isGone() {
		return
	}
	b := c.cur.b
	s := servedOf(b, c.rank)
	if raw := stapleOf(c.cur.staple); raw != nil {
		s.Source = stapled{b, raw}
	}
	m.cache.Serve(&c.Entry, s)
}

// startLocked begins a flight.
func (m *Manager) startLocked(c *managed, a action, n *news) {
	ctx, cancel := context.WithCancel(m.ctx)
	f := &flight{began: time.Now(), cancel: cancel, on: a.do.String()}
	f.Flight = &lane.Flight{Name: c.id(), Need: m.needOf(c), Context: ctx, Timeout: askTimeout}
	l := m.storageLane
	var do func(ctx context.Context) func(*news)
	switch a.do {
	case doLoad:
		f.Timeout = loadTimeout
		do = func(ctx context.Context) func(*news) { return m.load(ctx, c) }
	case doObtain:
		iss := c.cfg.issuers[a.issuer]
		l, f.Timeout, f.Token, f.on = iss.lane, iss.timeout, true, iss.id
		t := m.newAttempt(c, f, iss)
		do = func(ctx context.Context) func(*news) { return m.obtain(ctx, c, t) }
	case doInform:
		b := c.cur.b
		if iss := issuerOf(c.cfg, b); iss != nil {
			l = iss.upkeep
		}
		do = func(ctx context.Context) func(*news) { return m.inform(ctx, c, b) }
	case doStaple:
		b := c.cur.b
		if c.awaitsStaple() {
			b = c.next
		}
		l = m.ocspLanes.of(b)
		do = func(ctx context.Context) func(*news) { return m.staple(ctx, c, b) }
	}
	f.Do = func(ctx context.Context) error { f.work(ctx, c, do); return nil }
	f.Done = func(err error) { m.land(c, a, f, err) }
	f.lane = l
	c.busy |= 1 << a.do
	c.trouble().flights[a.do] = f
	if c.why.by == a.do {
		c.why.degraded = "" // it is found out anew
	}
	n.add(func() {
		if a.do == doObtain { // who waits may have passed what has stopped it
			l.Probe()
		}
		l.Submit(f.Flight)
	})
}

// needOf orders flights: what somebody waits for goes first, then what is revoked,
// then what ends first. A first certificate goes behind what ends within a day.
func (m *Manager) needOf(c *managed) int64 {
	switch b := c.cur.b; {
	case c.why != nil && len(c.why.waiters) > 0:
		return 0
	case c.know&isRevoked != 0:
		return 1
	case b == nil:
		return time.Now().Unix() + 24*60*60
	default:
		return b.End
	}
}

// land applies what a flight found out. err is nil when it ended as it should.
func (m *Manager) land(c *managed, a action, f *flight, err error) {
	f.cancel()
	if err != nil {
		defer f.abandon(m) // last: the release may hang, or panic
	}
	m.change(c, func(n *news) {
		c.busy &^= 1 << a.do
		c.trouble().flights[a.do] = nil
		if a.do == doObtain && isWait(c.why.err) {
			c.why.err = nil // unless the result says that it has to wait still
		}
		if errors.Is(err, lane.ErrAbandoned) {
			c.noteLostLocked(f)
		}
		switch {
		case c.isGone():
		case err == nil:
			f.result()(n)
		case errors.Is(err, lane.ErrStopped): // the issuer is down, which is known by now
		case a.do == doObtain:
			iss := c.cfg.issuers[min(a.issuer, len(c.cfg.issuers)-1)]
			c.failed(iss, &StepError{Issuer: iss.id, Step: "issue", Err: err})
		case a.do == doLoad:
			m.unreadLocked(c, err, n)
		default:
			c.postpone(a.do)
			n.add(func() {
				m.log.Warn("work beside a certificate has failed", "name", c.Names[0], "work", a.do.String(), "err", err)
			})
		}
	})
}

// postpone puts upkeep off that ended badly, such as by a panic.
func (c *managed) postpone(d deed) {
	at := jittered(time.Now(), min(ariInterval, lifeOf(c.cur.b)/20)).Unix()
	switch d {
	case doInform:
		c.ariAt = at
	case doStaple:
		c.ocspAt = at
	}
}

// abandon gives back what a flight holds, also of one that does not return.
func (f *flight) abandon(m *Manager) {
	f.mu.Lock()
	lease, turn := f.lease, f.turn
	f.lease, f.turn = nil, nil
	f.mu.Unlock()
	if turn != nil {
		turn()
	}
	if lease != nil {
		m.unlock(m.ctx, lease)
	}
}

// failed notes an attempt that ended badly, such as by a panic of the issuer: as
// a hold in memory.
func (c *managed) failed(iss *issuer, err error) {
	now := time.Now()
	t := c.tryOf(iss)
	t.holds, t.err, t.isNew, t.wish = nil, err, true, c.wish
	t.hold = records.Hold{
		Account: iss.id, Subject: c.id(), Noted: now.Unix(), Last: now.Unix(), Attempts: t.hold.Attempts + 1, Error: err.Error(),
	}
	t.hold.Until = now.Add(delay(t.hold.Attempts, c.left(now.Unix()), 0)).Unix()
}

// tryOf returns what came of the last attempts at iss.
func (c *managed) tryOf(iss *issuer) *try {
	w := c.trouble()
	if w.tries == nil {
		w.tries = map[string]*try{}
	}
	t := w.tries[iss.id]
	if t == nil {
		t = &try{}
		w.tries[iss.id] = t
	}
	return t
}

// troubleLocked notes a failure that is no issuer's, such as one of storage. What
// failed is tried again after a pause, kept below a part of the life that is left.
func (m *Manager) troubleLocked(c *managed, err error, n *news) {
	w := c.trouble()
	if w.failures == 0 {
		w.since = time.Now()
	}
	w.failures++
	pause := backoff.Policy{First: quickRetry, Max: 15 * time.Minute}.Delay(w.failures, rand.Float64())
	if left := c.left(time.Now().Unix()); left > 0 {
		pause = min(pause, max(left/12, quickRetry))
	}
	w.retry, w.err = time.Now().Add(pause).Unix()+1, err
	due, first := time.Unix(w.retry, 0), w.failures == 1
	n.add(func() {
		if first {
			m.log.Error("work on a name has failed and is tried again", "name", c.Names[0], "due", due, "err", err)
		} else {
			m.log.Debug("work on a name has failed again", "name", c.Names[0], "due", due, "err", err)
		}
	})
	if first {
		n.add(func() { m.emit(c, Event{Kind: EventFailed, Next: due, Err: err}) })
	}
}

// wellLocked notes that storage works.
func (c *managed) wellLocked() {
	if w := c.why; w != nil {
		w.retry, w.failures, w.err = 0, 0, nil
	}
}

// reportLocked tells, once, of attempts that this process made and that failed.
func (m *Manager) reportLocked(c *managed, n *news) {
	isNew := false
	if c.why != nil {
		for _, t := range c.why.tries {
			isNew, t.isNew = isNew || t.isNew, false
		}
	}
	if !isNew {
		return
	}
	err := c.issueError(time.Now().Unix())
	n.add(func() {
		m.log.Error("no certificate could be obtained", "name", c.Names[0], "attempt", err.Attempts, "due", err.RetryAt, "err", err)
		m.emit(c, Event{Kind: EventFailed, Attempt: err.Attempts, Next: err.RetryAt, Err: err})
	})
}

// issueError sums up what came of the attempts at all issuers.
func (c *managed) issueError(now int64) *IssueError {
	_, at := c.nextIssuer(now)
	out := &IssueError{Name: c.Names[0]}
	if at != never {
		out.RetryAt = time.Unix(max(at, c.retryAt(), now), 0)
	}
	for _, iss := range c.cfg.issuers {
		var t try
		if c.why != nil && c.why.tries[iss.id] != nil {
			t = *c.why.tries[iss.id]
		}
		h, until := &t.hold, c.heldUntil(iss, now)
		if down := iss.down.Load(); t.err == nil && !h.Counts(now) && down.Counts(now) {
			h = down
		}
		out.Attempts = max(out.Attempts, h.Attempts)
		switch {
		case t.err != nil:
			out.Errs = append(out.Errs, t.err)
		case until > now:
			out.Errs = append(out.Errs, heldError(iss, h, until))
		}
	}
	return out
}

// failure says why there is no certificate.
func (c *managed) failure(now int64) error {
	if e := c.issueError(now); len(e.Errs) > 0 {
		return e
	}
	if c.why != nil && c.why.err != nil {
		return c.why.err
	}
	return fmt.Errorf("%w for %q yet", ErrNoCertificate, c.Names[0])
}

func (m *Manager) tellExpired(c *managed, b *records.Bundle) {
	m.log.Error("a certificate has expired", "name", c.Names[0], "not_after", time.Unix(b.End, 0).UTC())
	m.emit(c, Event{Kind: EventExpired})
}

// emit fills in what is known of c. It is called with no lock held.
func (m *Manager) emit(c *managed, e Event) {
	if !m.events.heard() {
		return
	}
	c.mu.Lock()
	b := c.newest()
	c.mu.Unlock()
	e.Name, e.Names = c.Names[0], c.Names
	if b != nil {
		e.Issuer, e.Serial, e.NotAfter = b.Account(), b.Serial(), time.Unix(b.End, 0).UTC()
	}
	m.events.emit(e)
}

// degraded reports that something of c could not be kept in storage, or read. It
// is called with no lock held.
func (m *Manager) degraded(c *managed, by deed, what string, err error) {
	c.mu.Lock()
	w := c.trouble()
	w.degraded, w.by = what+": "+err.Error(), by
	c.mu.Unlock()
	m.log.Error(what, "name", c.Names[0], "err", err)
	m.emit(c, Event{Kind: EventStorageDegraded, Err: fmt.Errorf("%s: %w", what, err)})
}
