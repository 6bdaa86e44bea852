package certcache

import (
	"hash/maphash"
	"time"

	"github.com/certwright/certwright/internal/hostname"
)

// Add puts entries in, pending. One that is in a Cache, or has no names, is
// passed over. It costs about as much for n entries together as the copying of
// the shards that their names fall into; n calls copy a shard for every name.
func (c *Cache) Add(entries ...*Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := make([]*Entry, 0, len(entries))
	for _, e := range entries {
		if e.in || len(e.Names) == 0 {
			continue
		}
		c.seq++
		c.len++
		e.in, e.seq = true, c.seq
		if e.front.Load() == nil {
			e.front.Store(new(front))
		}
		added = append(added, e)
	}
	c.rebuildLocked(added, false)
}

// Remove takes entries out; they serve nothing then. One that is not in the
// Cache is passed over. The validity of those that stay for the same names is
// settled anew as of now, since one of them takes over.
func (c *Cache) Remove(now time.Time, entries ...*Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	removed := make([]*Entry, 0, len(entries))
	var beside []*Entry
	for _, e := range entries {
		if !e.in {
			continue
		}
		c.len--
		e.in = false
		c.serveLocked(now, e, Served{})
		beside = append(beside, c.besideLocked(e)...)
		removed = append(removed, e)
	}
	c.rebuildLocked(removed, true)
	for _, e := range beside {
		if e.in {
			c.reclassLocked(now, e)
		}
	}
	c.soleLocked(nil)
}

// Serve has e serve something else: a look-up meanwhile gets what was served
// before or what is served after. The parsed form of what was served before is
// forgotten. An Entry that is not in the Cache is passed over.
func (c *Cache) Serve(now time.Time, e *Entry, s Served) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.in {
		c.serveLocked(now, e, s)
		c.soleLocked(e)
	}
}

// Refresh settles anew, as of now, whether what e serves is valid.
func (c *Cache) Refresh(now time.Time, e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.in {
		c.reclassLocked(now, e)
	}
}

func (c *Cache) serveLocked(now time.Time, e *Entry, s Served) {
	e.notBefore, e.notAfter = s.NotBefore.Unix(), s.NotAfter.Unix()
	class := none
	if s.Source != nil {
		class = e.classAt(now)
	}
	was := e.class()
	c.hotMu.Lock()
	c.coolLocked(e)
	e.source = s.Source
	e.front.Load().set(class, s.Kind)
	c.hotMu.Unlock()
	c.settleLocked(e, was)
}

func (c *Cache) reclassLocked(now time.Time, e *Entry) {
	was := e.class()
	if class := e.classAt(now); was != none && class != was {
		f := e.front.Load()
		f.set(class, f.kind())
		c.settleLocked(e, was)
	}
}

// settleLocked brings what there is about the names of e up to date after a
// change of it; was is the class that it had.
func (c *Cache) settleLocked(e *Entry, was class) {
	began, ended := was == none && e.Serving(), was != none && !e.Serving()
	switch {
	case began:
		c.serving++
		c.names += len(e.Names)
	case ended:
		c.serving--
		c.names -= len(e.Names)
	}
	for _, name := range e.Names {
		key, _ := cutWildcard(name)
		hash := maphash.String(c.seed, key)
		s := c.shard(hash)
		t := s.table.Load()
		i := t.find(hash, key)
		if r := t.rankingOf(i); r != nil {
			made := rank(r.ofName(), r.ofWildcard())
			t.more[i].Store(made)
			c.recountLocked(key, r, made)
		} else {
			c.countLocked(key, began, ended)
		}
		s.version.Add(1)
	}
}

// recountLocked counts the names of a cell after its ranking has changed.
func (c *Cache) recountLocked(key string, old, made *ranking) {
	before, after := old.exact.served > 0, made.exact.served > 0
	c.countLocked(key, !before && after, before && !after)
	before, after = old.wild.served > 0, made.wild.served > 0
	c.countLocked(wildcard, !before && after, before && !after)
}

// countLocked counts a name for which serving began or ended. Of a wildcard, any
// text will do that is no IP address.
func (c *Cache) countLocked(name string, began, ended bool) {
	switch {
	case began:
		c.distinct++
		if hostname.IsIP(name) {
			c.ips[name] = struct{}{}
		}
	case ended:
		c.distinct--
		delete(c.ips, name)
	}
}

// soleLocked settles which names Sole and SoleIP look up, after a change of e or,
// when e is nil, of several. No entry has more names than there are different
// ones, so all have the same when each has as many.
func (c *Cache) soleLocked(e *Entry) {
	switch {
	case c.serving == 0 || c.names != c.serving*c.distinct:
		c.sole.Store(nil)
	case c.sole.Load() != nil: // those that are left, or have come, have the same names
	default:
		if e == nil || !e.Serving() {
			e = c.anyServingLocked()
		}
		name := e.Names[0]
		c.sole.Store(&name)
	}
	if len(c.ips) != 1 {
		c.soleIP.Store(nil)
		return
	}
	for name := range c.ips {
		if p := c.soleIP.Load(); p == nil || *p != name {
			c.soleIP.Store(&name)
		}
	}
}

// anyServingLocked finds an entry that serves something; there is one.
func (c *Cache) anyServingLocked() *Entry {
	for i := range c.shards {
		for _, e := range c.inShardLocked(i) {
			if e.Serving() {
				return e
			}
		}
	}
	return nil
}

// besideLocked returns the entries that have a name of e.
func (c *Cache) besideLocked(e *Entry) []*Entry {
	var out []*Entry
	for _, name := range e.Names {
		key, wild := cutWildcard(name)
		if v := c.view(key); wild {
			out = append(out, v.rank.ofWildcard()...)
		} else {
			out = append(out, v.rank.ofName()...)
		}
	}
	return out
}
