package certwright

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/records"
)

// found is what storage has for a certificate.
type found struct {
	b      *records.Bundle // nil: none
	prev   *records.Bundle // to be served until the time of b has come; nil: none
	broken bool            // b is damaged, and to be replaced
	from   Event           // what is told of it; its Kind is empty when nothing is
	parts  []*standin      // what serves single names while b is nil
}

// load reads what storage has for c: what is stored for it, else what covers its
// names, else what another program has.
func (m *Manager) load(ctx context.Context, c *managed) func(*news) {
	c.mu.Lock()
	first, had, cfg := c.know&isLoaded == 0, c.newest(), c.cfg
	c.readAt = 0 // what is changed from here on is read once more
	c.mu.Unlock()
	f, err := m.find(ctx, c, cfg)
	if err != nil {
		return m.loadFailed(c, err)
	}
	if had != nil && (f.b == nil || !f.b.Same(had) && f.b.Stored < had.Stored && f.b.NotBefore < had.NotBefore) {
		if err := m.putBack(ctx, c, had); err != nil {
			return m.loadFailed(c, err)
		}
		f = found{}
	}
	if had != nil && f.b != nil && cfg.wants(had) && !cfg.wants(f.b) && had.Usable(time.Now().Unix()) {
		f = found{} // of an instance with other issuers: neither is to replace what the other wants, over and over
	}
	prevStaple, staple := m.neededStaple(ctx, c, f.prev), m.neededStaple(ctx, c, f.b)
	return func(n *news) {
		now := time.Now().Unix()
		c.know |= isLoaded
		c.wellLocked()
		if f.prev != nil && !c.usable(now) {
			c.next, c.trouble().staple = f.prev, prevStaple
			m.installLocked(c)
		}
		if f.b != nil && f.b.End <= now && c.usable(now) {
			c.trouble().broken = c.cur.b // which is good, and not the newest: another is wanted
			f.b = nil
		}
		if f.b != nil && !f.b.Same(c.newest()) {
			c.next, c.ocspAt, c.trouble().staple = f.b, 0, staple
			if c.why != nil && !first && now < renewalTime(f.b, nil, c.cfg.policy) {
				c.why.tries, c.why.orders = nil, nil // they were for what is there now
			}
			if f.from.Kind == "" && !first {
				f.from.Kind = EventAdopted // by another instance
			}
		}
		if f.broken {
			c.trouble().broken = c.newest()
		}
		m.standLocked(c, f.parts)
		c.judge()
		if f.from.Kind != "" {
			n.add(func() { m.emit(c, f.from) })
		}
	}
}

// find looks for a certificate in the order in which one is to be preferred: what
// is stored for c, what covers all of its names, what another program has, what
// covers some of them.
func (m *Manager) find(ctx context.Context, c *managed, cfg *settings) (found, error) {
	now := time.Now()
	f, err := m.own(ctx, c, now)
	if err != nil {
		return found{}, err
	}
	if f.b != nil && !cfg.wants(f.b) && forTests(f.b.CA()) {
		f = found{} // as none, for any other CA: what it replaced was kept
		if s, err := m.records.LoadPrevious(ctx, c.id()); err == nil && s.Usable(now.Unix()) && !forTests(s.CA()) {
			f.b = s.Bundle
		}
	}
	if f.b != nil && (f.b.Usable(now.Unix()) || f.prev != nil) {
		return f, nil
	}
	b, err := m.covering(ctx, c, c.Names, cfg)
	if err != nil || b != nil {
		return found{b: b}, err
	}
	b, err = m.adopt(ctx, c, cfg)
	if err != nil {
		return found{}, err
	}
	if b != nil {
		return found{b: b, from: Event{Kind: EventAdopted}}, nil
	}
	f.parts, err = m.standinsFor(ctx, c, cfg)
	return f, err
}

// covering returns the best stored bundle that covers names of c, nil when there is
// none: one with the key type of c goes before any other. One of a test CA counts as
// none for any other CA.
func (m *Manager) covering(ctx context.Context, c *managed, names []string, cfg *settings) (best *records.Bundle, err error) {
	list, err := m.records.Covering(ctx, names, time.Now())
	for _, s := range list {
		if !cfg.wants(s.Bundle) && forTests(s.CA()) {
			continue
		}
		if s.KeyType() == c.key() {
			return s.Bundle, nil
		}
		if best == nil {
			best = s.Bundle
		}
	}
	if isMissing(err) { // no name is given up for a list
		m.degraded(c, doLoad, "what else is stored is not known; the name goes on without", err)
		err = nil
	}
	return best, err
}

// own returns what is stored under the very identity of c. What is damaged is
// told, served as far as it can be, and replaced.
func (m *Manager) own(ctx context.Context, c *managed, now time.Time) (found, error) {
	s, err := m.records.LoadBundle(ctx, c.id(), now)
	f := found{b: s.Bundle, prev: s.Prev}
	var damaged *records.DamagedError
	switch {
	case errors.As(err, &damaged):
		m.degraded(c, doLoad, "a stored certificate is damaged and will be replaced", err)
		f.broken = f.b != nil
	case isNewer(err) && f.b != nil:
		m.log.Warn("a stored certificate was written by a newer version: it is served and not replaced", "name", c.Names[0], "err", err)
	case err != nil && !isNotExist(err):
		return found{}, err
	case s.Mended != nil:
		m.degraded(c, doLoad, "a stored certificate was changed by other means; it is written anew", s.Mended)
		if err := m.mend(ctx, c); err != nil {
			m.log.Warn("a stored certificate could not be written anew", "name", c.Names[0], "err", err)
		}
	}
	if f.b != nil {
		f.b.ShareNames(c.Names)
	}
	return f, nil
}

// mend writes a bundle anew that was changed by hand.
func (m *Manager) mend(ctx context.Context, c *managed) error {
	return m.underLease(ctx, records.IssueLock(c.id()), func(ctx context.Context) error {
		s, err := m.records.LoadBundle(ctx, c.id(), time.Now())
		if err != nil || s.Mended == nil {
			return err
		}
		return m.records.StoreBundle(ctx, s)
	})
}

// loadFailed puts off what could not be read.
func (m *Manager) loadFailed(c *managed, err error) func(*news) {
	if m.ctx.Err() != nil {
		return func(*news) {}
	}
	return func(n *news) { m.unreadLocked(c, err, n) }
}

// unreadLocked has storage read once more for c, after a pause.
func (m *Manager) unreadLocked(c *managed, err error, n *news) {
	c.readAt = time.Now().Unix()
	m.troubleLocked(c, fmt.Errorf("loading the certificate for %q: %w", c.Names[0], err), n)
}

// putBack stores b once more, which somebody who had lost its lease replaced by
// an older one.
func (m *Manager) putBack(ctx context.Context, c *managed, b *records.Bundle) error {
	return m.underLease(ctx, records.IssueLock(b.ID()), func(ctx context.Context) error {
		s, err := m.records.LoadBundle(ctx, b.ID(), time.Now())
		if err == nil && s.Stored >= b.Stored {
			return nil // somebody was faster; the next look finds it
		}
		if err != nil && !isMissing(err) {
			return err
		}
		m.log.Warn("an older certificate came back in storage; the newer one is stored again", "name", c.Names[0], "serial", b.Serial())
		// What the issuer needed to know of it is gone with the record.
		if err := m.records.StoreBundle(ctx, records.Stored{Bundle: b}); err != nil {
			return err
		}
		m.noteChange(b.ID())
		return nil
	})
}

// servedOf returns b as the cache serves it, without a staple.
func servedOf(b *records.Bundle, rank uint8) *certcache.Served {
	return &certcache.Served{Source: b, NotBefore: b.NotBefore, End: b.End, Rank: rank}
}

// stapled is a certificate with an OCSP response, for the cache.
type stapled struct {
	*records.Bundle
	staple []byte
}

// Certificate implements certcache.Source.
func (s stapled) Certificate() (*tls.Certificate, error) {
	cert, err := s.Bundle.Certificate()
	if err != nil {
		return nil, err
	}
	with := *cert
	with.OCSPStaple = s.staple
	return &with, nil
}

// noteBroken has a certificate replaced that a handshake could not parse: its
// record was whole, so what was written must have been wrong. One that was
// replaced meanwhile is no matter.
func (m *Manager) noteBroken(e *certcache.Entry, source certcache.Source, err error) {
	c := asManaged(e)
	if c == nil {
		return
	}
	b, _ := source.(*records.Bundle)
	if s, ok := source.(stapled); ok {
		b = s.Bundle
	}
	first := false
	m.change(c, func(n *news) {
		if c.isGone() || c.cur.b != b || c.why != nil && c.why.broken == b {
			return
		}
		c.trouble().broken = b
		first = true
	})
	if first {
		m.degraded(c, doLoad, "a stored certificate cannot be parsed and will be replaced", err)
	}
}
