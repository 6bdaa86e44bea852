package certwright_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
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
		{"a key that is a nil pointer", tls.Certificate{Certificate: a.Certificate, PrivateKey: (*ecdsa.PrivateKey)(nil)}, "no private key"},
		{"a key that is zero", tls.Certificate{Certificate: a.Certificate, PrivateKey: new(ecdsa.PrivateKey)}, "private key"},
		{"a key that is too short", tls.Certificate{Certificate: a.Certificate, PrivateKey: ed25519.PrivateKey("short")}, "private key"},
		{"nothing", tls.Certificate{}, "empty"},
		{"no name", *makeCert(t, P256, time.Now(), time.Now().Add(time.Hour)), "no subject alternative name"},
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
	own.Certificate, own.OCSPStaple = [][]byte{bytes.Clone(a.Certificate[0]), bytes.Clone(b.Certificate[0])}, []byte("staple")
	m := offline(t, newFakeSigner(t), static(&own))
	clear(own.Certificate[0]) // in place
	clear(own.OCSPStaple)
	own.Certificate[1], own.PrivateKey, own.Leaf = nil, b.PrivateKey, b.Leaf
	cert, err := m.GetCertificate(helloFor("a.example.com", ""))
	if err != nil || !bytes.Equal(cert.Certificate[0], a.Certificate[0]) || !bytes.Equal(cert.Certificate[1], b.Certificate[0]) || cert.PrivateKey != a.PrivateKey || !cert.Leaf.Equal(a.Leaf) || string(cert.OCSPStaple) != "staple" {
		t.Errorf("what the caller changed later is served: %v", err)
	}
}

// Files that hold what no client accepts now do not take the place of what is good,
// before their time has come or the other's is over. (F8, F9)
func TestStaticFilesThatAreNotValidNow(t *testing.T) {
	const name = "s.example.com"
	for _, tt := range []struct {
		what     string
		from, to time.Duration // of the new one, from the replacement on
		first    time.Duration // of the first
		taken    time.Duration
	}{
		{"not valid for an hour", time.Hour, 90 * day, 90 * day, time.Hour},
		{"not valid for two days, and the first ends before", 2 * day, 90 * day, day, day},
		{"ended", -90 * day, -time.Hour, day, day},
		{"valid", -time.Hour, 90 * day, 90 * day, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				files := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
				write := func(from, to time.Duration) *x509.Certificate {
					cert := makeCert(t, P256, time.Now().Add(from), time.Now().Add(to), name)
					writePair(t, files, cert)
					return cert.Leaf
				}
				first := write(-time.Hour, tt.first)
				m := offline(t, newFakeSigner(t), func(c *Config) {
					c.Certificates = []StaticCertificate{{CertFile: files.cert, KeyFile: files.key}}
				})
				second := write(tt.from, tt.to)
				began := time.Now()
				for time.Since(began) < tt.taken-time.Minute {
					if !mustLeaf(t, m, name).Equal(first) {
						t.Fatalf("after %v the new one is served", time.Since(began))
					}
					time.Sleep(10 * time.Minute)
				}
				time.Sleep(tt.taken + 2*time.Minute - time.Since(began))
				if !mustLeaf(t, m, name).Equal(second) {
					t.Error("the new one is not served when its time has come")
				}
			})
		})
	}
}

// An extra certificate in a chain that ended long ago says nothing of it; one that
// ends does. (F9)
func TestStaticChainEndsWithItsFirstCertificate(t *testing.T) {
	const name = "a.example.com"
	for what, want := range map[time.Duration]string{-200 * day: name, time.Hour: name, -time.Hour: "*.example.com"} {
		own, wild := makeCert(t, P256, time.Now().Add(-day), time.Now().Add(day), name), selfSigned(t, "*.example.com")
		own.Certificate = append(own.Certificate, makeCert(t, P256, time.Now().Add(-300*day), time.Now().Add(what), "ca.example.com").Certificate[0])
		m := offline(t, newFakeSigner(t), static(own, wild))
		checkHello(t, m, helloFor(name, ""), want)
	}
}
