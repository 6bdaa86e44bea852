package certwright_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/storage"
)

func TestClientWithoutServerName(t *testing.T) {
	a, b, ip := selfSigned(t, "a.example.com"), selfSigned(t, "b.example.com"), selfSigned(t, "203.0.113.1")
	def := func(name string) func(*Config) { return func(c *Config) { c.DefaultName = name } }
	fall := func(name string) func(*Config) { return func(c *Config) { c.FallbackName = name } }
	for _, tc := range []struct {
		name    string
		changes []func(*Config)
		local   string
		want    string
	}{
		{"no certificate", nil, "10.0.0.1", ""},
		{"one", []func(*Config){static(a)}, "10.0.0.1", "a.example.com"},
		{"one, no address known", []func(*Config){static(a)}, "", "a.example.com"},
		{"two", []func(*Config){static(a, b)}, "10.0.0.1", ""},
		{"two and a default", []func(*Config){static(a, b), def("B.example.com.")}, "10.0.0.1", "b.example.com"},
		{"two and a default without a certificate", []func(*Config){static(a, b), def("c.example.com")}, "10.0.0.1", ""},
		{"two and a fallback", []func(*Config){static(a, b), fall("b.example.com")}, "10.0.0.1", "b.example.com"},
		{"the connection's address", []func(*Config){static(a, b, ip), def("a.example.com")}, "203.0.113.1", "203.0.113.1"},
		{"the connection's address, mapped", []func(*Config){static(a, b, ip)}, "::ffff:203.0.113.1", "203.0.113.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := offline(t, newFakeSigner(t), tc.changes...)
			checkHello(t, m, helloFor("", tc.local), tc.want)
		})
	}
	_, err := offline(t, newFakeSigner(t), static(a, b)).GetCertificate(helloFor("", ""))
	if err == nil || !strings.Contains(err.Error(), "Config.DefaultName") {
		t.Errorf("error %v, want one that names the field to set", err)
	}
}

// Behind NAT the connection's own address is a private one.
func TestClientWithoutServerNameBehindNAT(t *testing.T) {
	a, ip := selfSigned(t, "a.example.com"), selfSigned(t, "203.0.113.1")
	f := newFakeSigner(t)
	m := offline(t, f, static(a, ip))
	checkHello(t, m, helloFor("", "10.0.0.79"), "203.0.113.1")
	m = offline(t, f, static(a, ip), func(c *Config) { c.DefaultName = "a.example.com" })
	checkHello(t, m, helloFor("", "10.0.0.79"), "a.example.com")
	m = offline(t, f, static(a, ip, selfSigned(t, "203.0.113.2")))
	checkHello(t, m, helloFor("", "10.0.0.79"), "") // which of them cannot be known
	if f.count() != 0 || len(m.Status()) != 0 {
		t.Error("a private address was ordered for")
	}
}

func TestServerNameWithATrailingDot(t *testing.T) {
	m := offline(t, newFakeSigner(t), static(selfSigned(t, "example.com"), selfSigned(t, "*.example.com")))
	checkHello(t, m, helloFor("example.com.", ""), "example.com")
	checkHello(t, m, helloFor("EXAMPLE.com.", ""), "example.com")
	checkHello(t, m, helloFor("www.example.com.", ""), "*.example.com")
	checkHello(t, m, helloFor("example.com..", ""), "")
	checkHello(t, m, helloFor(".", ""), "")
}

// Names that only serve to do harm are a miss, whatever is configured.
func TestHostileServerNames(t *testing.T) {
	m := offline(t, newFakeSigner(t), static(selfSigned(t, "example.com"), selfSigned(t, "*.example.com")))
	for _, name := range []string{
		"..", "*", "*.example.com", "a..example.com", ".example.com", "a.b.example.com", "exa mple.com", "example.com\x00", "\x00.example.com",
		"example.com:443", "[::1]", "[", "::", "1.2.3", "999.0.0.1", "../../etc/passwd", "a/b.example.com", `a\b.example.com`,
		"xn--.invalid", "täst.example.com", strings.Repeat("a", 64) + ".example.com", strings.Repeat("a.", 130) + "example.com", strings.Repeat("x", 1<<16),
		"\u202e.example.com", "\xff\xfe", "%2e.example.com", "com", "invalid",
	} {
		checkHello(t, m, helloFor(name, "10.0.0.1"), "")
		validation := helloFor(name, "10.0.0.1")
		validation.SupportedProtos = []string{alpnProto}
		checkHello(t, m, validation, "")
	}
	m = offline(t, newFakeSigner(t), static(selfSigned(t, "example.com")), func(c *Config) { c.FallbackName = "example.com" })
	checkHello(t, m, helloFor("*", ""), "example.com")
	checkHello(t, m, helloFor("other.example.org", ""), "example.com")
}

// The error says whether the name is managed.
func TestErrorOfAMissSaysWhetherTheNameIsManaged(t *testing.T) {
	f := newFakeSigner(t)
	f.err = errors.New("out of ink")
	m := offline(t, f)
	if err := m.ManageSync(t.Context(), []string{"late.example.com"}); err == nil {
		t.Fatal("issued")
	}
	_, err := m.GetCertificate(helloFor("late.example.com", ""))
	if !errors.Is(err, ErrNoCertificate) || errors.Is(err, ErrNotManaged) || !strings.Contains(err.Error(), "late.example.com") {
		t.Errorf("managed name: %v", err)
	}
	_, err = m.GetCertificate(helloFor("never.example.com", ""))
	if !errors.Is(err, ErrNoCertificate) || !errors.Is(err, ErrNotManaged) || !strings.Contains(err.Error(), "never.example.com") {
		t.Errorf("unknown name: %v", err)
	}
}

// acme-tls/1 is answered for a pending challenge only, here one of another
// instance, and only when it is all that the client speaks.
func TestValidationHandshakes(t *testing.T) {
	const name = "example.com"
	shared := storage.NewMemory()
	m := offline(t, newFakeSigner(t), static(selfSigned(t, name)), func(c *Config) { c.Storage = shared })
	others := tableOn(t, shared)
	validation := helloFor(name, "")
	validation.SupportedProtos = []string{alpnProto}
	checkHello(t, m, validation, "")
	present := func(token string) func() {
		ch := challenge.Challenge{Type: challenge.TLSALPN01, Identifier: name, Token: token, KeyAuthorization: token + ".thumb"}
		if err := others.Present(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := others.CleanUp(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
		}
	}
	answer := func() string { // the challenge's certificate is told by its critical extension
		t.Helper()
		cert, err := m.GetCertificate(validation)
		if err != nil {
			t.Fatal(err)
		}
		for _, ext := range cert.Leaf.Extensions {
			if ext.Id.String() == "1.3.6.1.5.5.7.1.31" && ext.Critical {
				return string(ext.Value)
			}
		}
		t.Fatal("the certificate lacks id-pe-acmeIdentifier (RFC 8737 §3)")
		return ""
	}
	removeOld := present("old")
	oldAnswer := answer()
	removeNew := present("new") // the newest key authorization wins
	newAnswer := answer()
	if oldAnswer == newAnswer {
		t.Error("the old challenge is still answered")
	}
	both := helloFor(name, "")
	both.SupportedProtos = []string{"h2", alpnProto}
	checkHello(t, m, both, name)
	if cert, _ := m.GetCertificate(both); len(cert.Leaf.UnhandledCriticalExtensions) > 0 {
		t.Error("a client that speaks other protocols got the challenge's certificate")
	}
	other := helloFor("other.example.com", "")
	other.SupportedProtos = []string{alpnProto}
	checkHello(t, m, other, "")
	removeNew()
	if answer() != oldAnswer {
		t.Error("the challenge that is still pending is not answered")
	}
	removeOld()
	checkHello(t, m, validation, "")
}

// tableOn returns the challenges of another instance on a storage.
func tableOn(t testing.TB, s Storage) *challenge.Table {
	return challenge.New(challenge.Options{
		Store: s, Prefix: keyChallenges, Cert: acmeflow.TLSALPNCertificate, Go: func(f func()) { go f() }, Context: t.Context(),
	})
}

// pipe makes a handshake with conf over a pipe.
func pipe(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	srv := tls.Server(a, server)
	go func() { done <- srv.HandshakeContext(t.Context()) }()
	cli := tls.Client(b, client)
	err := cli.HandshakeContext(t.Context())
	if err != nil {
		a.Close()
	}
	return cli.ConnectionState(), errors.Join(err, <-done)
}

// What GetCertificate selects comes out of real handshakes.
func TestRealHandshakes(t *testing.T) {
	f := newFakeSigner(t)
	m := offline(t, f)
	if err := m.ManageSync(t.Context(), []string{"a.example.com", "b.example.com"}); err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, name := range []string{"a.example.com", "b.example.com", "A.EXAMPLE.com"} {
			state, err := pipe(t, m.TLSConfig(), &tls.Config{ServerName: name, RootCAs: f.roots(), MinVersion: version, MaxVersion: version, NextProtos: []string{"h2"}})
			if err != nil {
				t.Errorf("%x %q: %v", version, name, err)
			} else if state.NegotiatedProtocol != "h2" || state.Version != version {
				t.Errorf("%x %q: negotiated %x %q", version, name, state.Version, state.NegotiatedProtocol)
			}
		}
		if _, err := pipe(t, m.TLSConfig(), &tls.Config{ServerName: "c.example.com", RootCAs: f.roots(), MaxVersion: version}); err == nil {
			t.Errorf("%x: a handshake for a name without a certificate succeeded", version)
		}
	}
	if _, err := pipe(t, m.TLSConfig(), &tls.Config{ServerName: "a.example.com", RootCAs: f.roots(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	if got := fmt.Sprint(m.TLSConfig().CurvePreferences, m.TLSConfig().CipherSuites); got != "[] []" {
		t.Errorf("curves and cipher suites %s, want Go's own", got)
	}
}
