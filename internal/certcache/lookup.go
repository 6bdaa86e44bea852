package certcache

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"net/netip"
	"slices"
	"sync/atomic"
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

// Result is what a look-up found.
type Result struct {
	Cert  *tls.Certificate // nil: none
	Match Match
	Valid bool // Cert is valid now
}

// Find returns the certificate to serve for a normalised name, and says which
// entries there are. A certificate that is valid now, for the name itself, comes
// before a valid one for its wildcard, that before one for the name that is not
// valid, and last comes a wildcard that is not.
//
// When several certificates are equally good in that, it is the first that hello
// supports, or just the first when hello is nil or supports none: by Rank, then
// the newest, then the one added first. Where no one is valid, those that are not
// yet come before those that no longer are. One that cannot be parsed is passed
// over.
func (c *Cache) Find(name string, hello *tls.ClientHelloInfo) Result {
	var buf [hostname.MaxSNI]byte
	if len(name) > len(buf) {
		return Result{}
	}
	return c.FindBytes(append(buf[:0], name...), hello)
}

// FindBytes is [Cache.Find] for a name in a buffer, of which nothing is kept.
func (c *Cache) FindBytes(name []byte, hello *tls.ClientHelloInfo) Result {
	var parent []byte
	if i := bytes.IndexByte(name, '.'); i > 0 {
		parent = name[i+1:]
	}
	return c.search(name, parent, hello)
}

// FindIP is [Cache.Find] for an address. Its zone does not count, and an
// IPv4-mapped IPv6 address counts as IPv4. The zero Addr has none.
func (c *Cache) FindIP(addr netip.Addr, hello *tls.ClientHelloInfo) Result {
	if !addr.IsValid() {
		return Result{}
	}
	var buf [64]byte
	return c.search(addr.Unmap().WithZone("").AppendTo(buf[:0]), nil, hello)
}

// Sole returns what to serve to a client that names none, and for which name: the
// best for it when all entries that serve something have the same names, and
// nothing otherwise.
func (c *Cache) Sole(hello *tls.ClientHelloInfo) (name string, r Result) {
	return c.only(&c.sole, hello)
}

// SoleIP is Sole for the one IP address among the names of entries that serve
// something; there is nothing when there are none or several.
func (c *Cache) SoleIP(hello *tls.ClientHelloInfo) (name string, r Result) {
	return c.only(&c.soleIP, hello)
}

func (c *Cache) only(p *atomic.Pointer[string], hello *tls.ClientHelloInfo) (string, Result) {
	for {
		name := p.Load()
		if name == nil {
			return "", Result{}
		}
		if r := c.Find(*name, hello); r.Cert != nil || p.Load() == name {
			return *name, r
		}
	}
}

// search looks among the entries of a name and, for the parent of one, among
// those of the wildcard. It begins again when what it has seen, one after the
// other, may never have been there together.
func (c *Cache) search(name, parent []byte, hello *tls.ClientHelloInfo) Result {
	for {
		version := c.version.Load()
		r := c.searchOnce(name, parent, hello)
		if r.Cert != nil || c.version.Load() == version {
			return r
		}
	}
}

func (c *Cache) searchOnce(name, parent []byte, hello *tls.ClientHelloInfo) Result {
	match, now := None, int64(0)
	own := c.load(name).own[string(name)] // which copies no name
	if own != nil {
		match, now = Own, time.Now().Unix()
		if cert := c.pick(own, valid, now, hello); cert != nil {
			return Result{cert, match, true}
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
			return Result{cert, match, true}
		}
	}
	cert := c.pick(own, expired, now, hello)
	if cert == nil {
		cert = c.pick(wild, expired, now, hello)
	}
	return Result{Cert: cert, Match: match}
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

// pickOf picks among several: the first that the client supports, else the first
// that can be parsed.
func (c *Cache) pickOf(list []*Entry, worst class, now int64, hello *tls.ClientHelloInfo) *tls.Certificate {
	var room [4]candidate
	all := room[:0]
	for _, e := range list {
		if s := e.served(); s != nil && s.state.Load() != broken && s.class(now) <= worst {
			all = append(all, candidate{e, s, s.class(now)})
		}
	}
	slices.SortStableFunc(all, candidate.compare)
	for i := range all {
		if hello == nil || c.supports(hello, &all[i]) {
			if cert := c.certificate(all[i].entry, all[i].served); cert != nil {
				return cert
			}
		}
	}
	for _, at := range all {
		if cert := c.certificate(at.entry, at.served); cert != nil {
			return cert
		}
	}
	return nil
}

// A candidate is an entry with what it served when pickOf looked.
type candidate struct {
	entry  *Entry
	served *Served
	class  class
}

func (a candidate) compare(b candidate) int {
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(a.served.Rank, b.served.Rank),
		cmp.Compare(b.served.NotBefore, a.served.NotBefore),
	)
}
