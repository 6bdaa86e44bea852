package certwright

import (
	"context"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/schedule"
)

// plan is a checked Spec.
type plan struct {
	name  string   // the first
	names []string // all; nil when there is but one
	how   *how
}

// all returns the names. Those of a plan for one name are in the slice given,
// which has room for them.
func (p *plan) all(room []string) []string {
	if p.names != nil {
		return p.names
	}
	return append(room, p.name)
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
func (m *Manager) add(ctx context.Context, plans []plan, w *callWait) error {
	if err := m.settle(ctx); err != nil {
		return err
	}
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
	for i := range plans {
		for rank, t := range plans[i].how.keyTypes {
			c := b.entryLocked(&plans[i], t, rank)
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
	names []string // room for the names of new ones
	made  int      // new ones
}

// entryLocked returns the managed certificate for a plan and key type. It needs
// the Manager's mu.
func (b *batch) entryLocked(p *plan, t KeyType, rank int) *managed {
	var one [1]string
	id := certID(p.all(one[:0]), t)
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
	if len(b.free) == 0 { // few of many are new when a list is given once more
		n := min(b.made+1, slab)
		b.free, b.names = make([]managed, n), make([]string, n)
	}
	c, b.free = &b.free[0], b.free[1:]
	c.m, c.keyType, c.set = b.m, t.index(), p.how.set
	c.Names, c.Rank, c.Owner = p.all(b.names[:0:1]), uint8(rank), c
	b.names = b.names[1:]
	b.made++
	c.has.next, c.has.nextAt = stepLoad, b.now
	b.added = append(b.added, &c.Entry)
	if b.ids != nil {
		b.ids[id] = c
	}
	return c
}
