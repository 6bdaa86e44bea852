package revocation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ocsp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCA is an intermediate CA that issues leaves and signs responses.
type fakeCA struct {
	t    testing.TB
	now  time.Time
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newFakeCA returns a CA that is itself certified by a root, as those are that
// sign leaves on the Web. Its clock stands at now.
func newFakeCA(t testing.TB, now time.Time) *fakeCA {
	t.Helper()
	root := &fakeCA{t: t, now: now, key: newKey(t)}
	template := root.template(1, "root")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	root.cert = root.sign(template, template, root.key)
	template = root.template(2, "intermediate")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	ca := &fakeCA{t: t, now: now, key: newKey(t)}
	ca.cert = root.sign(template, root.cert, ca.key)
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// template returns a certificate that is valid for the 90 days around now.
func (c *fakeCA) template(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    c.now.Add(-24 * time.Hour),
		NotAfter:     c.now.Add(89 * 24 * time.Hour),
	}
}

// sign certifies key with the key of c; parent names the issuer.
func (c *fakeCA) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	c.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

// leaf returns a leaf with the given serial and responders.
func (c *fakeCA) leaf(serial int64, responders ...string) *x509.Certificate {
	c.t.Helper()
	template := c.template(serial, "leaf")
	template.DNSNames = []string{"example.com"}
	template.OCSPServer = responders
	return c.sign(template, c.cert, newKey(c.t))
}

// delegate returns a responder certificate, changed by edit, and its key.
func (c *fakeCA) delegate(edit func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	c.t.Helper()
	template := c.template(3, "responder")
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	edit(template)
	key := newKey(c.t)
	return c.sign(template, c.cert, key), key
}

// good returns the template of a Good response for leaf, an hour old and ending
// in seven days.
func (c *fakeCA) good(leaf *x509.Certificate) ocsp.Response {
	return ocsp.Response{
		Status:       ocsp.Good,
		SerialNumber: leaf.SerialNumber,
		ThisUpdate:   c.now.Add(-time.Hour).Truncate(time.Second),
		NextUpdate:   c.now.Add(7 * 24 * time.Hour).Truncate(time.Second),
	}
}

// respond signs r with the key of c.
func (c *fakeCA) respond(r ocsp.Response) []byte {
	c.t.Helper()
	return createResponse(c.t, c.cert, signer{c.cert, c.key}, r)
}

// signer is who signs a response.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func createResponse(t testing.TB, issuer *x509.Certificate, by signer, r ocsp.Response) []byte {
	t.Helper()
	var raw []byte
	var err error
	fips140.WithoutEnforcement(func() { raw, err = ocsp.CreateResponse(issuer, by.cert, r, by.key) })
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
