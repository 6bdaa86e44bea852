package certcache

import (
	"crypto/tls"
	"errors"
)

// A thaw is one run of an entry's Source, for all who ask meanwhile. Its cert is
// written before done is closed.
type thaw struct {
	done chan struct{}
	cert *tls.Certificate
}

var errNoCertificate = errors.New("the source has no certificate")

// certificate returns the certificate of an entry, parsed now if need be, and
// nil when it serves nothing or cannot be parsed.
func (c *Cache) certificate(e *Entry) *tls.Certificate {
	f := e.front.Load()
	if cert := f.parsed(); cert != nil {
		return cert
	}
	c.hotMu.Lock()
	cert, source, running := f.hot.Load(), e.source, c.thaws[e]
	if cert != nil || source == nil {
		c.hotMu.Unlock()
		return cert
	}
	if running != nil {
		c.hotMu.Unlock()
		<-running.done
		return running.cert
	}
	t := &thaw{done: make(chan struct{})}
	c.thaws[e] = t
	c.hotMu.Unlock()
	if err := c.run(e, t, source); err != nil && c.OnError != nil {
		c.OnError(e, source, err)
	}
	return t.cert
}

// run does a thaw. When the source panics, those who wait get nothing.
func (c *Cache) run(e *Entry, t *thaw, source Source) error {
	defer c.finish(e, t)
	cert, err := source.Certificate()
	if err == nil && cert == nil {
		err = errNoCertificate
	}
	if err == nil {
		t.cert = cert
	}
	return err
}

// finish makes an entry hot, unless it serves something else by now.
func (c *Cache) finish(e *Entry, t *thaw) {
	defer close(t.done)
	c.hotMu.Lock()
	defer c.hotMu.Unlock()
	if c.thaws[e] != t {
		return
	}
	delete(c.thaws, e)
	if t.cert != nil {
		c.heatLocked(e, t.cert)
	}
}

// heatLocked makes a cold entry hot in place of the next one that is not in use
// when there are as many as may be.
func (c *Cache) heatLocked(e *Entry, cert *tls.Certificate) {
	at := len(c.ring)
	if c.maxHot > 0 && at >= c.maxHot {
		at = c.coldestLocked()
		c.ring[at].front.Load().hot.Store(nil)
		c.ring[at].ring = 0
		c.ring[at] = e
	} else {
		c.ring = append(c.ring, e)
	}
	e.ring = uint32(at + 1)
	f := e.front.Load()
	f.used.Store(0)
	f.hot.Store(cert)
}

// coldestLocked turns the hand of the clock up to an entry that nobody has used
// since it last passed, and one further. It turns once around at most, however
// busy all of them are meanwhile.
func (c *Cache) coldestLocked() int {
	for turned := 0; ; turned++ {
		at := c.hand
		if c.hand++; c.hand == len(c.ring) {
			c.hand = 0
		}
		if c.ring[at].front.Load().used.Swap(0) == 0 || turned == len(c.ring) {
			return at
		}
	}
}

// coolLocked forgets the parsed form of an entry, and a thaw that runs.
func (c *Cache) coolLocked(e *Entry) {
	delete(c.thaws, e)
	if e.ring == 0 {
		return
	}
	e.front.Load().hot.Store(nil)
	end := len(c.ring) - 1
	moved := c.ring[end]
	c.ring[e.ring-1] = moved
	moved.ring, e.ring = e.ring, 0
	c.ring[end] = nil
	c.ring = c.ring[:end]
	if c.hand >= end {
		c.hand = 0
	}
}
