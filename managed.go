package certwright

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/internal/revocation"
)

// settings are how a managed certificate is issued. They are replaced, not
// changed.
type settings struct {
	issuers    []Issuer // bound to the Manager
	profile    string
	mustStaple bool
	anyKey     bool // there is one key type, so that an adopted certificate may have another
	notBefore  time.Duration
	notAfter   time.Duration
}

// managed is one certificate that the Manager keeps: its desired state, what it
// has and what was tried. Only the schedule's worker for its ID, one at a time,
// writes the fields below work.
type managed struct {
	id      string
	names   []string
	keyType KeyType
	rank    int // position of the key type

	mu      sync.Mutex // guards the fields below
	set     *settings
	waiters []waiter
	cancel  context.CancelFunc // ends the work in progress; nil when there is none
	gone    error              // why it is not managed any more; nil while it is
	ready   chan struct{}      // closed when a certificate is served for the first time
	isReady bool
	status  NameStatus // what Status returns

	// work
	loaded   bool
	panics   int       // in a row
	reported time.Time // state.Last of the failure that was reported last
	bundle   *bundle   // the newest that is stored
	served   *bundle   // the one in the cache
	expired  bool      // the expiry of served was reported
	state    stateRecord
	kept     bool // storage may hold a back-off
	window   window
	ari      ariRecord
	ariKnown bool // the stored ARI record was read
	staple   *revocation.Staple
	stapleAt time.Time       // when the staple is refreshed
	stapled  bool            // the stored staple was read
	newer    map[string]bool // keys of records that a newer version wrote, which stay as they are
	revoked  bool            // by the CA's word; replaced at once
	slot     time.Time       // reserved for an order
	unsaved  *orderRecord    // an issue in progress that is further than the stored one; nil: none
	troubles int             // failures in a row that were no issuer's
}

// waiter waits for the end of a run.
type waiter struct {
	done  chan error // buffered
	force bool       // a new certificate is wanted although the present one is good
}

func (c *managed) settings() *settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set
}

// left returns how long the newest certificate is good for, 0 without one.
func (c *managed) left() time.Duration {
	if c.bundle == nil {
		return 0
	}
	return max(time.Until(c.bundle.leaf.NotAfter), 0)
}

// noteNewer remembers a record that must not be overwritten.
func (c *managed) noteNewer(key string, err error) {
	if !errors.Is(err, record.ErrNewer) {
		return
	}
	if c.newer == nil {
		c.newer = map[string]bool{}
	}
	c.newer[key] = true
}

// wait registers for the end of the next run.
func (c *managed) wait(force bool) chan error {
	done := make(chan error, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		done <- fmt.Errorf("name %q: %w", c.names[0], c.gone)
		return done
	}
	c.waiters = append(c.waiters, waiter{done: done, force: force})
	return done
}

// begin starts a run: it takes the waiters and the context for the work.
func (c *managed) begin(ctx context.Context) (run context.Context, waiters []waiter, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		return nil, nil, false
	}
	run, c.cancel = context.WithCancel(ctx)
	waiters, c.waiters = c.waiters, nil
	return run, waiters, true
}

// putBack keeps waiters for the next run.
func (c *managed) putBack(waiters []waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = append(c.waiters, waiters...)
}

func (c *managed) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
		c.cancel = nil
	}
}

// drop ends the management: work in progress is cancelled and waiters are told
// why.
func (c *managed) drop(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = why
	if c.cancel != nil {
		c.cancel()
	}
	for _, w := range c.waiters {
		w.done <- fmt.Errorf("name %q: %w", c.names[0], why)
	}
	c.waiters = nil
}

func (c *managed) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone != nil
}

// markReadyLocked tells Wait that a certificate is served.
func (c *managed) markReadyLocked() {
	if !c.isReady {
		c.isReady = true
		close(c.ready)
	}
}

// forced reports whether one of the waiters wants a new certificate.
func forced(waiters []waiter) bool {
	for _, w := range waiters {
		if w.force {
			return true
		}
	}
	return false
}
