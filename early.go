package certwright

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
)

// loadPatience bounds how long a handshake waits for storage. It does so only
// while a start has not come to its name.
const loadPatience = 10 * time.Second

// adding reports whether names are being added in the background. It is asked
// before the cache is: a name that is not there afterwards may be among them.
func (m *Manager) adding() bool { return m.later.Load() != nil }

// lookup selects for a normalised name, which may have to be loaded. There is
// nothing for the empty name.
func (m *Manager) lookup(hello *tls.ClientHelloInfo, name string) *tls.Certificate {
	if name == "" {
		return nil
	}
	adding := m.adding()
	cert, match := m.cache.Find(name, hello)
	if cert == nil && (adding || match != certcache.None) {
		cert, _ = m.loadAsked(hello, name)
	}
	return cert
}

// loadAsked reads the certificates for a name whose turn at the start has not
// come yet, and which is asked for: its own, and when those are of no use that of
// the wildcard above it. Each is read once; handshakes for it share that, and
// wait no longer than loadPatience.
func (m *Manager) loadAsked(hello *tls.ClientHelloInfo, name string) (*tls.Certificate, certcache.Match) {
	m.addAsked(name)
	ctx := hello.Context()
	if ctx == nil { // the hello was made by hand
		ctx = m.ctx
	}
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	for _, n := range []string{name, "*." + hostname.Parent(name)} {
		for _, c := range m.managedFor(n) {
			if err := m.loadEarly(ctx, c); err != nil {
				m.log.Debug("a certificate that is asked for was not loaded", "name", n, "err", err)
			}
		}
		if cert, match := m.cache.Find(name, hello); cert != nil {
			return cert, match
		}
	}
	return m.cache.Find(name, hello)
}

// loadEarly has the stored certificate of c read and served before the schedule
// comes to it, unless that was done, and waits for it. What is not found or fails
// then is left to the schedule.
func (m *Manager) loadEarly(ctx context.Context, c *managed) error {
	done, first := c.beginEarly()
	switch {
	case done == nil:
		return nil
	case first:
		m.mu.Lock()
		if m.isClosed {
			close(done)
		} else {
			m.work.Go(func() {
				defer close(done)
				m.readEarly(c)
			})
		}
		m.mu.Unlock()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// beginEarly returns what is closed when the early load of c has ended, and
// reports whether the caller has to begin it. It is nil when there is to be none.
func (c *managed) beginEarly() (done chan struct{}, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.has.flags.has(isLoaded) {
		return nil, false
	}
	a := c.actionLocked()
	if a.gone != nil {
		return nil, false
	}
	first = a.early == nil
	if first {
		a.early = make(chan struct{})
	}
	return a.early, first
}

// readEarly reads the certificate of c, as many at a time as there are workers.
// The worker for c reads it again, and all that goes with it.
func (m *Manager) readEarly(c *managed) {
	select {
	case m.early <- struct{}{}:
		defer func() { <-m.early }()
	case <-m.ctx.Done():
		return
	}
	found, err := m.loadBundle(m.ctx, c)
	if err != nil {
		m.log.Debug("loading a certificate that is asked for", "name", c.Names[0], "err", err)
	}
	if err != nil || !found.usable(time.Now()) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Serving() || c.act == nil || c.act.gone != nil {
		return
	}
	m.cache.Serve(&c.Entry, found.served(found.facts, nil))
	if c.act.cancel == nil { // no run is about to say more
		c.has.bundle = found.bundle
		c.has.flags.set(isServing, true)
		c.tellReadyLocked()
	}
}

// noteBroken has a certificate replaced that a handshake could not parse: its
// record was whole, so what was written must have been wrong. One that was
// replaced meanwhile is no matter.
func (m *Manager) noteBroken(e *certcache.Entry, source certcache.Source, err error) {
	c := asManaged(e)
	if c == nil {
		return
	}
	b, _ := source.(*bundle)
	if s, ok := source.(stapled); ok {
		b = s.bundle
	}
	const what = "a stored certificate cannot be parsed and will be replaced"
	c.mu.Lock()
	a := c.actionLocked()
	first := a.broken != b && a.gone == nil && c.has.served() == b
	if first {
		a.broken, a.degraded = b, degradedText(what, err)
	}
	c.mu.Unlock()
	if first {
		m.tellDegraded(c, what, err)
		m.queue.SetNow(c)
	}
}
