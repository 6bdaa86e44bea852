package certcache

import (
	"crypto/tls"
	"errors"
	"hash/maphash"
)

var errNoCertificate = errors.New("the source has no certificate")

// certificate returns the certificate that s, which e serves, stands for, parsed
// now if need be, and nil when it cannot be parsed.
func (c *Cache) certificate(e *Entry, s *Served) *tls.Certificate {
	if cert := s.parsed(); cert != nil {
		return cert
	}
	cert, err := c.parse(e, s)
	if err != nil && c.OnError != nil {
		c.OnError(e, s.Source, err)
	}
	return cert
}

// parse parses what is packed, once for all who ask meanwhile. An error is
// returned to one of them.
func (c *Cache) parse(e *Entry, s *Served) (*tls.Certificate, error) {
	mu := &c.parsing[maphash.String(c.seed, e.Names[0])%locks]
	mu.Lock()
	defer mu.Unlock()
	if cert := s.parsed(); cert != nil || s.state.Load() == broken {
		return cert, nil
	}
	cert, err := s.Source.Certificate()
	if err == nil && cert == nil {
		err = errNoCertificate
	}
	if err != nil {
		s.state.Store(broken)
		return nil, err
	}
	c.heat(e, s, cert)
	return cert, nil
}

// heat keeps the parsed form of what e serves, in place of that of another when
// there are as many as may be. What is not served any more is not kept.
func (c *Cache) heat(e *Entry, s *Served, cert *tls.Certificate) {
	c.hotMu.Lock()
	defer c.hotMu.Unlock()
	if e.served() != s { // else it is there until cool comes for it
		return
	}
	if c.maxHot > 0 && len(c.hot) >= c.maxHot {
		c.coolAnyLocked()
	}
	s.state.Store(idle)
	s.hot.Store(cert)
	c.hot[s] = struct{}{}
}

// coolAnyLocked forgets the parsed form of one that had no hit since the last
// search met it, else of the last one met. A search begins anywhere and passes
// each at most once.
func (c *Cache) coolAnyLocked() {
	var found *Served
	for found = range c.hot {
		if found.state.Swap(idle) == idle {
			break
		}
	}
	c.coolLocked(found)
}

// cool forgets the parsed form of what is not served any more.
func (c *Cache) cool(s *Served) {
	c.hotMu.Lock()
	defer c.hotMu.Unlock()
	c.coolLocked(s)
}

func (c *Cache) coolLocked(s *Served) {
	s.hot.Store(nil)
	delete(c.hot, s)
}
