package certwright

import (
	"errors"
	"sync"
	"time"
)

// errQueued means that an order has to wait for its turn.
var errQueued = errors.New("waiting for an order slot")

// orderLimit hands out the times at which orders may be made.
type orderLimit struct {
	limit OrderLimit

	mu      sync.Mutex  // guards granted
	granted []time.Time // ascending; those that still count
}

// reserve returns the earliest time at which one more order keeps the limit,
// and keeps it for the caller.
func (l *orderLimit) reserve(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.granted) > 0 && !now.Before(l.granted[0].Add(l.limit.Per)) {
		l.granted = l.granted[1:]
	}
	at := now
	if n := len(l.granted); n >= l.limit.Orders {
		at = l.granted[n-l.limit.Orders].Add(l.limit.Per)
	}
	l.granted = append(l.granted, at)
	return at
}

// reserve reports whether c may order now at the issuer that is asked first, and
// else when it may.
func (m *Manager) reserve(c *job) (at time.Time, ok bool) {
	now := time.Now()
	var first string
	for _, iss := range c.settings().issuers {
		if now.Before(c.state.Issuers[iss.ID()].Next) {
			continue
		}
		first = iss.ID()
		break
	}
	m.mu.Lock()
	l := m.limits[first]
	m.mu.Unlock()
	if l == nil || now.Before(c.state.Next) {
		return now, true
	}
	if c.slot.IsZero() {
		c.slot = l.reserve(now).Round(0)
	}
	if now.Before(c.slot) {
		return c.slot, false
	}
	return now, true
}
