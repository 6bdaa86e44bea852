package certwright

import (
	"context"
	"time"

	"github.com/certwright/certwright/internal/certcache"
)

// isLoaded reports whether the certificate was looked for in storage.
func (c *managed) isLoaded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.has.flags.has(isLoaded)
}

// noteBroken tells, once, of a certificate that a handshake could not parse: its
// record was whole, so what was written must have been wrong.
func (m *Manager) noteBroken(e *certcache.Entry, err error) {
	c := asManaged(e)
	if c == nil {
		return
	}
	c.mu.Lock()
	a := c.actionLocked()
	first := !a.broken
	a.broken = true
	c.mu.Unlock()
	if first {
		m.degraded(c, "a stored certificate cannot be parsed; Renew replaces it", err)
	}
}

// beginEarly reports whether storage is to be read for a handshake, which it is
// once: what is not found or fails then is left to the schedule.
func (c *managed) beginEarly() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.actionLocked()
	if a.early || a.gone != nil {
		return false
	}
	a.early = true
	return true
}

// loadEarly reads and serves the stored certificate of c before the schedule
// comes to it. The worker reads it again, and all that goes with it.
func (m *Manager) loadEarly(ctx context.Context, c *managed) error {
	if !c.beginEarly() {
		return nil
	}
	found, err := m.loadBundle(ctx, c)
	if err != nil || !found.usable(time.Now()) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.Serving() && (c.act == nil || c.act.gone == nil) {
		m.cache.Serve(time.Now(), &c.Entry, found.served(found.facts, nil))
	}
	return nil
}
