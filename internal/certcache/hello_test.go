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
	"strings"
	"testing"
	"time"
)

// realEntry returns an entry whose certificate crypto/tls can judge.
func realEntry(t testing.TB, id string, key crypto.Signer, names ...string) *held {
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
	h := entry(id, names...).of(leaf.PublicKey)
	return h.with(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
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
	old := rs.again().during(-2*time.Hour, -time.Hour)
	old.id = "old"
	p384Key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, broken := realEntry(t, "p384", p384Key, name), ec.again()
	broken.served.Source = fakeSource{}
	p384Hello := modernHello(name)
	p384Hello.SignatureSchemes = append(p384Hello.SignatureSchemes, tls.ECDSAWithP384AndSHA384)
	p384Hello.SupportedCurves = append(p384Hello.SupportedCurves, tls.CurveP384)
	only13 := tls13Hello(name)
	none := rsaHello(name)
	none.SignatureSchemes = []tls.SignatureScheme{tls.Ed25519}
	tests := []struct {
		name    string
		entries []*held
		hello   *tls.ClientHelloInfo
		want    string
	}{
		{"no hello", []*held{rs, ec}, nil, "ecdsa"},
		{"modern", []*held{rs, ec}, modernHello(name), "ecdsa"},
		{"TLS 1.3 only", []*held{rs, ec}, only13, "ecdsa"},
		{"RSA only", []*held{rs, ec}, rsaHello(name), "rsa"},
		{"supports none", []*held{rs, ec}, none, "ecdsa"},
		{"empty hello", []*held{rs, ec}, &tls.ClientHelloInfo{}, "ecdsa"},
		{"one alone is not asked for", []*held{ec}, rsaHello(name), "ecdsa"},
		{"expired ones are not in question", []*held{ec, old}, rsaHello(name), "ecdsa"},
		{"wildcard, modern", []*held{rsWild, ecWild}, modernHello(name), "ecdsa wildcard"},
		{"an ECDSA key that is not P-256", []*held{rs, p384}, p384Hello, "p384"},
		{"an ECDSA key that is not P-256, RSA only", []*held{rs, p384}, rsaHello(name), "rsa"},
		{"one that cannot be parsed", []*held{rs, broken}, modernHello(name), "rsa"},
		{"wildcard, RSA only", []*held{rsWild, ecWild}, rsaHello(name), "rsa wildcard"},
	}
	for _, tt := range tests {
		c := New(0)
		var entries []*held
		for _, h := range tt.entries {
			entries = append(entries, h.again())
		}
		install(c, entries...)
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
		if takesP256(hello) && hello.SupportsCertificate(ec.cert) != nil {
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
	c := New(0)
	install(
		c, realEntry(t, "ecdsa", ecKey, name), realEntry(t, "rsa", rsaKey, name), realEntry(t, "wildcard", ecKey, "*.example.com"),
		entry("ip", "192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"), entry("alone", "alone.example.org"),
	)
	hello := modernHello(name)
	none := func(what string, look func()) {
		t.Helper()
		if got := testing.AllocsPerRun(100, look); got != 0 {
			t.Errorf("%s allocates %v times", what, got)
		}
	}
	long := strings.Repeat("long.", 40) + "example.com"
	for _, n := range []string{name, "alone.example.org", "other.example.com", "unknown.example.org", "192.0.2.1", "", long} {
		b := []byte(n)
		none("Lookup of "+n, func() { c.Lookup(n, hello) })
		none("FindBytes of "+n, func() { c.FindBytes(b, hello) })
	}
	for _, a := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8::2"} {
		addr := netip.MustParseAddr(a)
		none("LookupIP of "+a, func() { c.LookupIP(addr, hello) })
	}
	none("Sole and SoleIP", func() { c.Sole(); c.SoleIP() })
	one := New(0)
	install(one, entry("", "192.0.2.1"))
	none("Sole and SoleIP of one", func() { one.Sole(); one.SoleIP() })
}
