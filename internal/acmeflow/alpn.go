package acmeflow

import (
	"crypto/tls"
	"fmt"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// TLSALPNCertificate makes the self-signed certificate that answers a
// tls-alpn-01 challenge for a DNS name or an IP address (RFC 8737 §3, RFC 8738 §6).
func TLSALPNCertificate(name, keyAuthorization string) (*tls.Certificate, error) {
	cert, err := acmez.TLSALPN01ChallengeCert(acme.Challenge{Identifier: identifier(name), KeyAuthorization: keyAuthorization})
	if err != nil {
		return nil, fmt.Errorf("making the tls-alpn-01 certificate for %q: %w", name, err)
	}
	return cert, nil
}
