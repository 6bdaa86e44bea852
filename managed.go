package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/internal/schedule"
)

// settings are how a managed certificate is issued. They are replaced, not
// changed, and many certificates share one.
type settings struct {
	issuers    []Issuer // bound to the Manager
	profile    string
	mustStaple bool
	anyKey     bool          // there is one key type, so that an adopted certificate may have another
	lifetime   time.Duration // 0: the CA chooses
}

// managed is one certificate that the Manager keeps: its desired state, what it
// has and what was tried. There is one for every certificate, for as long as it
// is managed, so it is kept small: what most do not need is behind pointers that
// are nil, and what a run needs is unpacked into a [job] for its duration.
//
// Its place in the cache and its place in the schedule are part of it.
type managed struct {
	certcache.Entry // Names, Rank

	task    schedule.Task
	m       *Manager
	keyType keyIndex

	mu  sync.Mutex // guards the fields below
	set *settings
	has packed  // what the last run left; written by the worker only
	act *action // nil while nobody waits and nothing runs
}

// action is what a managed certificate has while somebody waits for it or
// something went wrong. The mu of its managed guards it.
type action struct {
	waiters  []waiter
	cancel   context.CancelFunc // ends the work in progress; nil when there is none
	gone     error              // why it is not managed any more; nil while it is
	ready    chan struct{}      // closed when a certificate is served; nil when nobody waits for that
	degraded string             // what could not be kept or read in storage
	broken   *bundle            // what was served and cannot be parsed; nil: nothing
	early    chan struct{}      // closed when a handshake's early load has ended; nil: there was none
}

// waiter waits for the end of a run.
type waiter struct {
	call  *callWait
	i     int
	force bool // a new certificate is wanted although the present one is good
}

func (w waiter) tell(err error) { w.call.end(w.i, err) }

// asManaged returns the certificate that an entry of the cache is a part of, or
// nil for one that is not managed.
func asManaged(e *certcache.Entry) *managed {
	c, _ := e.Owner.(*managed)
	return c
}

// id is the identity of the certificate in storage.
func (c *managed) id() string { return certID(c.Names, c.keyType.keyType()) }

// Schedule, Run and String make it work for the schedule.

func (c *managed) Schedule() *schedule.Task { return &c.task }

func (c *managed) Run(ctx context.Context) { c.m.tick(ctx, c) }

func (c *managed) String() string { return "certificate " + c.id() }

func (c *managed) settings() *settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set
}

func (c *managed) actionLocked() *action {
	if c.act == nil {
		c.act = &action{}
	}
	return c.act
}

// tidyLocked lets go of an action that says nothing.
func (c *managed) tidyLocked() {
	if a := c.act; a != nil && len(a.waiters) == 0 && a.cancel == nil && a.gone == nil && a.ready == nil && a.degraded == "" && a.broken == nil && (a.early == nil || c.has.flags.has(isLoaded)) {
		c.act = nil
	}
}

// waitLocked registers for the end of the next run.
func (c *managed) waitLocked(w waiter) {
	a := c.actionLocked()
	if a.gone != nil {
		w.tell(fmt.Errorf("name %q: %w", c.Names[0], a.gone))
		return
	}
	a.waiters = append(a.waiters, w)
}

// begin starts a run: it takes the waiters and the context for the work.
func (c *managed) begin(ctx context.Context) (run context.Context, waiters []waiter, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.actionLocked()
	if a.gone != nil {
		return nil, nil, false
	}
	run, a.cancel = context.WithCancel(ctx)
	waiters, a.waiters = a.waiters, nil
	return run, waiters, true
}

// putBack keeps waiters for the next run.
func (c *managed) putBack(waiters []waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range waiters {
		c.waitLocked(w) // it may be gone meanwhile
	}
	c.tidyLocked()
}

func (c *managed) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.act; a != nil && a.cancel != nil {
		a.cancel()
		a.cancel = nil
	}
	c.tidyLocked()
}

// drop ends the management: work in progress is cancelled and waiters are told
// why.
func (c *managed) drop(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.actionLocked()
	a.gone = why
	if a.cancel != nil {
		a.cancel()
	}
	for _, w := range a.waiters {
		w.tell(fmt.Errorf("name %q: %w", c.Names[0], why))
	}
	a.waiters = nil
}

func (c *managed) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goneLocked()
}

func (c *managed) goneLocked() bool { return c.act != nil && c.act.gone != nil }

// ready returns a channel that is closed once a certificate is served, nil when
// one is.
func (c *managed) ready() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.has.flags.has(isServing) {
		return nil
	}
	a := c.actionLocked()
	if a.ready == nil {
		a.ready = make(chan struct{})
	}
	return a.ready
}

// tellReadyLocked wakes who waits for a certificate.
func (c *managed) tellReadyLocked() {
	if a := c.act; a != nil && a.ready != nil {
		close(a.ready)
		a.ready = nil
	}
}

// isBroken reports whether b, which is served, could not be parsed.
func (c *managed) isBroken(b *bundle) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.act != nil && c.act.broken == b
}

// noteDegraded keeps what could not be kept in storage for Status.
func (c *managed) noteDegraded(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text != "" || c.act != nil {
		c.actionLocked().degraded = text
		c.tidyLocked()
	}
}

// forced reports whether one of the waiters wants a new certificate.
func forced(waiters []waiter) bool {
	return slices.ContainsFunc(waiters, func(w waiter) bool { return w.force })
}

// left returns how long the newest certificate is good for, 0 without one.
func (c *job) left() time.Duration {
	if c.bundle == nil {
		return 0
	}
	return max(time.Until(c.facts(c.bundle).NotAfter), 0)
}

// noteNewer remembers a record that must not be overwritten.
func (c *job) noteNewer(key string, err error) {
	if !errors.Is(err, record.ErrNewer) {
		return
	}
	if c.newer == nil {
		c.newer = map[string]bool{}
	}
	c.newer[key] = true
}
