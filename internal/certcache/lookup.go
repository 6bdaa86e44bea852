package certcache

import (
	"crypto/tls"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync/atomic"
	"unsafe"
)

// Lookup returns the certificate to serve for a normalised name, or nil when
// there is none. A valid certificate for the name itself comes before a valid
// one for its wildcard, that before one for the name that is not valid now, and
// last comes a wildcard that is not.
//
// When several certificates are equally good in that, it is the first that
// hello supports, or just the first when hello is nil or supports none: ECDSA
// before RSA before others, then by Rank, then the newest, then the one added
// first. With one alone hello is not asked. Where no one is valid, those that
// are not yet come before those that no longer are. One that cannot be parsed
// is passed over.
func (c *Cache) Lookup(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	cert, _ := c.Find(name, hello)
	return cert
}

// Match says which entries there are for a name, whether they serve something
// or not.
type Match int

const (
	None     Match = iota // no entry
	Own                   // entries that have the name
	Wildcard              // none of those, but entries that have the wildcard above it
)

// Find is [Cache.Lookup] that says which entries there are too. The name need not
// be normalised: since those of entries are, one that is not has no entries of
// its own, and at most its first label differs from one that has a wildcard's.
func (c *Cache) Find(name string, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	hash := maphash.String(c.seed, name)
	s := c.shard(hash)
	v := view{shard: s, version: s.version.Load()}
	t := s.table.Load()
	i := t.index(hash)
	// Most look-ups end here. A function for it would take longer than this.
	same := t.tags[i] == tag(hash)
	if same {
		cl := &t.cells[i]
		if f := cl.front; f != nil && f.class() == valid && cl.name == name {
			if cert := f.parsed(); cert != nil {
				return cert, Own
			}
		}
		same = cl.name == name
	}
	if same || len(t.cells) > t.places {
		v = c.viewHashed(hash, name)
	}
	return c.search(v, hash, name, hello)
}

// FindBytes is [Cache.Find] for a name in a buffer, of which nothing is kept.
func (c *Cache) FindBytes(name []byte, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	return c.Find(text(name), hello)
}

// search is Find in all its steps, of which the first led to exact. It begins
// again when what it has seen, one after the other, may never have been there
// together.
func (c *Cache) search(exact view, hash uint64, name string, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	for ; ; exact = c.viewHashed(hash, name) {
		match := None
		if exact.only != nil || len(exact.rank.ofName()) > 0 {
			match = Own
			if cert := c.exact(&exact, first, hello); cert != nil {
				return cert, match
			}
		}
		above := c.above(name)
		if len(above.rank.ofWildcard()) > 0 {
			if match == None {
				match = Wildcard
			}
			if cert := c.wild(&above, first, hello); cert != nil {
				return cert, match
			}
		}
		var cert *tls.Certificate
		if match != None {
			if cert = c.exact(&exact, last, hello); cert == nil {
				cert = c.wild(&above, last, hello)
			}
		}
		if exact.unchanged() && above.unchanged() {
			return cert, match
		}
	}
}

// LookupIP returns what [Cache.Lookup] returns for the text of an address. Its
// zone does not count, and an IPv4-mapped IPv6 address counts as IPv4. The zero
// Addr has no certificate.
func (c *Cache) LookupIP(addr netip.Addr, hello *tls.ClientHelloInfo) *tls.Certificate {
	if !addr.IsValid() {
		return nil
	}
	var buf [64]byte
	return c.own(text(addr.Unmap().WithZone("").AppendTo(buf[:0])), hello)
}

// Sole returns the certificate to serve to a client that names none: the best
// one when all entries that serve something have the same names, and nil
// otherwise.
func (c *Cache) Sole() *tls.Certificate { return c.ownNamed(&c.sole) }

// SoleIP returns the best certificate for the one IP address among the names of
// entries that serve something, and nil when there are none or several.
func (c *Cache) SoleIP() *tls.Certificate { return c.ownNamed(&c.soleIP) }

func (c *Cache) ownNamed(p *atomic.Pointer[string]) *tls.Certificate {
	for {
		name := p.Load()
		if name == nil {
			return nil
		}
		if cert := c.own(*name, nil); cert != nil || p.Load() == name {
			return cert
		}
	}
}

// own looks up a name, which may be a wildcard, without the wildcard above it.
func (c *Cache) own(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	key, wild := cutWildcard(name)
	for {
		v := c.view(key)
		for _, t := range [...]tier{first, last} {
			var cert *tls.Certificate
			if wild {
				cert = c.wild(&v, t, hello)
			} else {
				cert = c.exact(&v, t, hello)
			}
			if cert != nil && t == first || t == last && v.unchanged() {
				return cert
			}
		}
	}
}

// exact picks among the entries of the name itself.
func (c *Cache) exact(v *view, t tier, hello *tls.ClientHelloInfo) *tls.Certificate {
	switch {
	case v.only != nil:
		if class := v.only.class(); class == none || (class == valid) != (t == first) {
			return nil
		}
		return c.certificate(v.only)
	case v.rank != nil:
		return c.pick(v.rank.exact.of(t, v.rank.ofName()), hello)
	}
	return nil
}

// wild picks among the entries of the wildcard above the names.
func (c *Cache) wild(v *view, t tier, hello *tls.ClientHelloInfo) *tls.Certificate {
	if v.rank == nil {
		return nil
	}
	return c.pick(v.rank.wild.of(t, v.rank.ofWildcard()), hello)
}

// cutWildcard returns the name of the cell in which a name is, and reports
// whether it is a wildcard.
func cutWildcard(name string) (key string, wild bool) { return strings.CutPrefix(name, wildcard) }

// text is a string of the bytes of a buffer, good while that does not change: a
// look-up copies no name and keeps none.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
