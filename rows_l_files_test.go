package certwright

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

// pairFiles are a certificate and its key on disk.
type pairFiles struct{ cert, key string }

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

// issuePair has ca sign a certificate for name and writes it to dir.
func issuePair(t testing.TB, ca *fakeca.CA, dir, name string) (pairFiles, *x509.Certificate) {
	t.Helper()
	pair := tlsPair(t, ca, name)
	keyPEM, err := certpem.EncodeKey(pair.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range pair.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	f := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writeFile(t, f.cert, chain)
	writeFile(t, f.key, keyPEM)
	return f, pair.Leaf
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestL8_StaticFiles(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		files, first := issuePair(t, ca, dir, "s.example.com")
		conf.Certificates = []StaticCertificate{{CertFile: files.cert, KeyFile: files.key}}
		var events eventLog
		conf.OnEvent = events.add
		log, logs := observed(slog.LevelError)
		conf.Logger = log
		m := start(t, conf)
		if !mustLeaf(t, m, "s.example.com").Equal(first) {
			t.Error("not the static certificate")
		}
		_, second := issuePair(t, ca, dir, "s.example.com")
		time.Sleep(2 * fileCheck)
		if !mustLeaf(t, m, "s.example.com").Equal(second) {
			t.Error("the replaced files are not served")
		}
		for _, broken := range []func(){
			func() { writeFile(t, files.cert, []byte("not a certificate")) },
			func() { issuePair(t, ca, dir, "s.example.com"); writeFile(t, files.key, []byte("not a key")) },
			func() { _ = os.Remove(files.cert) },
			func() {
				old, _ := os.ReadFile(files.key)
				issuePair(t, ca, dir, "s.example.com")
				writeFile(t, files.key, old)
			},
		} {
			broken()
			time.Sleep(2 * fileCheck)
			if !mustLeaf(t, m, "s.example.com").Equal(second) {
				t.Error("a broken replacement took the place of a good certificate")
			}
		}
		if logs.Len() != 1 {
			t.Errorf("%d error lines; want one for a failure that goes on", logs.Len())
		}
		_, third := issuePair(t, ca, dir, "s.example.com")
		time.Sleep(2 * fileCheck)
		if !mustLeaf(t, m, "s.example.com").Equal(third) {
			t.Error("the mended files are not served")
		}
		if n := events.count(EventReloaded); n != 2 {
			t.Errorf("%d reloads were told; want 2", n)
		}
		if n := ca.Count(""); n != 0 {
			t.Errorf("%d requests to the CA for a static certificate", n)
		}
	})
}

// leafTemplate is a certificate for name that is valid from now for 90 days.
func leafTemplate(name string) *x509.Certificate {
	now := time.Now().Truncate(time.Second)
	return &x509.Certificate{
		DNSNames: []string{name}, NotBefore: now.Add(-time.Second), NotAfter: now.Add(90 * day),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}
