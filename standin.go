package certwright

import (
	"context"
	"slices"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
	"github.com/certwright/certwright/internal/records"
)

// A standin serves some of a certificate's names, or some below its wildcard, from a
// bundle that has no more of them, while there is none for all: a name was added to
// the set, or the wildcard is new. It is an entry of the cache that nobody manages.
type standin struct {
	certcache.Entry
	b *records.Bundle
}

// mostBelow bounds how many names below a wildcard are looked for.
const mostBelow = 1000

// standinsFor returns what is stored for single names of c, and below its wildcards.
func (m *Manager) standinsFor(ctx context.Context, c *managed, cfg *settings) ([]*standin, error) {
	names := slices.Clone(c.Names)
	for _, name := range c.Names {
		if hostname.IsWildcard(name) {
			below, err := m.records.Below(ctx, name)
			if err != nil {
				return nil, err
			}
			names = append(names, below[:min(len(below), mostBelow)]...)
		}
	}
	if len(names) == 1 {
		return nil, nil
	}
	var list []*standin
	by := map[*records.Bundle]*standin{}
	for _, name := range names {
		b, err := m.covering(ctx, c, []string{name}, cfg)
		if err != nil {
			return nil, err
		}
		switch s := by[b]; {
		case b == nil:
		case s == nil:
			s = &standin{certcache.Entry{Names: []string{name}}, b}
			by[b], list = s, append(list, s)
		case !slices.Contains(s.Names, name):
			s.Names = append(s.Names, name)
		}
	}
	return list, nil
}

// standLocked has list serve names of c until it has a certificate.
func (m *Manager) standLocked(c *managed, list []*standin) {
	for _, s := range list {
		m.cache.Add(&s.Entry)
		m.cache.Serve(&s.Entry, servedOf(s.b, c.rank))
	}
	m.endStandinsLocked(c)
	if len(list) > 0 {
		c.trouble().standins = list
	}
}

// endStandinsLocked ends what was served for names of c.
func (m *Manager) endStandinsLocked(c *managed) {
	if c.why == nil {
		return
	}
	for _, s := range c.why.standins {
		m.cache.Remove(&s.Entry)
	}
	c.why.standins = nil
}

// isServed reports whether a client would accept what is served for each name of c.
func (c *managed) isServed(now int64) bool {
	return c.usable(now) || c.why != nil && !slices.ContainsFunc(c.Names, func(name string) bool {
		return !slices.ContainsFunc(c.why.standins, func(s *standin) bool { return s.b.Usable(now) && slices.Contains(s.Names, name) })
	})
}
