package certwright_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	. "github.com/certwright/certwright"
)

// fakeSigner is an Issuer that signs at once.
type fakeSigner struct {
	root  *x509.Certificate
	by    *x509.Certificate // whose key signs: root, or the intermediate below it
	key   *ecdsa.PrivateKey // of by
	above []byte            // PEM, what is in a chain behind the leaf

	mu       sync.Mutex // guards the fields below
	issued   int
	ocsp     string                       // responder; empty: none
	err      error                        // returned instead of a certificate
	validity func() (from, to time.Time)  // nil: 90 days from now
	hook     func(context.Context) error  // called first, without mu
	byName   map[string]*x509.Certificate // the last one by its first name
}

func newFakeSigner(t testing.TB) *fakeSigner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeSigner{root: root, by: root, key: key, byName: map[string]*x509.Certificate{}}
}

// addIntermediate has an intermediate sign from now on, as public CAs do.
func (f *fakeSigner) addIntermediate(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: f.root.NotBefore, NotAfter: f.root.NotAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, f.root, key.Public(), f.key)
	if err != nil {
		t.Fatal(err)
	}
	if f.by, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	f.key, f.above = key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (f *fakeSigner) ID() string { return "fake" }

func (f *fakeSigner) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(f.root)
	return pool
}

func (f *fakeSigner) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeSigner) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.issued
}

// Issue implements Issuer. Failed calls count too.
func (f *fakeSigner) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return Issued{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.issued++
	if f.err != nil {
		return Issued{}, f.err
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return Issued{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(f.issued) + 1), DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	if f.ocsp != "" {
		tmpl.OCSPServer = []string{f.ocsp}
	}
	for _, ext := range csr.Extensions {
		if ext.Id.String() == "1.3.6.1.5.5.7.1.24" { // TLS feature (RFC 7633)
			tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, ext)
		}
	}
	if f.validity != nil {
		tmpl.NotBefore, tmpl.NotAfter = f.validity()
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, f.by, csr.PublicKey, f.key)
	if err != nil {
		return Issued{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Issued{}, err
	}
	f.byName[req.Names[0]] = leaf
	leafPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return Issued{Chain: append(leafPEM, f.above...)}, nil
}
