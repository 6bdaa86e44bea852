package certcache

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/certwright/certwright/internal/certpem"
)

// supports reports whether a handshake can be made with a certificate, as crypto/tls
// judges it, but for the name: that was matched already, and need not be the one
// that the client sent.
//
// Only crypto/tls sees the server's own limits, MaxVersion and CipherSuites of its
// Config. It is asked, which allocates, unless the client accepts the kind of key
// whichever version is agreed on, and the server was found within the minute to sign
// with it for all such clients.
func (c *Cache) supports(hello *tls.ClientHelloInfo, at *candidate, now int64) bool {
	signs := signsFor(hello, at.served.Kind)
	if signs && (hello.Conn == nil || c.servers.signFor(hello, at.served.Kind, now)) { // nil: it was made by hand, for no server
		return true
	}
	cert := c.certificate(at.entry, at.served)
	if cert == nil {
		return false
	}
	nameless := *hello
	nameless.ServerName = ""
	if nameless.SupportsCertificate(cert) != nil {
		return false
	}
	if signs && !slices.ContainsFunc(suitesOf(at.served.Kind), func(suite uint16) bool {
		nameless.CipherSuites = []uint16{suite}
		return nameless.SupportsCertificate(cert) != nil
	}) {
		c.servers.note(hello, at.served.Kind, now)
	}
	return true
}

// servers remembers for a minute which kinds of keys servers sign with for clients
// that accept them in any version.
type servers [64]atomic.Pointer[signing]

// signing is that a server signs with a kind of key.
type signing struct {
	network string
	addr    netip.AddrPort
	kind    certpem.KeyKind
	minute  int64
}

func (s *servers) signFor(hello *tls.ClientHelloInfo, kind certpem.KeyKind, now int64) bool {
	does, ok := signingOf(hello, kind, now)
	if !ok {
		return false
	}
	known := s.of(&does).Load()
	return known != nil && *known == does
}

func (s *servers) note(hello *tls.ClientHelloInfo, kind certpem.KeyKind, now int64) {
	if does, ok := signingOf(hello, kind, now); ok {
		kept := does // the only one on the heap
		s.of(&does).Store(&kept)
	}
}

// of returns where it is remembered.
func (s *servers) of(does *signing) *atomic.Pointer[signing] {
	ip := does.addr.Addr().As16()
	i := uint(does.addr.Port())*4 + uint(does.kind)
	for _, b := range ip {
		i = i*31 + uint(b)
	}
	return &s[i%uint(len(s))]
}

// signingOf is false for a server without an address and a port.
func signingOf(hello *tls.ClientHelloInfo, kind certpem.KeyKind, now int64) (signing, bool) {
	local := hello.Conn.LocalAddr()
	addr, ok := local.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return signing{}, false
	}
	return signing{local.Network(), addr.AddrPort(), kind, now / 60}, true
}

// signsFor reports whether a client accepts a kind of key whichever of TLS 1.2 and 1.3
// is agreed on. Nearly all do, and this allocates nothing.
func signsFor(hello *tls.ClientHelloInfo, kind certpem.KeyKind) bool {
	var scheme tls.SignatureScheme
	switch kind {
	case certpem.KindP256:
		scheme = tls.ECDSAWithP256AndSHA256
	case certpem.KindRSA:
		scheme = tls.PSSWithSHA256
	default:
		return false
	}
	suites := suitesOf(kind)
	if !slices.Contains(hello.SignatureSchemes, scheme) {
		return false
	}
	in13 := false
	for _, v := range hello.SupportedVersions {
		switch v {
		case tls.VersionTLS13:
			in13 = true
		case tls.VersionTLS12:
			// An ECDSA key needs its curve there, any other one for the key exchange.
			if !slices.Contains(hello.SupportedCurves, tls.CurveP256) || !slices.Contains(hello.SupportedPoints, 0) ||
				!slices.ContainsFunc(hello.CipherSuites, func(s uint16) bool { return slices.Contains(suites, s) }) {
				return false
			}
		}
	}
	return in13
}

// suitesOf returns the cipher suites of TLS 1.2 for a kind of key.
func suitesOf(kind certpem.KeyKind) []uint16 {
	if kind == certpem.KindRSA {
		return rsaSuites[:]
	}
	return ecdsaSuites[:]
}

// The cipher suites of TLS 1.2 that all servers have unless they are told
// otherwise. They are not changed.
var (
	ecdsaSuites = [...]uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	rsaSuites = [...]uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
)
