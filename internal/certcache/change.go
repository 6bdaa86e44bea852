package certcache

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/certwright/certwright/internal/hostname"
)

// Add puts entries in, pending. One that is in a Cache, or has no names, is
// passed over. A shard is copied once for all the entries given.
func (c *Cache) Add(entries ...*Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := make([]*Entry, 0, len(entries))
	for _, e := range entries {
		if !e.in && len(e.Names) > 0 {
			e.in = true
			if e.cell.Load() == nil {
				e.cell.Store(&cell{entry: e})
			}
			added = append(added, e)
		}
	}
	c.len += len(added)
	c.changeLocked(added, func(list []*Entry, e *Entry) []*Entry { return append(list, e) })
}

// Remove takes entries out; they serve nothing then. One that is not in the
// Cache is passed over. A shard is copied once for all the entries given.
func (c *Cache) Remove(entries ...*Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	removed := make([]*Entry, 0, len(entries))
	for _, e := range entries {
		if e.in {
			e.in = false
			c.swapLocked(e, nil)
			removed = append(removed, e)
		}
	}
	c.len -= len(removed)
	c.changeLocked(removed, func(list []*Entry, e *Entry) []*Entry {
		return slices.DeleteFunc(list, func(o *Entry) bool { return o == e })
	})
	c.soleLocked(nil)
}

// Serve has e serve something else, nothing when s is nil: a look-up meanwhile
// gets what was served before or what is served after. The parsed form of what
// was served before is forgotten. An Entry that is not in the Cache is passed
// over.
func (c *Cache) Serve(e *Entry, s *Served) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.in && c.swapLocked(e, s) {
		c.soleLocked(e)
	}
}

// changeLocked publishes shards with the entries of the given ones' names changed.
func (c *Cache) changeLocked(given []*Entry, change func(list []*Entry, e *Entry) []*Entry) {
	changed := make(map[*atomic.Pointer[shard]]*shard)
	for _, e := range given {
		for _, n := range e.Names {
			key, wild := strings.CutPrefix(n, "*.")
			at := c.at(key)
			s := changed[at]
			if s == nil {
				old := at.Load()
				s = &shard{maps.Clone(old.own), maps.Clone(old.wild)}
				changed[at] = s
			}
			cells := s.cells(wild)
			if *cells == nil {
				*cells = make(map[string]*cell)
			}
			list := slices.Clone((*cells)[key].entries(new([1]*Entry)))
			switch list = change(list, e); len(list) {
			case 0:
				delete(*cells, key)
			case 1:
				(*cells)[key] = list[0].cell.Load()
			default:
				(*cells)[key] = &cell{several: &list}
			}
		}
	}
	for at, s := range changed {
		at.Store(s)
	}
	c.version.Add(1)
}

// swapLocked replaces what e serves, and reports whether it serves something now
// and did not before, or the other way.
func (c *Cache) swapLocked(e *Entry, s *Served) bool {
	old := e.cell.Load().served.Swap(s)
	c.version.Add(1)
	if old != nil && old != s {
		c.cool(old)
	}
	if (old == nil) == (s == nil) {
		return false
	}
	by := 1
	if s == nil {
		by = -1
	}
	c.serving += by
	for _, n := range e.Names {
		if hostname.IsIP(n) {
			if c.ips[n] += by; c.ips[n] == 0 {
				delete(c.ips, n)
			}
		}
	}
	return true
}

// soleLocked finds out what Sole and SoleIP look up, after e, or several when it is
// nil, began or ceased to serve.
func (c *Cache) soleLocked(e *Entry) {
	ip := ""
	if len(c.ips) == 1 {
		for ip = range c.ips {
		}
	}
	store(&c.soleIP, ip)
	switch {
	case c.serving == 0:
		store(&c.sole, "")
		return
	case e != nil && e.Serving():
	case c.sole.Load() != nil:
		return // those that are left have the same names still
	default:
		for e = range c.All() {
			if e.Serving() {
				break
			}
		}
	}
	if c.haveAllLocked(e) {
		store(&c.sole, e.Names[0])
	} else {
		store(&c.sole, "")
	}
}

// haveAllLocked reports whether all that serve have the same names as e.
func (c *Cache) haveAllLocked(e *Entry) bool {
	n := 0
	list := c.Entries(e.Names[0])
	for _, o := range list {
		if o.Serving() {
			n++
		}
	}
	return n == c.serving && !slices.ContainsFunc(list, func(o *Entry) bool { return o.Serving() && !sameNames(o, e) })
}

// sameNames reports whether two entries have the same names, in any order.
func sameNames(a, b *Entry) bool {
	return len(a.Names) == len(b.Names) && !slices.ContainsFunc(a.Names, func(n string) bool { return !slices.Contains(b.Names, n) })
}

// store puts a name into p, nil for the empty one.
func store(p *atomic.Pointer[string], name string) {
	switch old := p.Load(); {
	case name == "":
		p.Store(nil)
	case old == nil || *old != name:
		p.Store(&name)
	}
}
