// Package certcache holds the certificates that are served, and finds the one
// for a handshake without a lock, an allocation or a look at the clock.
//
// Names are spread over shards, each an immutable hash table behind an atomic
// pointer. A look-up loads a pointer and reads; a change copies the few shards
// that it touches. Whether a certificate is valid now is settled when it is
// installed or refreshed, so whoever owns a Cache calls [Cache.Refresh] when an
// entry's NotBefore or NotAfter passes.
package certcache

import (
	"crypto/tls"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/hostname"
)

// An Entry is one certificate with the names that it is served for.
type Entry struct {
	// Cert is served as it is; its Leaf should be set. An Entry without one is
	// not installed.
	Cert *tls.Certificate
	// NotBefore and NotAfter bound the time in which Cert is valid, both inclusive
	// (RFC 5280 §4.1.2.5).
	NotBefore, NotAfter time.Time
	// ID tells this entry from all others: installing an entry replaces the one
	// with the same ID. An Entry without one is not installed.
	ID string
	// Names are normalised (package hostname); wildcards and IP addresses are
	// names too.
	Names []string
	// Managed is for the owner of the Cache, which does not look at it.
	Managed bool
	// Rank orders entries of one name that are equally valid and have the same
	// kind of key; the lowest wins.
	Rank int
}

const (
	shardBits = 8
	wildcard  = "*."
)

// A Cache maps names to certificates. It is unbounded: nothing leaves it but by
// [Cache.Remove]. It is safe for concurrent use; make it with [New].
type Cache struct {
	seed   maphash.Seed
	shards [1 << shardBits]atomic.Pointer[table]
	sole   atomic.Pointer[tls.Certificate]
	soleIP atomic.Pointer[tls.Certificate]

	mu     sync.Mutex          // guards what follows, and is held to change what is above
	byID   map[string]*item    // all entries
	byName map[string][]*item  // never an empty list
	ips    map[string]struct{} // the names that are IP addresses
	sets   map[string]int      // entries for each set of names
}

// New returns an empty Cache.
func New() *Cache {
	c := &Cache{
		seed:   maphash.MakeSeed(),
		byID:   make(map[string]*item),
		byName: make(map[string][]*item),
		ips:    make(map[string]struct{}),
		sets:   make(map[string]int),
	}
	empty := newTable(0)
	for i := range c.shards {
		c.shards[i].Store(empty)
	}
	return c
}

// Lookup returns the certificate to serve for a normalised name, or nil when
// there is none. A valid certificate for the name itself comes before a valid
// one for its wildcard, that before one for the name that is not valid now, and
// last comes a wildcard that is not.
//
// When several certificates are equally good in that, it is the first that
// hello supports, or just the first when hello is nil or supports none: ECDSA
// before RSA before others, then by Rank, then the newest. With one alone hello
// is not asked. Where no one is valid, those that are not yet come before those
// that no longer are.
func (c *Cache) Lookup(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	h := maphash.String(c.seed, name)
	exact := find(c.shard(h).Load(), h, name)
	if exact != nil && exact.exact.valid > 0 {
		return exact.exact.pick(hello)
	}
	if parent := hostname.Parent(name); parent != "" {
		h = maphash.String(c.seed, parent)
		wild := find(c.shard(h).Load(), h, parent)
		if wild != nil && (wild.wild.valid > 0 || exact == nil || exact.exact.first == nil) {
			return wild.wild.pick(hello)
		}
	}
	if exact == nil {
		return nil
	}
	return exact.exact.pick(hello)
}

// LookupIP returns what [Cache.Lookup] returns for the text of an address. Its
// zone does not count, and an IPv4-mapped IPv6 address counts as IPv4. The zero
// Addr has no certificate.
func (c *Cache) LookupIP(addr netip.Addr, hello *tls.ClientHelloInfo) *tls.Certificate {
	if !addr.IsValid() {
		return nil
	}
	var buf [64]byte
	text := addr.Unmap().WithZone("").AppendTo(buf[:0])
	h := maphash.Bytes(c.seed, text)
	if s := find(c.shard(h).Load(), h, text); s != nil {
		return s.exact.pick(hello)
	}
	return nil
}

// Sole returns the certificate to serve to a client that names none: the best
// one when all entries are for the same names, and nil otherwise.
func (c *Cache) Sole() *tls.Certificate { return c.sole.Load() }

// SoleIP returns the best certificate for the one IP address among the names,
// and nil when there are none or several.
func (c *Cache) SoleIP() *tls.Certificate { return c.soleIP.Load() }

// Install adds entries, each in place of the one with its ID if there is one.
// It costs about as much for n entries together as the copying of the shards
// they fall into; n calls copy a shard for every name. Lookups meanwhile see
// each name before or after the change, never without a certificate that it had
// and has.
func (c *Cache) Install(now time.Time, entries ...Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	touched := make(map[string]struct{})
	for _, e := range entries {
		if e.Cert == nil || e.ID == "" {
			continue
		}
		c.removeLocked(e.ID, touched)
		c.addLocked(newItem(e), touched)
	}
	c.publishLocked(now, touched)
}

// Remove takes entries out. Unknown IDs are passed over.
func (c *Cache) Remove(now time.Time, ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	touched := make(map[string]struct{})
	for _, id := range ids {
		c.removeLocked(id, touched)
	}
	c.publishLocked(now, touched)
}

// Refresh settles anew, as of now, what is valid among the certificates of the
// names of these entries. Unknown IDs are passed over.
func (c *Cache) Refresh(now time.Time, ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	touched := make(map[string]struct{})
	for _, id := range ids {
		if it := c.byID[id]; it != nil {
			touch(touched, it)
		}
	}
	c.publishLocked(now, touched)
}

// Len returns the number of entries.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

// Names returns all names that have an entry, sorted.
func (c *Cache) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.byName))
}

// Get returns the entry with an ID and reports whether there is one.
func (c *Cache) Get(id string) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.byID[id]
	if it == nil {
		return Entry{}, false
	}
	e := it.Entry
	e.Names = slices.Clone(e.Names)
	return e, true
}

// shard picks by the high bits of a hash; tables use the low ones.
func (c *Cache) shard(hash uint64) *atomic.Pointer[table] {
	return &c.shards[hash>>(64-shardBits)]
}

func (c *Cache) addLocked(it *item, touched map[string]struct{}) {
	c.byID[it.ID] = it
	c.sets[it.set()]++
	for _, name := range it.Names {
		c.byName[name] = append(c.byName[name], it)
		if hostname.IsIP(name) {
			c.ips[name] = struct{}{}
		}
	}
	touch(touched, it)
}

func (c *Cache) removeLocked(id string, touched map[string]struct{}) {
	it := c.byID[id]
	if it == nil {
		return
	}
	delete(c.byID, id)
	set := it.set()
	if c.sets[set]--; c.sets[set] == 0 {
		delete(c.sets, set)
	}
	for _, name := range it.Names {
		left := slices.DeleteFunc(c.byName[name], func(other *item) bool { return other == it })
		if len(left) > 0 {
			c.byName[name] = left
			continue
		}
		delete(c.byName, name)
		delete(c.ips, name)
	}
	touch(touched, it)
}

// touch notes the tables' keys for an item's names: a wildcard is kept with the
// name below it.
func touch(touched map[string]struct{}, it *item) {
	for _, name := range it.Names {
		touched[strings.TrimPrefix(name, wildcard)] = struct{}{}
	}
}

// publishLocked brings what look-ups see up to date for the touched keys.
func (c *Cache) publishLocked(now time.Time, touched map[string]struct{}) {
	changes := make(map[*atomic.Pointer[table]][]cell)
	for key := range touched {
		h := maphash.String(c.seed, key)
		s := newSlot(now, key, c.byName[key], c.byName[wildcard+key])
		p := c.shard(h)
		changes[p] = append(changes[p], cell{h, s})
	}
	for p, cells := range changes {
		p.Store(p.Load().with(cells))
	}
	c.sole.Store(c.soleLocked(now))
	c.soleIP.Store(c.soleIPLocked(now))
}

func (c *Cache) soleLocked(now time.Time) *tls.Certificate {
	if len(c.sets) != 1 {
		return nil
	}
	all := slices.Collect(maps.Values(c.byID))
	return newGroup(now, all).first
}

func (c *Cache) soleIPLocked(now time.Time) *tls.Certificate {
	if len(c.ips) != 1 {
		return nil
	}
	for ip := range c.ips {
		return newGroup(now, c.byName[ip]).first
	}
	return nil
}
