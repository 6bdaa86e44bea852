package certwright_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/storage"
)

// An expired wildcard neither hides an exact name nor keeps it from being issued.
func TestExpiredWildcardHidesNoName(t *testing.T) {
	f := newFakeSigner(t)
	expired := makeCert(t, P256, time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour), "*.example.com")
	m := offline(t, f, static(expired))
	checkHello(t, m, helloFor("a.example.com", ""), "*.example.com") // better than nothing
	f.set(func() { f.err = errors.New("down") })
	if err := m.ManageSync(t.Context(), []string{"a.example.com"}); err == nil {
		t.Fatal("the expired wildcard passed for a certificate")
	}
	checkHello(t, m, helloFor("a.example.com", ""), "*.example.com")
	f.set(func() { f.err = nil })
	if err := m.Renew(t.Context(), "a.example.com"); err != nil {
		t.Fatal(err)
	}
	checkHello(t, m, helloFor("a.example.com", ""), "a.example.com")
	checkHello(t, m, helloFor("b.example.com", ""), "*.example.com")
}

// A valid wildcard goes before an expired certificate for the exact name, and a
// valid exact one before the wildcard.
func TestValidBeforeExactBeforeWildcard(t *testing.T) {
	old := makeCert(t, P256, time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour), "a.example.com")
	m := offline(t, newFakeSigner(t), static(old, selfSigned(t, "*.example.com"), selfSigned(t, "b.example.com")))
	checkHello(t, m, helloFor("a.example.com", ""), "*.example.com")
	checkHello(t, m, helloFor("b.example.com", ""), "b.example.com")
}

// A wildcard that cannot be issued keeps no name below it from its own
// certificate.
func TestWildcardWithoutSolver(t *testing.T) {
	m, err := New(Config{AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Directory: "https://ca.test/dir"})
	if err != nil {
		t.Fatal(err)
	}
	defer closeManager(t, m)
	var ce *ConfigError
	if err := m.ManageAsync([]string{"*.a.example.com"}); !errors.As(err, &ce) || !strings.Contains(err.Error(), `Solvers["dns-01"]`) {
		t.Errorf("wildcard without a dns-01 solver: %v; want a *ConfigError that names the solver", err)
	}
	f := newFakeSigner(t)
	own := offline(t, f, static(selfSigned(t, "*.a.example.com")))
	if err := own.ManageSync(t.Context(), []string{"b.a.example.com"}); err != nil {
		t.Fatal(err)
	}
	checkHello(t, own, helloFor("b.a.example.com", ""), "b.a.example.com")
	if f.count() != 1 {
		t.Errorf("%d certificates issued, want 1", f.count())
	}
}

// An expired certificate that cannot be replaced is served at once, and handshakes
// cause no attempt.
func TestExpiredIsServedWhileTheCAFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		m := offline(t, f)
		if err := m.ManageSync(t.Context(), []string{"old.example.com"}); err != nil {
			t.Fatal(err)
		}
		f.set(func() { f.err = errors.New("down") })
		time.Sleep(100 * 24 * time.Hour)
		synctest.Wait()
		before := f.count()
		if before > 400 {
			t.Errorf("%d attempts in 40 days of a failing CA: no back-off", before)
		}
		start := time.Now()
		for range 1000 {
			checkHello(t, m, helloFor("old.example.com", ""), "old.example.com")
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("1,000 handshakes waited for %v", took)
		}
		if after := f.count(); after != before {
			t.Errorf("handshakes caused %d attempts", after-before)
		}
		if s := m.Status()[0]; s.State != StateExpired || s.LastError == "" || !s.NextAt.After(time.Now()) {
			t.Errorf("status %+v", s)
		}
		f.set(func() { f.err = nil })
		time.Sleep(3 * 24 * time.Hour) // longer than any back-off
		if s := m.Status()[0]; s.State != StateValid {
			t.Errorf("not replaced once the CA was back: %+v", s)
		}
	})
}

// The kind of key is configuration: no ClientHello changes what is ordered.
func TestKeyTypeIsNotTheClients(t *testing.T) {
	f := newFakeSigner(t)
	m := offline(t, f)
	if err := m.ManageSync(t.Context(), []string{"example.com"}); err != nil {
		t.Fatal(err)
	}
	rsaOnly := helloFor("example.com", "")
	rsaOnly.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	rsaOnly.SignatureSchemes = []tls.SignatureScheme{tls.PKCS1WithSHA256}
	rsaOnly.SupportedVersions = []uint16{tls.VersionTLS12}
	var first *tls.Certificate
	for _, h := range []*tls.ClientHelloInfo{{ServerName: "example.com"}, helloFor("example.com", ""), rsaOnly} {
		cert, err := m.GetCertificate(h)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = cert
		}
		if cert != first {
			t.Error("another certificate for another hello")
		}
	}
	if f.count() != 1 {
		t.Errorf("%d orders, want 1", f.count())
	}
}

func TestNoNameIsEvicted(t *testing.T) {
	f := newFakeSigner(t)
	m := offline(t, f)
	names := numbered(100, "example.com")
	if err := m.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		n := names[rand.IntN(len(names))]
		cert, err := m.GetCertificate(helloFor(n, ""))
		if err != nil || cert.Leaf.DNSNames[0] != n {
			t.Fatalf("%q: %v", n, err)
		}
	}
	if f.count() != len(names) {
		t.Errorf("%d orders for %d names", f.count(), len(names))
	}
}

// A certificate whose NotBefore is a minute ahead waits for it while the old one is
// good, and is served at once where there is no other.
func TestNewCertificateWaitsForItsNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		m := offline(t, f)
		if err := m.ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		old, err := m.GetCertificate(helloFor("a.example.com", ""))
		if err != nil {
			t.Fatal(err)
		}
		f.set(func() {
			f.validity = func() (time.Time, time.Time) {
				return time.Now().Add(time.Minute), time.Now().Add(90 * 24 * time.Hour)
			}
		})
		if err := m.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		served := func(name string) *tls.Certificate {
			t.Helper()
			cert, err := m.GetCertificate(helloFor(name, ""))
			if err != nil {
				t.Fatal(err)
			}
			return cert
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if served("a.example.com") != old {
			t.Error("a certificate that is not valid yet took the place of a good one")
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if served("a.example.com") == old {
			t.Error("the new certificate is not served after its NotBefore")
		}
		if err := m.ManageSync(t.Context(), []string{"b.example.com"}); err != nil {
			t.Fatal(err)
		}
		if served("b.example.com").Leaf.NotBefore.Before(time.Now()) {
			t.Error("this test shows nothing: the first certificate is valid already")
		}
		if n := f.count(); n != 3 {
			t.Errorf("%d orders, want 3", n)
		}
	})
}

func BenchmarkGetCertificate(b *testing.B) {
	f := newFakeSigner(b)
	m := offline(b, f)
	names := numbered(1000, "example.com")
	if err := m.ManageSync(b.Context(), names); err != nil {
		b.Fatal(err)
	}
	h := helloFor(fmt.Sprintf("n%d.example.com", 500), "10.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		if cert, err := m.GetCertificate(h); cert == nil {
			b.Fatal(err)
		}
	}
}

// The order of the key types is that of the last call that names several. (F61)
func TestKeyTypesInAnotherOrder(t *testing.T) {
	m := offline(t, newFakeSigner(t))
	for _, types := range [][]KeyType{{P256, P384}, {P384, P256}, {P256, P384}, {P256}} {
		if err := m.Manage(t.Context(), Spec{Names: []string{"a.example.com"}, KeyTypes: types}); err != nil {
			t.Fatal(err)
		}
		hello := helloFor("a.example.com", "")
		hello.SignatureSchemes = append(hello.SignatureSchemes, tls.ECDSAWithP384AndSHA384)
		hello.SupportedCurves = append(hello.SupportedCurves, tls.CurveP384)
		cert, err := m.GetCertificate(hello)
		if err != nil {
			t.Fatal(err)
		}
		if kt, _ := certpem.TypeOf(cert.Leaf.PublicKey); kt != types[0] {
			t.Errorf("%v: served is %v", types, kt)
		}
	}
}
