package certwright_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

func TestStaticFilesAreReadAgain(t *testing.T) {
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
		time.Sleep(2 * time.Minute)
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
			time.Sleep(2 * time.Minute)
			if !mustLeaf(t, m, "s.example.com").Equal(second) {
				t.Error("a broken replacement took the place of a good certificate")
			}
		}
		if logs.Len() != 1 {
			t.Errorf("%d error lines; want one for a failure that goes on", logs.Len())
		}
		_, third := issuePair(t, ca, dir, "s.example.com")
		time.Sleep(2 * time.Minute)
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

// A certificate in memory that could not be served is refused, and what is served
// is a copy (F69).
func TestStaticCertificatesInMemory(t *testing.T) {
	a, b := selfSigned(t, "a.example.com"), selfSigned(t, "b.example.com")
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		says string
	}{
		{"no key", tls.Certificate{Certificate: a.Certificate}, "no private key"},
		{"another's key", tls.Certificate{Certificate: a.Certificate, PrivateKey: b.PrivateKey}, "not the one of the certificate"},
		{"a key that signs nothing", tls.Certificate{Certificate: a.Certificate, PrivateKey: []byte("key")}, "no private key"},
		{"no DER", tls.Certificate{Certificate: [][]byte{[]byte("x")}, PrivateKey: a.PrivateKey}, "parsing certificate 1"},
		{"a chain that is no DER", tls.Certificate{Certificate: [][]byte{a.Certificate[0], []byte("x")}, PrivateKey: a.PrivateKey}, "parsing certificate 2"},
		{"another's leaf", tls.Certificate{Certificate: a.Certificate, PrivateKey: b.PrivateKey, Leaf: b.Leaf}, "not the one of the certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := New(Config{
				Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Issuers: []Issuer{newFakeSigner(t)},
				Certificates: []StaticCertificate{{Certificate: &tt.cert}},
			})
			if err == nil {
				closeManager(t, m)
				t.Fatal("New took it")
			}
			if !strings.Contains(err.Error(), "Config.Certificates[0]") || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v; want the field, and %q", err, tt.says)
			}
		})
	}
	own := *a
	own.Certificate = slices.Clone(a.Certificate)
	m := offline(t, newFakeSigner(t), static(&own))
	own.Certificate[0], own.PrivateKey, own.Leaf = b.Certificate[0], b.PrivateKey, b.Leaf
	cert, err := m.GetCertificate(helloFor("a.example.com", ""))
	if err != nil || !bytes.Equal(cert.Certificate[0], a.Certificate[0]) || cert.PrivateKey != a.PrivateKey || !cert.Leaf.Equal(a.Leaf) {
		t.Errorf("what the caller changed later is served: %v", err)
	}
}
