package certcache

import (
	"cmp"
	"crypto/tls"
	"slices"
	"sync/atomic"
)

// A ranking has the entries of a name and those of the wildcard above it. It is
// immutable; more is where the present one is.
type ranking struct {
	exact, wild group
}

type more = atomic.Pointer[ranking]

// A group is the entries of one name, best first, as they were when it was made.
// The zero group is empty.
type group struct {
	list   []ranked
	valid  int // how many, from the front, serve what is valid
	served int // how many, from the front, serve something
}

type ranked struct {
	entry *Entry
	quick bool // takesP256 answers for it
}

// newGroup makes a group of a list, which it takes over; Cache.mu is held.
func newGroup(list []ranked) group {
	g := group{list: list}
	for i := range list {
		e := list[i].entry
		list[i].quick = e.kind == KeyECDSAP256
		if class := e.class.Load(); class != none {
			g.served++
			if class == valid {
				g.valid++
			}
		}
	}
	if len(list) > 1 {
		slices.SortFunc(list, better)
	}
	return g
}

func better(ra, rb ranked) int {
	a, b := ra.entry, rb.entry
	return cmp.Or(
		cmp.Compare(a.class.Load()-1, b.class.Load()-1), // none, which is 0, comes last
		cmp.Compare(a.kind.order(), b.kind.order()),
		cmp.Compare(a.Rank, b.Rank),
		cmp.Compare(b.notBefore, a.notBefore),
		cmp.Compare(a.seq, b.seq),
	)
}

// again returns the group as it is to be when its entries have changed.
func (g *group) again() group {
	if len(g.list) == 0 {
		return group{}
	}
	return newGroup(slices.Clone(g.list))
}

// A tier is the part of a group that a look-up asks at a time.
type tier int

const (
	first tier = iota // what is valid
	last              // what else is served
)

func (g *group) of(t tier) []ranked {
	if t == first {
		return g.list[:g.valid]
	}
	return g.list[g.valid:g.served]
}

// pick returns the first certificate that hello supports, else just the first,
// of entries that are in order. One alone is not asked about.
func (c *Cache) pick(list []ranked, hello *tls.ClientHelloInfo) *tls.Certificate {
	var fallback *tls.Certificate
	for _, r := range list {
		cert := c.certificate(r.entry)
		if cert == nil {
			continue
		}
		if len(list) == 1 || hello == nil || r.quick && takesP256(hello) || hello.SupportsCertificate(cert) == nil {
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
