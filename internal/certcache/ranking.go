package certcache

import (
	"cmp"
	"crypto/tls"
	"slices"

	"github.com/certwright/certwright/internal/certpem"
)

// A ranking has the entries of a name and those of the wildcard above it. It is
// immutable; nil has none.
type ranking struct {
	list        []*Entry // those of the name, best first, then those of the wildcard, best first
	exact, wild counts
}

// counts are of entries in the order of a ranking, as they were when it was made.
type counts struct {
	all    uint32
	served uint32 // how many, from the front, serve something
	valid  uint32 // how many, from the front, serve what is valid
}

// rank makes a ranking; Cache.mu is held.
func rank(exact, wild []*Entry) *ranking {
	r := &ranking{list: slices.Concat(exact, wild)}
	r.exact, r.wild = settle(r.list[:len(exact)]), settle(r.list[len(exact):])
	return r
}

func settle(list []*Entry) counts {
	n := counts{all: uint32(len(list))}
	for _, e := range list {
		if c := e.class(); c != none {
			n.served++
			if c == valid {
				n.valid++
			}
		}
	}
	for i := range list { // there are few
		for ; i > 0 && compareEntries(list[i], list[i-1]) < 0; i-- {
			list[i], list[i-1] = list[i-1], list[i]
		}
	}
	return n
}

func compareEntries(a, b *Entry) int {
	return cmp.Or(
		cmp.Compare(a.class()-1, b.class()-1), // none is last
		cmp.Compare(order(a.front.Load().kind()), order(b.front.Load().kind())),
		cmp.Compare(a.Rank, b.Rank),
		cmp.Compare(b.notBefore, a.notBefore),
		cmp.Compare(a.seq, b.seq),
	)
}

// ofName returns the entries of the name itself.
func (r *ranking) ofName() []*Entry {
	if r == nil {
		return nil
	}
	return r.list[:r.exact.all]
}

// ofWildcard returns the entries of the wildcard above the name.
func (r *ranking) ofWildcard() []*Entry {
	if r == nil {
		return nil
	}
	return r.list[r.exact.all:]
}

// A tier is what a look-up asks for at a time.
type tier int

const (
	first tier = iota // what is valid
	last              // what else is served
)

// of returns the part of a list that is of a tier.
func (n *counts) of(t tier, list []*Entry) []*Entry {
	if t == first {
		return list[:n.valid]
	}
	return list[n.valid:n.served]
}

// pick returns the first certificate that hello supports, else just the first,
// of entries that are in order. One alone is not asked about.
func (c *Cache) pick(list []*Entry, hello *tls.ClientHelloInfo) *tls.Certificate {
	if len(list) == 1 {
		return c.certificate(list[0])
	}
	var fallback *tls.Certificate
	for _, e := range list {
		quick := e.front.Load().kind() == certpem.KindP256
		cert := c.certificate(e)
		if cert == nil {
			continue
		}
		if hello == nil || quick && takesP256(hello) || hello.SupportsCertificate(cert) == nil {
			return cert
		}
		if fallback == nil {
			fallback = cert
		}
	}
	return fallback
}

// takesP256 reports whether a client takes an ECDSA certificate with P-256
// whichever of TLS 1.2 and 1.3 is agreed on. Nearly all do, and unlike
// SupportsCertificate this allocates nothing.
func takesP256(hello *tls.ClientHelloInfo) bool {
	return slices.Contains(hello.SignatureSchemes, tls.ECDSAWithP256AndSHA256) &&
		slices.Contains(hello.SupportedCurves, tls.CurveP256) &&
		slices.Contains(hello.SupportedVersions, tls.VersionTLS13) &&
		slices.ContainsFunc(hello.CipherSuites, isECDHEWithECDSA)
}

func isECDHEWithECDSA(suite uint16) bool {
	switch suite {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return false
}
