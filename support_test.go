package certwright_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// offline is a Manager that no network is needed for.
func offline(t testing.TB, f *fakeSigner, change ...func(*Config)) *Manager {
	t.Helper()
	conf := Config{
		AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Logger: slog.New(slog.DiscardHandler),
		DisableStapling: true, DisableRenewalInfo: true, Issuers: []Issuer{f},
	}
	for _, c := range change {
		c(&conf)
	}
	m, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// fakeConn is a connection that has nothing but a local address.
type fakeConn struct {
	net.Conn
	local net.Addr
}

func (c fakeConn) LocalAddr() net.Addr { return c.local }

// helloFor is the ClientHello of a browser of today.
func helloFor(name, local string) *tls.ClientHelloInfo {
	h := &tls.ClientHelloInfo{
		ServerName:        name,
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SupportedPoints:   []uint8{0},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256},
		SupportedProtos:   []string{"h2", "http/1.1"},
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
	}
	if local != "" {
		h.Conn = fakeConn{local: &net.TCPAddr{IP: net.ParseIP(local), Port: 443}}
	}
	return h
}

func static(certs ...*tls.Certificate) func(*Config) {
	return func(c *Config) {
		for _, cert := range certs {
			c.Certificates = append(c.Certificates, StaticCertificate{Certificate: cert})
		}
	}
}

// checkHello compares the first name in the certificate for a ClientHello; want
// "" means ErrNoCertificate.
func checkHello(t *testing.T, m *Manager, h *tls.ClientHelloInfo, want string) {
	t.Helper()
	cert, err := m.GetCertificate(h)
	if want == "" {
		if cert != nil || !errors.Is(err, ErrNoCertificate) {
			t.Errorf("%q: certificate %v, error %v; want ErrNoCertificate", h.ServerName, cert != nil, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%q: %v; want the certificate for %q", h.ServerName, err, want)
		return
	}
	got := append([]string{}, cert.Leaf.DNSNames...)
	for _, ip := range cert.Leaf.IPAddresses {
		got = append(got, ip.String())
	}
	if len(got) == 0 || got[0] != want {
		t.Errorf("%q: certificate for %v, want that for %q", h.ServerName, got, want)
	}
}

func numbered(n int, domain string) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.%s", i, domain)
	}
	return names
}

// selfSigned returns a certificate that no CA issued, for a server's own use.
func selfSigned(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	return makeCert(t, P256, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), name)
}

// makeCert makes a self-signed certificate for names, IP addresses too.
func makeCert(t testing.TB, kt KeyType, notBefore, notAfter time.Time, names ...string) *tls.Certificate {
	t.Helper()
	key, err := certpem.GenerateKey(certpem.KeyType(kt))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: notBefore, NotAfter: notAfter,
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// listenPort binds a port of the CA's validator on loopback.
func listenPort(t *testing.T, port int) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", listenAddr("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serveHTTP serves handler on ln until the test ends.
func serveHTTP(t *testing.T, ln net.Listener, handler http.Handler) {
	t.Helper()
	serveOn(t, &http.Server{Handler: handler}, func(srv *http.Server) error { return srv.Serve(ln) })
}

func serveOn(t *testing.T, srv *http.Server, serve func(*http.Server) error) {
	srv.ErrorLog = log.New(io.Discard, "", 0) // what clients do wrong here is meant
	done := make(chan error, 1)
	go func() { done <- serve(srv) }()
	t.Cleanup(func() {
		_ = srv.Close() // its error is that of a listener the server closed before
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func keysOf(t *testing.T, s Storage) []string {
	t.Helper()
	keys, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// openDir opens a folder and closes it when the test ends.
func openDir(t *testing.T, dir string) *storage.Dir {
	t.Helper()
	d, err := storage.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// issuePair has ca sign a certificate for name and writes it to dir.
func issuePair(t testing.TB, ca *fakeca.CA, dir, name string) (pairFiles, *x509.Certificate) {
	t.Helper()
	pair := tlsPair(t, ca, name)
	f := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writePair(t, f, pair)
	return f, pair.Leaf
}

// writePair writes a certificate and its key.
func writePair(t testing.TB, f pairFiles, pair *tls.Certificate) {
	t.Helper()
	keyPEM, err := certpem.EncodeKey(pair.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range pair.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	writeFile(t, f.cert, chain)
	writeFile(t, f.key, keyPEM)
}

// tlsPair has ca sign a certificate for name beside ACME.
func tlsPair(t testing.TB, ca *fakeca.CA, name string) *tls.Certificate {
	t.Helper()
	issuer, key := ca.Intermediate()
	own, err := certpem.GenerateKey(certpem.P256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leafTemplate(name), issuer, own.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, issuer.Raw}, PrivateKey: own, Leaf: leaf}
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// leafTemplate is a certificate for name that is valid from now for 90 days.
func leafTemplate(name string) *x509.Certificate {
	now := time.Now().Truncate(time.Second)
	return &x509.Certificate{
		DNSNames: []string{name}, NotBefore: now.Add(-time.Second), NotAfter: now.Add(90 * day),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// pairFiles are a certificate and its key on disk.
type pairFiles struct{ cert, key string }
