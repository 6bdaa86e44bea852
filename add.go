package certwright

import (
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/schedule"
)

// plan is a checked Spec.
type plan struct {
	names []string
	how   *how
}

// how is what plans have in common.
type how struct {
	keyTypes []KeyType
	set      *settings
}

// slab is how many managed certificates are allocated together: a start with
// many names spends less on it, and few are kept by one that stays.
const slab = 36

// add puts plans under management and has each looked at. w is told how that
// ends; nil means that nobody waits.
func (m *Manager) add(plans []plan, w *callWait) error {
	m.settle()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed {
		return ErrClosed
	}
	m.addLocked(plans, w)
	return nil
}

func (m *Manager) addLocked(plans []plan, w *callWait) {
	b := batch{m: m, now: nanos(time.Now())}
	if len(plans) > 1 {
		b.ids = make(map[string]*managed, len(plans))
	}
	b.all = make([]schedule.Work, 0, len(plans))
	b.added = make([]*certcache.Entry, 0, len(plans))
	for _, p := range plans {
		for rank, t := range p.how.keyTypes {
			c := b.entryLocked(p, t, rank)
			if w != nil {
				c.mu.Lock()
				c.waitLocked(waiter{call: w, i: len(b.all)})
				c.mu.Unlock()
			}
			b.all = append(b.all, c)
		}
	}
	m.cache.Add(b.added...)
	m.queue.SetNow(b.all...)
}

// batch is what one call puts under management.
type batch struct {
	m     *Manager
	now   int64
	ids   map[string]*managed // of this batch; nil when it has but one plan
	all   []schedule.Work
	added []*certcache.Entry
	free  []managed
}

// entryLocked returns the managed certificate for a plan and key type. It needs
// the Manager's mu.
func (b *batch) entryLocked(p plan, t KeyType, rank int) *managed {
	id := certID(p.names, t)
	c := b.ids[id]
	if c == nil {
		c = b.m.find(id)
	}
	if c != nil {
		c.mu.Lock()
		c.set = p.how.set
		c.mu.Unlock()
		return c
	}
	if len(b.free) == 0 {
		n := 1
		if b.ids != nil {
			n = slab
		}
		b.free = make([]managed, n)
	}
	c, b.free = &b.free[0], b.free[1:]
	c.m, c.keyType, c.set = b.m, t.index(), p.how.set
	c.Names, c.Rank, c.Owner = p.names, uint8(rank), c
	c.has.next, c.has.nextAt = stepLoad, b.now
	b.added = append(b.added, &c.Entry)
	if b.ids != nil {
		b.ids[id] = c
	}
	return c
}
