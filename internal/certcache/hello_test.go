package certcache_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
)

// realEntry returns an entry whose certificate crypto/tls can judge.
func realEntry(t testing.TB, id string, key crypto.Signer, names ...string) *held {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return entry(id, names...).with(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
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

// rsaHello is of a client with TLS 1.2 that takes RSA only.
func rsaHello(name string) *tls.ClientHelloInfo {
	hello := modernHello(name)
	hello.SupportedVersions = []uint16{tls.VersionTLS12}
	hello.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}
	hello.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	return hello
}

// tls13Hello is of a client that offers TLS 1.3 only.
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

func TestFirstKeyTypeThatTheClientSupports(t *testing.T) { // F61
	const name, wild = "www.example.com", "*.example.com"
	ecKey, rsaKey := realKeys(t)
	p384Key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, rs := realEntry(t, "ecdsa", ecKey, name), realEntry(t, "rsa", rsaKey, name).ranked(1)
	rsFirst, ecSecond := realEntry(t, "rsa", rsaKey, name), realEntry(t, "ecdsa", ecKey, name).ranked(1)
	ecWild, rsWild := realEntry(t, "ecdsa wildcard", ecKey, wild), realEntry(t, "rsa wildcard", rsaKey, wild).ranked(1)
	p384, newer := realEntry(t, "p384", p384Key, name), realEntry(t, "newer", rsaKey, name).ranked(1).during(-time.Minute, time.Hour)
	old := rs.again().during(-2*time.Hour, -time.Hour)
	old.id = "old"
	broken := ec.again()
	broken.source = failing{errBroken}
	p384Hello := modernHello(name)
	p384Hello.SignatureSchemes = append(p384Hello.SignatureSchemes, tls.ECDSAWithP384AndSHA384)
	p384Hello.SupportedCurves = append(p384Hello.SupportedCurves, tls.CurveP384)
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
		{"modern, RSA is the first key type", []*held{ecSecond, rsFirst}, modernHello(name), "rsa"},
		{"modern, RSA is the first, though older", []*held{newer, rsFirst, ecSecond}, modernHello(name), "rsa"},
		{"TLS 1.3 only", []*held{rs, ec}, tls13Hello(name), "ecdsa"},
		{"TLS 1.3 only, RSA first", []*held{ecSecond, rsFirst}, tls13Hello(name), "rsa"},
		{"RSA only", []*held{rs, ec}, rsaHello(name), "rsa"},
		{"supports none", []*held{rs, ec}, none, "ecdsa"},
		{"empty hello", []*held{rs, ec}, &tls.ClientHelloInfo{}, "ecdsa"},
		{"one alone is not asked for", []*held{ec}, rsaHello(name), "ecdsa"},
		{"expired ones are not in question", []*held{ec, old}, rsaHello(name), "ecdsa"},
		{"wildcard, modern", []*held{rsWild, ecWild}, modernHello(name), "ecdsa wildcard"},
		{"wildcard, RSA only", []*held{rsWild, ecWild}, rsaHello(name), "rsa wildcard"},
		{"P-384", []*held{rs, p384}, p384Hello, "p384"},
		{"P-384, to a client that takes P-256 and RSA", []*held{rs, p384}, modernHello(name), "rsa"},
		{"P-384, RSA only", []*held{rs, p384}, rsaHello(name), "rsa"},
		{"one that cannot be parsed", []*held{rs, broken}, modernHello(name), "rsa"},
		{"one that cannot be parsed, RSA only", []*held{rs, broken}, rsaHello(name), "rsa"},
	}
	for _, tt := range tests {
		c := certcache.New(0)
		var entries []*held
		for _, h := range tt.entries {
			entries = append(entries, h.again())
		}
		install(c, entries...)
		if got := idOf(c.Find(name, tt.hello).Cert, tt.entries); got != tt.want {
			t.Errorf("%s: got %q; want %q", tt.name, got, tt.want)
		}
	}
}

func TestKeyTypesWithoutAName(t *testing.T) { // F61
	ecKey, rsaKey := realKeys(t)
	ec, rs := realEntry(t, "ecdsa", ecKey, "www.example.com"), realEntry(t, "rsa", rsaKey, "www.example.com").ranked(1)
	ec.Names, rs.Names = []string{"www.example.com", "192.0.2.1"}, []string{"192.0.2.1", "www.example.com"}
	c, all := certcache.New(0), []*held{ec, rs}
	install(c, all...)
	addr := netip.MustParseAddr("192.0.2.1")
	for want, hello := range map[string]*tls.ClientHelloInfo{"ecdsa": modernHello(""), "rsa": rsaHello("")} {
		if got := idOf(sole(c, hello), all); got != want {
			t.Errorf("Sole = %q; want %q", got, want)
		}
		if got := idOf(soleIP(c, hello), all); got != want {
			t.Errorf("SoleIP = %q; want %q", got, want)
		}
		if got := idOf(c.FindIP(addr, hello).Cert, all); got != want {
			t.Errorf("FindIP = %q; want %q", got, want)
		}
		elsewhere := *hello
		elsewhere.ServerName = "elsewhere.example" // for which another name's certificate is served
		if got := idOf(c.Find("www.example.com", &elsewhere).Cert, all); got != want {
			t.Errorf("Find = %q; want %q", got, want)
		}
	}
}

// TestHandshakesWithTwoKeyTypes has crypto/tls's own hellos, which know what the
// server allows.
func TestHandshakesWithTwoKeyTypes(t *testing.T) { // F61
	const name = "www.example.com"
	ecKey, rsaKey := realKeys(t)
	onlyRSA, onlyECDSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	for _, tt := range []struct {
		name     string
		server   *tls.Config
		client   *tls.Config
		rsaFirst bool
		want     string
	}{
		{"modern", &tls.Config{}, &tls.Config{}, false, "ecdsa"},
		{"client with TLS 1.2", &tls.Config{}, &tls.Config{MaxVersion: tls.VersionTLS12}, false, "ecdsa"},
		{"server with TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{}, false, "ecdsa"},
		{"client with suites for RSA", &tls.Config{}, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: onlyRSA}, false, "rsa"},
		{"server with suites for RSA", &tls.Config{CipherSuites: onlyRSA}, &tls.Config{MaxVersion: tls.VersionTLS12}, false, "rsa"},
		{"server with TLS 1.2 and suites for RSA", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: onlyRSA}, &tls.Config{}, false, "rsa"},
		{"server with TLS 1.2, and one curve", &tls.Config{MaxVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.CurveP384}}, &tls.Config{}, false, "rsa"},
		{"server with TLS 1.3 and suites for RSA", &tls.Config{CipherSuites: onlyRSA}, &tls.Config{}, false, "ecdsa"},
		{"client with suites for RSA, server with TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{CipherSuites: onlyRSA}, false, "rsa"},
		{"RSA first", &tls.Config{}, &tls.Config{}, true, "rsa"},
		{"RSA first, server with TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{}, true, "rsa"},
		{"RSA first, server with TLS 1.2 and suites for ECDSA", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: onlyECDSA}, &tls.Config{}, true, "ecdsa"},
	} {
		c := certcache.New(0)
		all := []*held{realEntry(t, "ecdsa", ecKey, name).ranked(1), realEntry(t, "rsa", rsaKey, name).ranked(2)}
		if tt.rsaFirst {
			all[1] = realEntry(t, "rsa", rsaKey, name)
		}
		install(c, all...)
		var chosen *tls.Certificate
		tt.server.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			chosen = c.Find(hello.ServerName, hello).Cert
			return chosen, nil
		}
		shake(t, tt.server, tt.client)
		if got := idOf(chosen, all); got != tt.want {
			t.Errorf("%s: got %q; want %q", tt.name, got, tt.want)
		}
	}
}

// A server with suites of its own makes handshakes with one client by one key, and
// with another by the other. (F61)
func TestClientsOfOneServerAreToldApart(t *testing.T) {
	const name = "www.example.com"
	ecKey, rsaKey := realKeys(t)
	aes, chacha := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}
	for i, first := range []string{"ecdsa", "rsa"} {
		c := certcache.New(0)
		all := []*held{realEntry(t, "ecdsa", ecKey, name).ranked(uint8(i)), realEntry(t, "rsa", rsaKey, name).ranked(uint8(1 - i))}
		install(c, all...)
		conf := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{aes[i], chacha[1-i]}}
		for range 2 {
			for _, client := range []struct {
				suites []uint16
				want   string
			}{{nil, first}, {aes, first}, {chacha, all[1-i].id}} {
				var got string
				conf.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
					cert := c.Find(name, hello).Cert
					got = idOf(cert, all)
					return cert, nil
				}
				shake(t, conf, &tls.Config{CipherSuites: client.suites})
				if got != client.want {
					t.Errorf("%s first, client with %v: %s; want %s", first, client.suites, got, client.want)
				}
			}
		}
	}
}

// shake makes a handshake.
func shake(t *testing.T, server, client *tls.Config) {
	t.Helper()
	client.ServerName, client.InsecureSkipVerify = "www.example.com", true
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, server).Handshake() }()
	err := tls.Client(b, client).Handshake()
	if err != nil {
		t.Errorf("handshake: %v", err)
	}
	go b.Read(make([]byte, 1<<10)) // the session ticket
	if serverErr := <-done; serverErr != nil && err == nil {
		t.Errorf("handshake: %v", serverErr)
	}
}

// TestChoiceAgreesWithTLS takes parts away from what clients offer: whenever the
// first of two is chosen, crypto/tls must agree that the client supports it, or
// that it supports neither.
func TestChoiceAgreesWithTLS(t *testing.T) {
	const name = "www.example.com"
	ecKey, rsaKey := realKeys(t)
	for _, ranks := range [][2]uint8{{0, 1}, {1, 0}} {
		all := []*held{realEntry(t, "ecdsa", ecKey, name).ranked(ranks[0]), realEntry(t, "rsa", rsaKey, name).ranked(ranks[1])}
		c := certcache.New(0)
		install(c, all...)
		for mask := range 1 << 13 {
			hello := modernHello(name)
			thin(&hello.SupportedVersions, mask)
			thin(&hello.SignatureSchemes, mask>>2)
			thin(&hello.CipherSuites, mask>>5)
			thin(&hello.SupportedCurves, mask>>8)
			thin(&hello.SupportedPoints, mask>>11)
			cert := c.Find(name, hello).Cert
			first, second := all[ranks[0]], all[ranks[1]]
			want := first
			if hello.SupportsCertificate(first.cert) != nil && hello.SupportsCertificate(second.cert) == nil {
				want = second
			}
			if cert != want.cert {
				t.Fatalf("got %q; want %q for %+v", idOf(cert, all), want.id, hello)
			}
		}
	}
}

// thin takes those out of a list whose bit is not set.
func thin[T any](list *[]T, mask int) {
	var out []T
	for i, v := range *list {
		if mask&(1<<i) != 0 {
			out = append(out, v)
		}
	}
	*list = out
}

func TestLookupsDoNotAllocate(t *testing.T) {
	const name = "www.example.com"
	ecKey, rsaKey := realKeys(t)
	c := certcache.New(0)
	install(
		c, realEntry(t, "ecdsa", ecKey, name), realEntry(t, "wildcard", ecKey, "*.example.com"),
		realEntry(t, "ecdsa", ecKey, "two.example.org"), realEntry(t, "rsa", rsaKey, "two.example.org").ranked(1),
		entry("ip", "192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"), entry("alone", "alone.example.org"),
		entry("old", "old.example.com").during(-3*time.Hour, -time.Hour),
	)
	hello := modernHello(name)
	none := func(what string, look func()) {
		t.Helper()
		if got := testing.AllocsPerRun(100, look); got != 0 {
			t.Errorf("%s allocates %v times", what, got)
		}
	}
	long := strings.Repeat("long.", 40) + "example.com"
	for _, n := range []string{name, "alone.example.org", "old.example.com", "other.example.com", "unknown.example.org", "192.0.2.1", "", long, strings.Repeat(long, 2)} {
		b, upper := []byte(n), strings.ToUpper(n)+"."
		none("Find of "+n, func() { c.Find(n, hello) })
		none("FindBytes of "+n, func() { c.FindBytes(b, hello) })
		none("FindBytes of "+upper, func() {
			var buf [hostname.MaxSNI]byte
			key, _ := hostname.AppendSNI(buf[:0], upper)
			c.FindBytes(key, hello)
		})
	}
	for _, a := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8::2"} {
		addr := netip.MustParseAddr(a)
		none("FindIP of "+a, func() { c.FindIP(addr, hello) })
	}
	none("Sole and SoleIP of several", func() { c.Sole(hello); c.SoleIP(hello) })
	for _, names := range [][]string{{"192.0.2.1"}, {"*.example.com"}} {
		one := certcache.New(0)
		install(one, entry("", names...))
		none("Sole and SoleIP of one", func() { one.Sole(hello); one.SoleIP(hello) })
	}
	if got := testing.AllocsPerRun(100, func() { c.Find("two.example.org", hello) }); got > 2 {
		t.Errorf("the choice of two key types allocates %v times", got)
	}
}
