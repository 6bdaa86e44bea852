package fakeca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// authority holds the key that signs the leaves, and its certificates.
type authority struct {
	key    *ecdsa.PrivateKey // of every intermediate
	chains []chain           // the first is the default one
}

type chain struct{ intermediate, root *x509.Certificate }

// newAuthority makes one chain and the given number of alternates: the same intermediate key
// under other roots, so that a leaf fits each of them.
func newAuthority(alternates int) *authority {
	a := &authority{key: newKey()}
	for i := range 1 + max(alternates, 0) {
		rootKey := newKey()
		suffix := ""
		if i > 0 {
			suffix = fmt.Sprintf(" %d", i+1)
		}
		root := caTemplate("Fake Root"+suffix, 1)
		root = sign(root, root, rootKey, &rootKey.PublicKey)
		// The intermediate's name has no number: a leaf names one issuer.
		intermediate := sign(caTemplate("Fake Intermediate", 0), root, rootKey, &a.key.PublicKey)
		a.chains = append(a.chains, chain{intermediate, root})
	}
	return a
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil { // unreachable since Go 1.24: crypto/rand does not fail
		panic(err)
	}
	return key
}

func caTemplate(name string, pathLen int) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{"fakeca"}, CommonName: name},
		NotBefore:             time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
	}
}

// newSerial is random in 16 bytes. Half of them start with a set bit, which DER writes with a zero
// before it: a trap for those who build the renewal identifier from the bare number.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] |= 1 // never zero
	return new(big.Int).SetBytes(b[:])
}

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, public any) *x509.Certificate {
	cert, err := trySign(template, parent, key, public)
	if err != nil { // unreachable: the CA's own templates
		panic(err)
	}
	return cert
}

func trySign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, public any) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing signed certificate: %w", err)
	}
	return cert, nil
}

// mustStapleOID is the TLS feature extension (RFC 7633).
const mustStapleOID = "1.3.6.1.5.5.7.1.24"

// leaf signs a certificate for what the CSR asks.
func (c *CA) leaf(csr *x509.CertificateRequest, ids []Identifier, lifetime time.Duration) (*x509.Certificate, error) {
	notBefore := time.Now().Add(-c.opt.Backdate).Truncate(time.Second).UTC()
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		NotBefore:             notBefore,
		NotAfter:              notBefore.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if _, ok := csr.PublicKey.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if c.opt.OCSPURL != "" {
		template.OCSPServer = []string{c.opt.OCSPURL}
	}
	for _, id := range ids {
		if id.Type == "ip" {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(id.Value))
			continue
		}
		template.DNSNames = append(template.DNSNames, id.Value)
		if strings.EqualFold(id.Value, csr.Subject.CommonName) {
			template.Subject.CommonName = id.Value
		}
	}
	for _, ext := range csr.Extensions {
		if ext.Id.String() == mustStapleOID {
			template.ExtraExtensions = append(template.ExtraExtensions, ext)
		}
	}
	return trySign(template, c.pki.chains[0].intermediate, c.pki.key, csr.PublicKey)
}

// CertID returns the identifier of a certificate for renewalInfo and replaces (RFC 9773 section 4.1).
// It is meaningless for a certificate without an authority key identifier.
func CertID(leaf *x509.Certificate) string {
	var serial asn1.RawValue
	if der, err := asn1.Marshal(leaf.SerialNumber); err == nil {
		_, _ = asn1.Unmarshal(der, &serial) // what was just marshalled
	}
	return encode64(leaf.AuthorityKeyId) + "." + encode64(serial.Bytes)
}
