// Package certcache is an index of the certificates that are served. It finds
// the one for a handshake without a lock, an allocation or a look at the clock,
// and keeps in parsed form only those that are in use.
//
// Names are spread over shards, each a hash table behind an atomic pointer, whose
// cells point to the entries, which their owner keeps. A look-up loads pointers
// and reads; adding and removing entries copies the few tables that they touch;
// what an entry serves is swapped in the entry itself. Whether a certificate is
// valid now is settled when it is served or refreshed, so whoever owns a Cache
// calls [Cache.Refresh] when an entry's NotBefore or NotAfter passes.
//
// A certificate is parsed by its [Source] when it is first asked for. When there
// are as many parsed ones as [New] allows, the next one takes the place of one
// that has not been asked for lately.
package certcache

import (
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/certwright/certwright/internal/hostname"
)

const (
	shardBits = 8
	wildcard  = "*."
)

// A Cache maps names to entries. Entries leave it by [Cache.Remove] only; what
// the bound of [New] limits is how many of them are parsed. It is safe for
// concurrent use; make it with [New].
type Cache struct {
	// OnError, when not nil, is told of an entry and its [Source] that failed, in
	// place of which the entry may serve another by then. It is set
	// before use, called on the goroutine of a look-up, and with no lock held.
	OnError func(e *Entry, source Source, err error)

	seed   maphash.Seed
	maxHot int
	shards [1 << shardBits]shard
	sole   atomic.Pointer[string] // the name that Sole looks up
	soleIP atomic.Pointer[string]

	mu       sync.Mutex // guards what follows and what entries say, and is held to change what is above
	seq      uint64
	len      int
	serving  int                 // entries that serve something
	names    int                 // all names of these together
	distinct int                 // different ones of those
	ips      map[string]struct{} // those of them that are IP addresses

	hotMu sync.Mutex // guards what follows and what entries say; taken after mu, held for moments only
	ring  []*Entry   // those with a parsed form
	hand  int
	thaws map[*Entry]*thaw
}

// A shard has the names whose hashes begin alike.
type shard struct {
	table atomic.Pointer[table]
	// version counts changes of what the shard's look-ups find. A look-up that
	// found nothing, in several steps, begins again when it has changed.
	version atomic.Uint64
}

// New returns an empty Cache that keeps at most maxHot certificates in parsed
// form, any number when maxHot is not positive.
func New(maxHot int) *Cache {
	c := &Cache{
		seed:   maphash.MakeSeed(),
		maxHot: maxHot,
		ips:    make(map[string]struct{}),
		thaws:  make(map[*Entry]*thaw),
	}
	empty := new(builder).table()
	for i := range c.shards {
		c.shards[i].table.Store(empty)
	}
	return c
}

// Len returns the number of entries.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.len
}

// Hot returns the number of certificates that are in parsed form.
func (c *Cache) Hot() int {
	c.hotMu.Lock()
	defer c.hotMu.Unlock()
	return len(c.ring)
}

// Entries returns the entries, pending or not, that have exactly this name,
// which may be a wildcard, in the order in which they are served.
func (c *Cache) Entries(name string) []*Entry {
	key, wild := cutWildcard(name)
	v := c.view(key)
	switch {
	case wild:
		return slices.Clone(v.rank.ofWildcard())
	case v.only != nil:
		return []*Entry{v.only}
	}
	return slices.Clone(v.rank.ofName())
}

// All returns all entries, each once, in no order. Entries that come or go
// meanwhile may be among them or not. The Cache may be used and changed in the
// loop.
func (c *Cache) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := range c.shards {
			c.mu.Lock()
			entries := c.inShardLocked(i)
			c.mu.Unlock()
			if slices.ContainsFunc(entries, func(e *Entry) bool { return !yield(e) }) {
				return
			}
		}
	}
}

// inShardLocked returns the entries whose first name is in a shard.
func (c *Cache) inShardLocked(i int) []*Entry {
	t := c.shards[i].table.Load()
	out := make([]*Entry, 0, t.used)
	for j := range t.cells {
		cl, r := &t.cells[j], t.rankingOf(j)
		exact := r.ofName()
		if r == nil && cl.only != nil {
			exact = []*Entry{cl.only}
		}
		for _, e := range exact {
			if e.Names[0] == cl.name {
				out = append(out, e)
			}
		}
		for _, e := range r.ofWildcard() {
			if key, wild := cutWildcard(e.Names[0]); wild && key == cl.name {
				out = append(out, e)
			}
		}
	}
	return out
}

// shard picks by the high bits of a hash.
func (c *Cache) shard(hash uint64) *shard {
	return &c.shards[hash>>(64-shardBits)]
}

// A view is what there was for a name in its shard at one moment. The zero view
// has nothing.
type view struct {
	only    *Entry   // the one entry of the name itself, unless there are several
	rank    *ranking // nil when only is all
	shard   *shard
	version uint64
}

func (c *Cache) view(name string) view { return c.viewHashed(maphash.String(c.seed, name), name) }

func (c *Cache) viewHashed(hash uint64, name string) view {
	s := c.shard(hash)
	v := view{shard: s, version: s.version.Load()}
	t := s.table.Load()
	if i := t.find(hash, name); i >= 0 {
		v.only, v.rank = t.cells[i].only, t.rankingOf(i)
	}
	return v
}

// above is the view that has the wildcard above a name.
func (c *Cache) above(name string) view {
	if parent := hostname.Parent(name); parent != "" {
		return c.view(parent)
	}
	return view{}
}

// unchanged reports whether nothing has changed in the shard since the view was
// taken.
func (v *view) unchanged() bool { return v.shard == nil || v.shard.version.Load() == v.version }
