// Package certcache is an index of the certificates that are served. It finds
// the one for a handshake without a lock or an allocation (but for what crypto/tls
// needs to choose where a name has several), and keeps in parsed form only
// those that are in use.
//
// Names are spread over shards. A shard is a few plain maps that never change
// once a look-up can see them: adding and removing entries publishes changed
// copies of the shards that their names fall into. What an entry serves is
// swapped in the entry itself. Whether a certificate is valid is judged by the
// clock at each look-up, so that nothing has to be told when one begins or ends.
//
// A certificate is parsed by its [Source] when it is first asked for. When there
// are as many parsed ones as [New] allows, the next one takes the place of one
// that has not been asked for lately.
package certcache

import (
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	shards = 1024 // at 100,000 names, adding one copies about a hundred
	locks  = 64
)

// A Cache maps names to entries. Entries leave it by [Cache.Remove] only; what
// the bound of [New] limits is how many of them are parsed. It is safe for
// concurrent use; make it with [New].
type Cache struct {
	// OnError, when not nil, is told of an entry and its [Source] that failed, in
	// place of which the entry may serve another by then. It is set before use,
	// called on the goroutine of a look-up, and with no lock held.
	OnError func(e *Entry, source Source, err error)

	seed    maphash.Seed
	shards  [shards]atomic.Pointer[shard]
	version atomic.Uint64          // counts changes; a look-up that found nothing begins again after one
	sole    atomic.Pointer[string] // what Sole looks up; nil: nothing
	soleIP  atomic.Pointer[string]

	mu      sync.Mutex     // guards what follows and Entry.in; held for all changes of what is above
	len     int            // entries
	serving int            // entries that serve something
	ips     map[string]int // IP addresses among the names of those, with how many have each

	parsing [locks]sync.Mutex // by an entry's first name; held while it is parsed, so that it is parsed once

	hotMu  sync.Mutex           // taken after mu and parsing, held for moments only; guards hot
	hot    map[*Served]struct{} // those with a parsed form
	maxHot int
}

// A shard has the names whose hashes are alike. It is immutable.
type shard struct {
	own  map[string]*cell // by name
	wild map[string]*cell // wildcards, by what follows "*."
}

// A cell is what a name leads to. Cells are apart from entries so that many are
// in the processor's cache, where they win most of a look-up's time.
type cell struct {
	served  atomic.Pointer[Served] // what entry serves; nil: nothing
	entry   *Entry
	several *[]*Entry // not nil: the name has these, in the order of Add, and no entry of its own
}

// New returns an empty Cache that keeps at most maxHot certificates in parsed
// form, any number when maxHot is not positive.
func New(maxHot int) *Cache {
	c := &Cache{seed: maphash.MakeSeed(), maxHot: maxHot, ips: make(map[string]int), hot: make(map[*Served]struct{})}
	empty := new(shard)
	for i := range c.shards {
		c.shards[i].Store(empty)
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
	return len(c.hot)
}

// Entries returns the entries, pending or not, that have exactly this name,
// which may be a wildcard, in the order of Add.
func (c *Cache) Entries(name string) []*Entry {
	key, wild := strings.CutPrefix(name, "*.")
	cells := *c.at(key).Load().cells(wild)
	return slices.Clone(cells[key].entries(new([1]*Entry)))
}

// All returns all entries, each once, in no order. Entries that come or go
// meanwhile may be among them or not. The Cache may be used and changed in the
// loop.
func (c *Cache) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := range c.shards {
			s := c.shards[i].Load()
			if !all("", s.own, yield) || !all("*.", s.wild, yield) {
				return
			}
		}
	}
}

// at returns where the shard of a key is.
func (c *Cache) at(key string) *atomic.Pointer[shard] {
	return &c.shards[maphash.String(c.seed, key)%shards]
}

// load returns the shard of a key.
func (c *Cache) load(key []byte) *shard { return c.shards[maphash.Bytes(c.seed, key)%shards].Load() }

func (s *shard) cells(wild bool) *map[string]*cell {
	if wild {
		return &s.wild
	}
	return &s.own
}

// entries returns those that a name leads to; room is for one alone.
func (c *cell) entries(room *[1]*Entry) []*Entry {
	switch {
	case c == nil:
		return nil
	case c.several != nil:
		return *c.several
	}
	room[0] = c.entry
	return room[:]
}

// all yields the entries of cells whose first name is the prefix and a key.
func all(prefix string, cells map[string]*cell, yield func(*Entry) bool) bool {
	var room [1]*Entry
	for key, cl := range cells {
		for _, e := range cl.entries(&room) {
			first, ok := strings.CutPrefix(e.Names[0], prefix)
			if ok && first == key && !yield(e) {
				return false
			}
		}
	}
	return true
}
