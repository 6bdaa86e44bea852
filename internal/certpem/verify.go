package certpem

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/certwright/certwright/internal/hostname"
)

// Verify checks that a chain can be served with a key for names, which are
// normalised: the leaf is for the key, the leaf covers each of the names (it
// may cover more), and each certificate is signed by the next. It looks neither
// at the clock nor at trust. A nil key, or no names, is not checked.
func Verify(chain []*x509.Certificate, key crypto.PublicKey, names []string) error {
	if len(chain) == 0 {
		return errors.New("verifying chain: it is empty")
	}
	if err := verify(chain, key, names); err != nil {
		return fmt.Errorf("verifying chain %q: %w", title(chain[0]), err)
	}
	return nil
}

func verify(chain []*x509.Certificate, key crypto.PublicKey, names []string) error {
	leaf := chain[0]
	if key != nil && !Match(leaf.PublicKey, key) {
		return errors.New("the leaf is not for the private key")
	}
	have := Names(leaf)
	for _, name := range names {
		if !slices.ContainsFunc(have, func(pattern string) bool { return hostname.Covers(pattern, name) }) {
			return fmt.Errorf("the leaf does not cover %q", name)
		}
	}
	for i, cert := range chain[:len(chain)-1] {
		if err := cert.CheckSignatureFrom(chain[i+1]); err != nil {
			return fmt.Errorf("certificate %d %q is not signed by the next, %q: %w", i+1, title(cert), title(chain[i+1]), err)
		}
	}
	return nil
}

// Names returns the DNS names and IP addresses that a leaf is for, each once,
// in lower case and canonical text, DNS names first. The common name does not
// count (RFC 9525 §2).
func Names(leaf *x509.Certificate) []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range leaf.DNSNames {
		add(strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			add(addr.Unmap().String())
		}
	}
	return names
}

// title names a certificate in an error.
func title(cert *x509.Certificate) string {
	if cert.Subject.CommonName != "" {
		return cert.Subject.CommonName
	}
	if names := Names(cert); len(names) > 0 {
		return names[0]
	}
	return cert.Subject.String()
}

// CertID returns the unique identifier of a certificate for renewal info
// (RFC 9773 §4.1): its authority key identifier and the bytes of its serial
// number, in base64url with a dot between. It fails for a certificate without
// an authority key identifier.
func CertID(leaf *x509.Certificate) (string, error) {
	if len(leaf.AuthorityKeyId) == 0 {
		return "", fmt.Errorf("making certificate identifier %q: it has no authority key identifier", title(leaf))
	}
	if leaf.SerialNumber == nil || leaf.SerialNumber.Sign() < 0 {
		return "", fmt.Errorf("making certificate identifier %q: its serial number is missing or negative", title(leaf))
	}
	serial := leaf.SerialNumber.Bytes()
	// DER integers are signed, and zero takes a byte (X.690 §8.3).
	if len(serial) == 0 || serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...)
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString(leaf.AuthorityKeyId) + "." + enc.EncodeToString(serial), nil
}

// TLSCertificate returns what crypto/tls serves: the chain with its key, and
// Leaf set so that no handshake parses it again. An empty chain gives nil.
func TLSCertificate(chain []*x509.Certificate, key crypto.Signer) *tls.Certificate {
	if len(chain) == 0 {
		return nil
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}
