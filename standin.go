package certwright

import (
	"context"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/records"
)

// A standin serves some of a certificate's names from a bundle that has no more
// of them, while there is none for all: a name was added to the set. It is an
// entry of the cache that nobody manages.
type standin struct {
	certcache.Entry
	b *records.Bundle
}

// standinsFor returns what is stored for single names of c.
func (m *Manager) standinsFor(ctx context.Context, c *managed, cfg *settings, now time.Time) ([]*standin, error) {
	if len(c.Names) == 1 {
		return nil, nil
	}
	var list []*standin
	for _, name := range c.Names {
		b, err := m.covering(ctx, []string{name}, cfg, now)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(s *standin) bool { return s.b == b })
		switch {
		case b == nil:
		case i >= 0:
			list[i].Names = append(list[i].Names, name)
		default:
			list = append(list, &standin{certcache.Entry{Names: []string{name}, Rank: c.Rank}, b})
		}
	}
	return list, nil
}

// standLocked has list serve names of c until it has a certificate.
func (m *Manager) standLocked(c *managed, list []*standin) {
	m.endStandinsLocked(c)
	if len(list) == 0 {
		return
	}
	for _, s := range list {
		m.cache.Add(&s.Entry)
		m.cache.Serve(&s.Entry, servedOf(s.b))
	}
	c.trouble().standins = list
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
