package certcache

import (
	"crypto/tls"
	"slices"

	"github.com/certwright/certwright/internal/certpem"
)

// supports reports whether a client supports a certificate, as crypto/tls judges
// it, but for the name: that was matched already, and need not be the one that
// the client sent.
//
// Only crypto/tls sees the server's own limits, MaxVersion and CipherSuites of
// its Config. It is asked, which allocates, unless the client offers TLS 1.3 and
// accepts the kind of key in TLS 1.2 too, if it offers that. So what is missed is a
// server without TLS 1.3 whose own CipherSuites have none for that kind.
func (c *Cache) supports(hello *tls.ClientHelloInfo, at *candidate) bool {
	if signsFor(hello, at.served.Kind) {
		return true
	}
	cert := c.certificate(at.entry, at.served)
	if cert == nil {
		return false
	}
	nameless := *hello
	nameless.ServerName = ""
	return nameless.SupportsCertificate(cert) == nil
}

// signsFor reports whether a client accepts a kind of key whichever of TLS 1.2 and 1.3
// is agreed on. Nearly all do, and this allocates nothing.
func signsFor(hello *tls.ClientHelloInfo, kind certpem.KeyKind) bool {
	var scheme tls.SignatureScheme
	var suites []uint16
	switch kind {
	case certpem.KindP256:
		scheme, suites = tls.ECDSAWithP256AndSHA256, ecdsaSuites[:]
	case certpem.KindRSA:
		scheme, suites = tls.PSSWithSHA256, rsaSuites[:]
	default:
		return false
	}
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
