package certwright_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/storage"
)

// idPeAcmeIdentifier is the extension that answers tls-alpn-01 (RFC 8737 §3).
const idPeAcmeIdentifier = "1.3.6.1.5.5.7.1.31"

// answersValidation reports whether a handshake got the answer to tls-alpn-01.
func answersValidation(state tls.ConnectionState) bool {
	return len(state.PeerCertificates) > 0 && state.NegotiatedProtocol == alpnProto &&
		slices.ContainsFunc(state.PeerCertificates[0].UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool { return id.String() == idPeAcmeIdentifier })
}

// validator is what a CA's validator says (RFC 8737 §3).
func validator(name string) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: []string{alpnProto}, InsecureSkipVerify: true}
}

// shake makes a handshake with conf over TCP, and returns what either end says of
// it: a client of TLS 1.3 has done its part before it is looked at.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln := listenPort(t, 0)
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			err = errors.Join(tls.Server(conn, server).HandshakeContext(t.Context()), conn.(*net.TCPConn).CloseWrite())
			_, _ = io.Copy(io.Discard, conn) // until the client has read it all
			conn.Close()
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cli := tls.Client(conn, client)
	if err = cli.HandshakeContext(t.Context()); err == nil {
		_, _ = cli.Read(make([]byte, 1)) // a session's ticket, or an alert
	}
	conn.Close()
	return cli.ConnectionState(), errors.Join(err, <-done)
}

// wrapped is a Manager on a storage in which a challenge for "managed.example.com"
// is pending that another instance presented, and a managed certificate.
func wrapped(t *testing.T, change ...func(*Config)) (*Manager, *fakeSigner) {
	t.Helper()
	f, shared := newFakeSigner(t), storage.NewMemory()
	m := offline(t, f, append(change, func(c *Config) { c.Storage = shared })...)
	manage(t, m, "managed.example.com")
	ch := challenge.Challenge{Type: challenge.TLSALPN01, Identifier: "managed.example.com", Token: "tok", KeyAuthorization: "tok.thumb"}
	if err := tableOn(t, shared).Present(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	return m, f
}

// What a server asks of its clients, or has limited itself to, keeps no CA out and
// holds for everybody else (F64).
func TestValidationPassesWhateverTheServerAsksOfItsClients(t *testing.T) {
	m, f := wrapped(t)
	own := selfSigned(t, "own.example.com")
	refuse := errors.New("refused by the server")
	plain := func() *tls.Config { return &tls.Config{ServerName: "managed.example.com", RootCAs: f.roots()} }
	for _, tt := range []struct {
		name     string
		conf     *tls.Config
		ordinary bool // a client without a certificate of its own is served
	}{
		{"nothing", nil, true},
		{"a client certificate", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}, false},
		{"any client certificate", &tls.Config{ClientAuth: tls.RequireAnyClientCert}, false},
		{"VerifyConnection", &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return refuse }}, false},
		{"VerifyPeerCertificate", &tls.Config{ClientAuth: tls.RequireAnyClientCert, VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return refuse }}, false},
		{"TLS 1.3 only", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"TLS 1.2 only", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"RSA suites only", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, false}, // the managed key is ECDSA
		{"one curve", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}, true},
		{"own protocols", &tls.Config{NextProtos: []string{"x-own"}}, true},
		{"own certificates", &tls.Config{Certificates: []tls.Certificate{*own}}, true},
		{"own hook", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil }}, true},
		{"own hook that fails", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, refuse }}, true},
		{"configs: none", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}, true},
		{"configs: refuses", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, refuse }}, false},
		{"configs: without certificates", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{}, nil
		}}, true},
		{"configs: with certificates", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{*own}}, nil
		}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf := m.TLS(&http.Server{TLSConfig: tt.conf}).TLSConfig
			if state, err := shake(t, conf, validator("managed.example.com")); err != nil || !answersValidation(state) {
				t.Errorf("validation: %v, protocol %q", err, state.NegotiatedProtocol)
			}
			if state, err := shake(t, conf, validator("other.example.com")); err == nil {
				t.Errorf("a validation that nobody waits for got the certificate of %v", state.PeerCertificates[0].DNSNames)
			}
			if _, err := shake(t, conf, validator("own.example.com")); err == nil {
				t.Error("a refused validation got the server's own certificate")
			}
			if _, err := shake(t, conf, plain()); (err == nil) != tt.ordinary {
				t.Errorf("an ordinary client: %v; served: %v", err, tt.ordinary)
			}
		})
	}
}

// The config that a Manager makes lets a CA in too when more is asked of clients
// (F64).
func TestValidationPassesThroughAConfigThatWasChanged(t *testing.T) {
	m, f := wrapped(t)
	for what, change := range map[string]func(*tls.Config){
		"a client certificate": func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool() },
		"VerifyConnection":     func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") } },
		"other protocols":      func(c *tls.Config) { c.NextProtos = []string{"h2"} },
	} {
		conf := m.TLSConfig()
		change(conf)
		if state, err := shake(t, conf.Clone(), validator("managed.example.com")); err != nil || !answersValidation(state) {
			t.Errorf("%s: validation: %v", what, err)
		}
		_, err := shake(t, conf, &tls.Config{ServerName: "managed.example.com", RootCAs: f.roots()})
		if (err == nil) != (what == "other protocols") {
			t.Errorf("%s: an ordinary client: %v", what, err)
		}
	}
}

// Two that answer validations serve one server: each answers its own, and neither
// anything else (F64).
func TestValidationsOfTwoManagersOnOneServer(t *testing.T) {
	names := []string{"managed.example.com", "second.example.com"}
	one, _ := wrapped(t)
	shared := storage.NewMemory()
	two := offline(t, newFakeSigner(t), func(c *Config) { c.Storage = shared })
	manage(t, two, names[1])
	ch := challenge.Challenge{Type: challenge.TLSALPN01, Identifier: names[1], Token: "tok", KeyAuthorization: "tok.thumb"}
	if err := tableOn(t, shared).Present(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	for what, conf := range map[string]*tls.Config{
		"TLS of both":      one.TLS(two.TLS(&http.Server{})).TLSConfig,
		"the other first":  two.TLS(one.TLS(&http.Server{})).TLSConfig,
		"the other's conf": one.TLS(&http.Server{TLSConfig: two.TLSConfig()}).TLSConfig,
		"the other's hook": one.TLS(&http.Server{TLSConfig: &tls.Config{GetCertificate: two.GetCertificate, ClientAuth: tls.RequireAnyClientCert}}).TLSConfig,
	} {
		for _, name := range names {
			if state, err := shake(t, conf, validator(name)); err != nil || !answersValidation(state) {
				t.Errorf("%s: validation of %s: %v", what, name, err)
			}
			if what == "the other's hook" {
				continue
			}
			if state, err := shake(t, conf, &tls.Config{ServerName: name, InsecureSkipVerify: true}); err != nil || state.PeerCertificates[0].DNSNames[0] != name {
				t.Errorf("%s: a client for %s: %v", what, name, err)
			}
		}
		if _, err := shake(t, conf, validator("third.example.com")); err == nil {
			t.Errorf("%s: a validation that nobody waits for succeeded", what)
		}
	}
}

// Whoever the server lets in by a client's certificate, it does so also after a
// validation handshake, of which nothing can be resumed.
func TestValidationHandshakeCannotBeResumed(t *testing.T) {
	m, _ := wrapped(t)
	conf := m.TLS(&http.Server{TLSConfig: &tls.Config{VerifyConnection: func(tls.ConnectionState) error { return errors.New("no") }}}).TLSConfig
	sessions := tls.NewLRUClientSessionCache(4)
	client := validator("managed.example.com")
	client.ClientSessionCache = sessions
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client.MinVersion, client.MaxVersion = version, version
		for range 2 {
			state, err := shake(t, conf, client)
			if err != nil || state.DidResume {
				t.Errorf("%x: %v, resumed: %v", version, err, state.DidResume)
			}
		}
	}
}

// The Manager's certificates go first, then the server's own, then FallbackName's
// (F64).
func TestOrderOfTheServersOwnCertificates(t *testing.T) {
	own, wild := selfSigned(t, "own.example.com"), selfSigned(t, "*.own.example.com")
	hook := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == "own.example.com" {
			return own, nil
		}
		return nil, errors.New("the server's own words")
	}
	fallback := func(c *Config) { c.FallbackName = "managed.example.com" }
	certificates := &tls.Config{Certificates: []tls.Certificate{*own, *wild}}
	for _, tt := range []struct {
		name   string
		conf   *tls.Config
		change []func(*Config)
		sni    string
		want   string // the first name in the certificate; "": the handshake fails
	}{
		{"managed", certificates, nil, "managed.example.com", "managed.example.com"},
		{"no server name", certificates, nil, "", "managed.example.com"},
		{"address", certificates, nil, "192.0.2.1", "managed.example.com"},
		{"the server's own", certificates, nil, "own.example.com", "own.example.com"},
		{"the server's second", certificates, nil, "a.own.example.com", "*.own.example.com"},
		{"nobody's", certificates, nil, "nobody.example.com", "own.example.com"}, // as crypto/tls does
		{"the server's own before the fallback", certificates, []func(*Config){fallback}, "own.example.com", "own.example.com"},
		{"nobody's, and a fallback", certificates, []func(*Config){fallback}, "nobody.example.com", "managed.example.com"},
		{"hook", &tls.Config{GetCertificate: hook}, nil, "own.example.com", "own.example.com"},
		{"hook that fails", &tls.Config{GetCertificate: hook}, nil, "nobody.example.com", ""},
		{"hook before the fallback", &tls.Config{GetCertificate: hook}, []func(*Config){fallback}, "own.example.com", "own.example.com"},
		{"hook that fails, and a fallback", &tls.Config{GetCertificate: hook}, []func(*Config){fallback}, "nobody.example.com", "managed.example.com"},
		{"hook and certificates", &tls.Config{GetCertificate: hook, Certificates: []tls.Certificate{*wild}}, nil, "a.own.example.com", "*.own.example.com"},
		{"a config without certificates", &tls.Config{Certificates: []tls.Certificate{*own}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{}, nil
		}}, nil, "own.example.com", "own.example.com"},
		{"a config without certificates, no server name", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{}, nil
		}}, nil, "", "managed.example.com"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := wrapped(t, tt.change...)
			conf := m.TLS(&http.Server{TLSConfig: tt.conf}).TLSConfig
			state, err := shake(t, conf, &tls.Config{ServerName: tt.sni, InsecureSkipVerify: true})
			got := ""
			if err == nil {
				got = state.PeerCertificates[0].DNSNames[0]
			}
			if got != tt.want {
				t.Errorf("certificate of %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// What is negotiated is spoken, however the server is run (F70).
func TestOffersWhatTheServerSpeaks(t *testing.T) {
	only := func(set func(*http.Protocols)) *http.Protocols {
		p := new(http.Protocols)
		set(p)
		return p
	}
	noMap := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	for _, tt := range []struct {
		name string
		srv  *http.Server
		want string
	}{
		{"by default", &http.Server{}, "HTTP/2.0"},
		{"TLSNextProto", &http.Server{TLSNextProto: noMap}, "HTTP/1.1"},
		{"Protocols", &http.Server{Protocols: only(func(p *http.Protocols) { p.SetHTTP1(true) })}, "HTTP/1.1"},
		{"Protocols, both", &http.Server{Protocols: only(func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) })}, "HTTP/2.0"},
		{"Protocols, HTTP/2 only", &http.Server{Protocols: only(func(p *http.Protocols) { p.SetHTTP2(true) })}, "HTTP/2.0"},
		{"NextProtos without h2", &http.Server{TLSConfig: &tls.Config{NextProtos: []string{"http/1.1"}}}, "HTTP/1.1"},
		{"NextProtos with h2, turned off", &http.Server{TLSNextProto: noMap, TLSConfig: &tls.Config{NextProtos: []string{"h2", "http/1.1"}}}, "HTTP/1.1"},
		{"NextProtos with h2 only, turned off", &http.Server{TLSNextProto: noMap, TLSConfig: &tls.Config{NextProtos: []string{"h2"}}}, "HTTP/1.1"},
		{"NextProtos with HTTP/1.1 only, turned off", &http.Server{Protocols: only(func(p *http.Protocols) { p.SetHTTP2(true) }), TLSConfig: &tls.Config{NextProtos: []string{"http/1.1"}}}, "HTTP/2.0"},
		{"GODEBUG", &http.Server{}, "HTTP/1.1"},
	} {
		for _, way := range []string{"NewListener", "ServeTLS"} {
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				if strings.HasPrefix(tt.name, "GODEBUG") {
					t.Setenv("GODEBUG", "madvdontneed=1,http2server=0")
				}
				m, f := wrapped(t)
				srv := &http.Server{TLSConfig: tt.srv.TLSConfig.Clone(), TLSNextProto: tt.srv.TLSNextProto, Protocols: tt.srv.Protocols}
				srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
				ln := listenPort(t, 0)
				m.TLS(srv)
				serveOn(t, srv, func(srv *http.Server) error {
					if way == "ServeTLS" {
						return srv.ServeTLS(ln, "", "")
					}
					return srv.Serve(tls.NewListener(ln, srv.TLSConfig))
				})
				client := tlsClient(t, "managed.example.com", f.roots())
				if got := fetch(t, client, "https://"+ln.Addr().String()); got != tt.want {
					t.Errorf("answer %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// What is said of files beside a server that TLS has set up: crypto/tls serves them
// to clients that send no server name, and to no others.
func TestFilesBesideTLS(t *testing.T) {
	m, f := wrapped(t)
	own, dir := selfSigned(t, "own.example.com"), t.TempDir()
	files := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writePair(t, files, own)
	ln := listenPort(t, 0)
	serveOn(t, m.TLS(&http.Server{}), func(srv *http.Server) error { return srv.ServeTLS(ln, files.cert, files.key) })
	for name, want := range map[string]string{"": "own.example.com", "managed.example.com": "managed.example.com"} {
		conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: name, RootCAs: f.roots(), InsecureSkipVerify: name == ""})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0]; got.VerifyHostname(want) != nil {
			t.Errorf("for %q %q is served, want %q", name, got.DNSNames, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// quicAddr is an address as other network libraries have them.
type quicAddr string

func (quicAddr) Network() string  { return "quic" }
func (a quicAddr) String() string { return string(a) }

// portAddr is one that says its address and port.
type portAddr netip.AddrPort

func (portAddr) Network() string            { return "own" }
func (portAddr) String() string             { return "own" }
func (a portAddr) AddrPort() netip.AddrPort { return netip.AddrPort(a) }

// An address and a port is one whatever its type is (F62).
func TestAddressOfAnyKindOfConnection(t *testing.T) {
	m := offline(t, newFakeSigner(t), static(selfSigned(t, "a.example.com"), selfSigned(t, "203.0.113.1"), selfSigned(t, "2001:db8::1")))
	v4, v6 := net.ParseIP("203.0.113.1"), net.ParseIP("2001:db8::1")
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: v4, Port: 443}, "203.0.113.1"},
		{&net.UDPAddr{IP: v4, Port: 443}, "203.0.113.1"},
		{&net.UDPAddr{IP: v6, Port: 443}, "2001:db8::1"},
		{&net.UDPAddr{IP: v6, Port: 443, Zone: "eth0"}, "2001:db8::1"},
		{quicAddr("203.0.113.1:443"), "203.0.113.1"},
		{quicAddr("[2001:db8::1]:443"), "2001:db8::1"},
		{quicAddr("[::ffff:203.0.113.1]:443"), "203.0.113.1"},
		{portAddr(netip.MustParseAddrPort("[::ffff:203.0.113.1]:443")), "203.0.113.1"},
		{&net.UDPAddr{Port: 443}, ""},
		{&net.UDPAddr{IP: net.IPv6unspecified, Port: 443}, ""},
		{quicAddr(""), ""},
		{quicAddr("pipe"), ""},
		{&net.UnixAddr{Net: "unix", Name: "/run/x.sock"}, ""},
		{(*net.UDPAddr)(nil), ""},
		{nil, ""},
	} {
		h := helloFor("", "")
		h.Conn = fakeConn{local: tt.addr}
		t.Run(fmt.Sprintf("%T %v", tt.addr, tt.addr), func(t *testing.T) { checkHello(t, m, h, tt.want) })
	}
}

// An address as the server name is as good as none (F63; RFC 6066 §3).
func TestAddressAsServerName(t *testing.T) {
	a, b, ip := selfSigned(t, "a.example.com"), selfSigned(t, "b.example.com"), selfSigned(t, "203.0.113.1")
	def := func(c *Config) { c.DefaultName = "b.example.com" }
	for _, tt := range []struct {
		name    string
		changes []func(*Config)
		sni     string
		local   string
		want    string
	}{
		{"its own certificate", []func(*Config){static(a, ip)}, "203.0.113.1", "10.0.0.1", "203.0.113.1"},
		{"the only one", []func(*Config){static(a)}, "203.0.113.1", "10.0.0.1", "a.example.com"},
		{"the default", []func(*Config){static(a, b), def}, "203.0.113.1", "10.0.0.1", "b.example.com"},
		{"the default, IPv6", []func(*Config){static(a, b), def}, "2001:db8::1", "10.0.0.1", "b.example.com"},
		{"the default, mapped", []func(*Config){static(a, b), def}, "::ffff:192.0.2.1", "10.0.0.1", "b.example.com"},
		{"the connection's address", []func(*Config){static(a, b, ip), def}, "198.51.100.1", "203.0.113.1", "203.0.113.1"},
		{"the default, in brackets", []func(*Config){static(a, b), def}, "[2001:db8::1]", "10.0.0.1", "b.example.com"},
		{"the default, with a trailing dot", []func(*Config){static(a, b), def}, "203.0.113.9.", "10.0.0.1", "b.example.com"},
		{"its own, mapped", []func(*Config){static(a, b, ip), def}, "::ffff:203.0.113.1", "10.0.0.1", "203.0.113.1"},
		{"which cannot be told", []func(*Config){static(a, b)}, "203.0.113.1", "10.0.0.1", ""},
		{"no address", []func(*Config){static(a, b), def}, "999.0.0.1", "10.0.0.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkHello(t, offline(t, newFakeSigner(t), tt.changes...), helloFor(tt.sni, tt.local), tt.want)
		})
	}
}

// Of two key types the first is served that the handshake can be made with, which
// the server's own limits decide too, whether the client names the server or not
// (F61).
func TestKeyTypeThatServerAndClientSupport(t *testing.T) {
	f := newFakeSigner(t)
	rsaSuites := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	old := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: rsaSuites}
	managers := map[KeyType]*Manager{} // by the first
	for _, tt := range []struct {
		name           string
		types          []KeyType
		server, client *tls.Config
		want           x509.PublicKeyAlgorithm
	}{
		{"modern", []KeyType{P256, RSA2048}, &tls.Config{}, &tls.Config{}, x509.ECDSA},
		{"modern, RSA first", []KeyType{RSA2048, P256}, &tls.Config{}, &tls.Config{}, x509.RSA},
		{"client with RSA only", []KeyType{P256, RSA2048}, &tls.Config{}, old, x509.RSA},
		{"server with RSA only", []KeyType{P256, RSA2048}, old, &tls.Config{}, x509.RSA},
		{"server with RSA only, P-384 first", []KeyType{P384, RSA2048}, old, &tls.Config{}, x509.RSA},
		{"server with RSA only, client with TLS 1.2", []KeyType{P256, RSA2048}, old, &tls.Config{MaxVersion: tls.VersionTLS12}, x509.RSA},
		{"server with RSA suites and TLS 1.3", []KeyType{P256, RSA2048}, &tls.Config{CipherSuites: rsaSuites}, &tls.Config{}, x509.ECDSA},
		{"server without the key's curve", []KeyType{P256, RSA2048}, &tls.Config{MaxVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519}}, &tls.Config{}, x509.RSA},
	} {
		m := managers[tt.types[0]]
		if m == nil {
			m = offline(t, f, func(c *Config) { c.KeyTypes = tt.types })
			manage(t, m, "a.example.com")
			managers[tt.types[0]] = m
		}
		bare := tt.server.Clone()
		bare.GetCertificate = m.GetCertificate
		fromClient := m.TLS(&http.Server{TLSConfig: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return tt.server, nil }}})
		for how, server := range map[string]*tls.Config{"hook": bare, "TLS": m.TLS(&http.Server{TLSConfig: tt.server}).TLSConfig, "config for a client": fromClient.TLSConfig} {
			for _, sni := range []string{"a.example.com", "", "192.0.2.1"} {
				client := tt.client.Clone()
				client.ServerName, client.InsecureSkipVerify = sni, true
				state, err := shake(t, server, client)
				if err != nil || state.PeerCertificates[0].PublicKeyAlgorithm != tt.want {
					t.Errorf("%s, %s, %q: %v; want %v", tt.name, how, sni, err, tt.want)
				}
			}
		}
	}
}
