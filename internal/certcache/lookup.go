package certcache

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/certwright/certwright/internal/hostname"
)

// Match says which entries there are for a name, whether they serve something
// or not.
type Match int

const (
	None     Match = iota // no entry
	Own                   // entries that have the name
	Wildcard              // none of those, but entries that have the wildcard above it
)

// Find returns the certificate to serve for a normalised name, nil when there is
// none, and says which entries there are. A certificate that is valid now, for
// the name itself, comes before a valid one for its wildcard, that before one for
// the name that is not valid, and last comes a wildcard that is not.
//
// When several certificates are equally good in that, it is the first that hello
// supports, or just the first when hello is nil or supports none: by Rank, then
// the newest, then the one added first. Where no one is valid, those that are not
// yet come before those that no longer are. One that cannot be parsed is passed
// over.
func (c *Cache) Find(name string, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	var buf [hostname.MaxSNI]byte
	if len(name) > len(buf) {
		return nil, None
	}
	return c.FindBytes(append(buf[:0], name...), hello)
}

// FindBytes is [Cache.Find] for a name in a buffer, of which nothing is kept.
func (c *Cache) FindBytes(name []byte, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	var parent []byte
	if i := bytes.IndexByte(name, '.'); i > 0 {
		parent = name[i+1:]
	}
	return c.search(name, parent, hello)
}

// LookupIP returns the certificate for an address. Its zone does not count, and
// an IPv4-mapped IPv6 address counts as IPv4. The zero Addr has none.
func (c *Cache) LookupIP(addr netip.Addr, hello *tls.ClientHelloInfo) *tls.Certificate {
	if !addr.IsValid() {
		return nil
	}
	var buf [64]byte
	cert, _ := c.search(addr.Unmap().WithZone("").AppendTo(buf[:0]), nil, hello)
	return cert
}

// Sole returns the certificate to serve to a client that names none: the best
// one for it when all entries that serve something have the same names, and nil
// otherwise.
func (c *Cache) Sole(hello *tls.ClientHelloInfo) *tls.Certificate {
	for {
		n := c.sole.Load()
		if n == nil {
			return nil
		}
		own, wild := n.key, []byte(nil)
		if n.wild {
			own, wild = nil, n.key
		}
		if cert, _ := c.search(own, wild, hello); cert != nil || c.sole.Load() == n {
			return cert
		}
	}
}

// SoleIP returns the best certificate for a client and the one IP address among
// the names of entries that serve something, and nil when there are none or
// several.
func (c *Cache) SoleIP(hello *tls.ClientHelloInfo) *tls.Certificate {
	for {
		n := c.soleIP.Load()
		if n == nil {
			return nil
		}
		if cert, _ := c.search(n.key, nil, hello); cert != nil || c.soleIP.Load() == n {
			return cert
		}
	}
}

// search looks among the entries of a name and, for the parent of one, among
// those of the wildcard. It begins again when what it has seen, one after the
// other, may never have been there together.
func (c *Cache) search(name, parent []byte, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	for {
		version := c.version.Load()
		cert, match := c.searchOnce(name, parent, hello)
		if cert != nil || c.version.Load() == version {
			return cert, match
		}
	}
}

func (c *Cache) searchOnce(name, parent []byte, hello *tls.ClientHelloInfo) (*tls.Certificate, Match) {
	match, now := None, int64(0)
	own := c.load(name).own[string(name)] // which copies no name
	if own != nil {
		match, now = Own, time.Now().Unix()
		if cert := c.pick(own, valid, now, hello); cert != nil {
			return cert, match
		}
	}
	var wild *cell
	if len(parent) > 0 {
		wild = c.load(parent).wild[string(parent)]
	}
	if wild != nil {
		if match == None {
			match, now = Wildcard, time.Now().Unix()
		}
		if cert := c.pick(wild, valid, now, hello); cert != nil {
			return cert, match
		}
	}
	cert := c.pick(own, expired, now, hello)
	if cert == nil {
		cert = c.pick(wild, expired, now, hello)
	}
	return cert, match
}

// pick returns the best certificate of a cell that is of a class or a better one.
func (c *Cache) pick(cl *cell, worst class, now int64, hello *tls.ClientHelloInfo) *tls.Certificate {
	switch {
	case cl == nil:
		return nil
	case cl.several != nil:
		return c.pickOf(*cl.several, worst, now, hello)
	}
	s := cl.served.Load()
	if s == nil || s.state.Load() == broken || s.class(now) > worst {
		return nil
	}
	return c.certificate(cl.entry, s)
}

// pickOf picks among several. Those that turn out to be broken are no candidates
// the next time around.
func (c *Cache) pickOf(list []*Entry, worst class, now int64, hello *tls.ClientHelloInfo) *tls.Certificate {
	for {
		var best candidate
		for _, e := range list {
			s := e.served()
			if s == nil || s.state.Load() == broken || s.class(now) > worst {
				continue
			}
			at := candidate{entry: e, served: s, class: s.class(now)}
			at.fits = hello == nil || c.supports(hello, &at)
			if best.entry == nil || at.compare(&best) < 0 {
				best = at
			}
		}
		if best.entry == nil {
			return nil
		}
		if cert := c.certificate(best.entry, best.served); cert != nil {
			return cert
		}
	}
}

// A candidate is an entry with what it served when pick looked.
type candidate struct {
	entry  *Entry
	served *Served
	class  class
	fits   bool // the client supports it
}

func (a *candidate) compare(b *candidate) int {
	if a.fits != b.fits {
		if a.fits {
			return -1
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(a.entry.Rank, b.entry.Rank),
		cmp.Compare(b.served.NotBefore, a.served.NotBefore),
	)
}
