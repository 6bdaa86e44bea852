package certcache

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"slices"
	"strings"
	"time"
)

// A slot has the certificates for a name and those for the wildcard above it.
// It is immutable, as are groups and items. What a look-up reads of it comes
// first, to be in one cache line.
type slot struct {
	name  string
	exact group
	wild  group
}

func newSlot(now time.Time, name string, exact, wild []*item) *slot {
	return &slot{name: name, exact: newGroup(now, exact), wild: newGroup(now, wild)}
}

func (s *slot) empty() bool { return s.exact.first == nil && s.wild.first == nil }

// A group is the certificates for one name, best first. The zero group is empty.
type group struct {
	first *tls.Certificate // of items[0]
	valid int              // how many, from the front, were valid when it was made
	items []*item
}

func newGroup(now time.Time, items []*item) group {
	if len(items) == 0 {
		return group{}
	}
	g := group{items: slices.Clone(items)}
	slices.SortFunc(g.items, func(a, b *item) int {
		return cmp.Or(
			cmp.Compare(a.class(now), b.class(now)),
			cmp.Compare(a.kind, b.kind),
			cmp.Compare(a.Rank, b.Rank),
			b.NotBefore.Compare(a.NotBefore),
			cmp.Compare(a.ID, b.ID),
		)
	})
	g.first = g.items[0].Cert
	for _, it := range g.items {
		if it.class(now) == valid {
			g.valid++
		}
	}
	return g
}

// pick returns the best certificate of a group for hello, which may be nil, and
// nil for an empty group.
func (g *group) pick(hello *tls.ClientHelloInfo) *tls.Certificate {
	n := g.valid
	if n == 0 {
		n = len(g.items)
	}
	if n > 1 && hello != nil {
		for _, it := range g.items[:n] {
			if it.supportedBy(hello) {
				return it.Cert
			}
		}
	}
	return g.first
}

// An item is an Entry with what is derived from it once.
type item struct {
	Entry
	kind keyKind
	p256 bool
}

// keyKind orders kinds of keys from the one to serve first.
type keyKind uint8

const (
	keyECDSA keyKind = iota
	keyRSA
	keyOther
)

func newItem(e Entry) *item {
	e.Names = slices.Clone(e.Names)
	slices.Sort(e.Names)
	e.Names = slices.Compact(e.Names)
	it := &item{Entry: e, kind: keyOther}
	switch pub := publicKey(e.Cert).(type) {
	case *ecdsa.PublicKey:
		it.kind, it.p256 = keyECDSA, pub.Curve == elliptic.P256()
	case *rsa.PublicKey:
		it.kind = keyRSA
	}
	return it
}

func publicKey(cert *tls.Certificate) crypto.PublicKey {
	if cert.Leaf != nil {
		return cert.Leaf.PublicKey
	}
	if key, ok := cert.PrivateKey.(crypto.Signer); ok {
		return key.Public()
	}
	return nil
}

// set identifies the set of an item's names, which hold no space.
func (it *item) set() string { return strings.Join(it.Names, " ") }

// Classes of validity from the best.
const (
	valid = iota
	notYet
	expired
)

func (it *item) class(now time.Time) int {
	switch {
	case now.After(it.NotAfter):
		return expired
	case now.Before(it.NotBefore):
		return notYet
	}
	return valid
}

func (it *item) supportedBy(hello *tls.ClientHelloInfo) bool {
	return it.p256 && takesP256(hello) || hello.SupportsCertificate(it.Cert) == nil
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
