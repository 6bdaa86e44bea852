package certcache

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/netip"
	"testing"
	"time"
)

// realEntry returns an entry whose certificate crypto/tls can judge.
func realEntry(t testing.TB, id string, key crypto.Signer, names ...string) Entry {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	e := entry(id, names...)
	e.Cert = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return e
}

func modernHello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        name,
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.PKCS1WithSHA256},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		SupportedPoints:   []uint8{0},
	}
}

func rsaHello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        name,
		SupportedVersions: []uint16{tls.VersionTLS12},
		SignatureSchemes:  []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256},
		CipherSuites:      []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SupportedPoints:   []uint8{0},
	}
}

// tls13Hello is of a client that does not offer ECDSA for TLS 1.2.
func tls13Hello(name string) *tls.ClientHelloInfo {
	hello := modernHello(name)
	hello.SupportedVersions = []uint16{tls.VersionTLS13}
	hello.CipherSuites = []uint16{tls.TLS_AES_128_GCM_SHA256}
	return hello
}

func realKeys(t *testing.T) (*ecdsa.PrivateKey, *rsa.PrivateKey) {
	t.Helper()
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return ecKey, rsaKey
}

func TestLookupAsksHello(t *testing.T) {
	const name = "www.example.com"
	ecKey, rsaKey := realKeys(t)
	ec, rs := realEntry(t, "ecdsa", ecKey, name), realEntry(t, "rsa", rsaKey, name)
	ecWild, rsWild := realEntry(t, "ecdsa wildcard", ecKey, "*.example.com"), realEntry(t, "rsa wildcard", rsaKey, "*.example.com")
	old := during(rs, -2*time.Hour, -time.Hour)
	old.ID = "old"
	only13 := tls13Hello(name)
	none := rsaHello(name)
	none.SignatureSchemes = []tls.SignatureScheme{tls.Ed25519}
	tests := []struct {
		name    string
		entries []Entry
		hello   *tls.ClientHelloInfo
		want    string
	}{
		{"no hello", []Entry{rs, ec}, nil, "ecdsa"},
		{"modern", []Entry{rs, ec}, modernHello(name), "ecdsa"},
		{"TLS 1.3 only", []Entry{rs, ec}, only13, "ecdsa"},
		{"RSA only", []Entry{rs, ec}, rsaHello(name), "rsa"},
		{"supports none", []Entry{rs, ec}, none, "ecdsa"},
		{"empty hello", []Entry{rs, ec}, &tls.ClientHelloInfo{}, "ecdsa"},
		{"one alone is not asked for", []Entry{ec}, rsaHello(name), "ecdsa"},
		{"expired ones are not in question", []Entry{ec, old}, rsaHello(name), "ecdsa"},
		{"wildcard, modern", []Entry{rsWild, ecWild}, modernHello(name), "ecdsa wildcard"},
		{"wildcard, RSA only", []Entry{rsWild, ecWild}, rsaHello(name), "rsa wildcard"},
	}
	for _, tt := range tests {
		c := New()
		c.Install(now, tt.entries...)
		if got := idOf(c.Lookup(name, tt.hello), tt.entries); got != tt.want {
			t.Errorf("%s: got %q; want %q", tt.name, got, tt.want)
		}
	}
}

func TestFastAnswerAgreesWithTLS(t *testing.T) {
	const name = "www.example.com"
	ecKey, _ := realKeys(t)
	ec := realEntry(t, "ecdsa", ecKey, name)
	for _, hello := range []*tls.ClientHelloInfo{modernHello(name), tls13Hello(name), rsaHello(name), {}} {
		if takesP256(hello) && hello.SupportsCertificate(ec.Cert) != nil {
			t.Errorf("takesP256 is true for %+v", hello)
		}
	}
	if !takesP256(modernHello(name)) {
		t.Error("takesP256 is false for a modern client")
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	const name = "www.example.com"
	ecKey, rsaKey := realKeys(t)
	c := New()
	c.Install(
		now, realEntry(t, "ecdsa", ecKey, name), realEntry(t, "rsa", rsaKey, name), realEntry(t, "wildcard", ecKey, "*.example.com"),
		entry("ip", "192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"),
	)
	hello := modernHello(name)
	for _, n := range []string{name, "other.example.com", "unknown.example.org", "192.0.2.1", ""} {
		if got := testing.AllocsPerRun(100, func() { c.Lookup(n, hello) }); got != 0 {
			t.Errorf("Lookup(%q) allocates %v times", n, got)
		}
	}
	for _, a := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8::2"} {
		addr := netip.MustParseAddr(a)
		if got := testing.AllocsPerRun(100, func() { c.LookupIP(addr, hello) }); got != 0 {
			t.Errorf("LookupIP(%s) allocates %v times", a, got)
		}
	}
	if got := testing.AllocsPerRun(100, func() { c.Sole(); c.SoleIP() }); got != 0 {
		t.Errorf("Sole and SoleIP allocate %v times", got)
	}
}
