package managertest_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
)

// A server keeps what it has in its TLSConfig, and is validated all the same.
func TestServerKeepsItsOwnTLSConfig(t *testing.T) {
	const managed, private = "managed.example.com", "private.example.com"
	own := selfSigned(t, private)
	getOwn := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName != private {
			return nil, errors.New("not for me")
		}
		return own, nil
	}
	for _, tc := range []struct {
		name    string
		conf    *tls.Config
		private bool   // answers for the private name too
		proto   string // negotiated with a client that offers h2, http/1.1 and x-own
	}{
		{"none", nil, false, "h2"},
		{"empty", &tls.Config{}, false, "h2"},
		{"GetCertificate", &tls.Config{GetCertificate: getOwn}, true, "h2"},
		{"Certificates", &tls.Config{Certificates: []tls.Certificate{*own}}, true, "h2"},
		{"NextProtos", &tls.Config{NextProtos: []string{"x-own", "http/1.1"}}, false, "x-own"},
		{"NextProtos with acme-tls/1 already", &tls.Config{NextProtos: []string{"http/1.1", "acme-tls/1"}}, false, "http/1.1"},
		{"versions", &tls.Config{MinVersion: tls.VersionTLS13}, false, "h2"},
		{"GetConfigForClient", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}, false, "h2"},
		{"GetConfigForClient that refuses", &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(h.SupportedProtos, alpnProto) {
				return nil, errors.New("the caller's hook saw a validation handshake")
			}
			return nil, nil
		}}, false, "h2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			m := start(t, behindServers(t, ca, onlyTLSALPN01))
			serveOwn(t, m, ca, tc.conf)
			manage(t, m, managed)
			state, err := dial(t, ca.TLSPort(), managed, ca.Roots(), "x-own", "h2", "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			if state.NegotiatedProtocol != tc.proto {
				t.Errorf("negotiated %q, want %q", state.NegotiatedProtocol, tc.proto)
			}
			roots := ca.Roots()
			roots.AddCert(own.Leaf)
			_, err = dial(t, ca.TLSPort(), private, roots)
			if (err == nil) != tc.private {
				t.Errorf("handshake for the server's own name: %v; served by itself: %v", err, tc.private)
			}
		})
	}
}

func serveOwn(t *testing.T, m *Manager, ca *acmetest.CA, conf *tls.Config) {
	t.Helper()
	before := conf.Clone()
	srv := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: conf}
	if got := m.TLS(srv); got != srv {
		t.Fatal("TLS returned another server")
	}
	if conf != nil && (conf.MinVersion != before.MinVersion || !slices.Equal(conf.NextProtos, before.NextProtos) || (conf.GetCertificate == nil) != (before.GetCertificate == nil)) {
		t.Error("TLS changed the caller's config")
	}
	if before != nil && before.MinVersion != 0 && srv.TLSConfig.MinVersion != before.MinVersion {
		t.Errorf("minimum version %x, want the caller's %x", srv.TLSConfig.MinVersion, before.MinVersion)
	}
	serveTLS(t, listenPort(t, ca.TLSPort()), srv)
}

func TestServesHTTP2AndHTTP1(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(&http.Server{Handler: http.HandlerFunc(hello)}))
	manage(t, m, "h2.example.com")
	conf := &tls.Config{ServerName: "h2.example.com", RootCAs: ca.Roots()}
	pure := &http.Transport{TLSClientConfig: conf.Clone(), Protocols: new(http.Protocols)}
	pure.Protocols.SetHTTP2(true)
	defer pure.CloseIdleConnections()
	one := &http.Transport{TLSClientConfig: conf.Clone(), Protocols: new(http.Protocols)}
	one.Protocols.SetHTTP1(true)
	defer one.CloseIdleConnections()
	for _, tc := range []struct {
		rt   http.RoundTripper
		want string
	}{{pure, "HTTP/2.0 h2.example.com"}, {one, "HTTP/1.1 h2.example.com"}} {
		if got := get(t, tc.rt, ca.TLSPort()); got != tc.want {
			t.Errorf("answer %q, want %q", got, tc.want)
		}
	}
}

func get(t *testing.T, rt http.RoundTripper, port int) string {
	t.Helper()
	client := &http.Client{Transport: rt, Timeout: 10 * time.Second}
	resp, err := client.Get("https://" + listenAddr("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// A server whose tls.Config has nothing but GetCertificate cannot answer
// tls-alpn-01. The error says so and names the fix (T5).
func TestSaysThatABareGetCertificateCannotAnswer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		protos []string
		serve  bool // an http.Server, which adds its own protocols
	}{
		{"http.Server", nil, true},
		{"own protocols", []string{"h2", "http/1.1"}, true},
		{"no protocols", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			m := start(t, behindServers(t, ca))
			conf := &tls.Config{GetCertificate: m.GetCertificate, NextProtos: tc.protos}
			ln := listenPort(t, ca.TLSPort())
			if tc.serve {
				serveTLS(t, ln, &http.Server{TLSConfig: conf})
			} else {
				serveHTTP(t, tls.NewListener(ln, conf), http.NotFoundHandler())
			}
			err := m.ManageSync(testContext(t), []string{"bare.example.com"})
			if err == nil {
				t.Fatal("issued")
			}
			for _, want := range []string{"bare.example.com", "tls-alpn-01", `"acme-tls/1" in NextProtos`, "Manager.TLSConfig"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
}

// The same server with the one protocol added works, h2 too.
func TestAnswersWithGetCertificateAndTheProtocol(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca))
	serveTLS(t, listenPort(t, ca.TLSPort()), &http.Server{TLSConfig: &tls.Config{
		GetCertificate: m.GetCertificate, NextProtos: []string{"h2", "http/1.1", "acme-tls/1"},
	}})
	manage(t, m, "own.example.com")
	if state, err := dial(t, ca.TLSPort(), "own.example.com", ca.Roots(), "h2"); err != nil || state.NegotiatedProtocol != "h2" {
		t.Errorf("negotiated %q: %v", state.NegotiatedProtocol, err)
	}
}

// Clients keep connecting while the certificate is renewed: no handshake fails
// and both certificates are seen.
func TestRenewsWhileClientsConnect(t *testing.T) {
	const name = "live.example.com"
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(&http.Server{Handler: http.HandlerFunc(hello)}))
	manage(t, m, name)
	roots := ca.Roots()
	var stop atomic.Bool
	type result struct {
		serials map[string]int
		err     error
	}
	results := make(chan result)
	for range 4 {
		go func() {
			r := result{serials: map[string]int{}}
			for !stop.Load() && r.err == nil {
				state, err := dial(t, ca.TLSPort(), name, roots)
				if r.err = err; err == nil {
					r.serials[state.PeerCertificates[0].SerialNumber.String()]++
				}
			}
			results <- r
		}()
	}
	first := mustDial(t, ca.TLSPort(), name, roots)
	renewErr := m.Renew(testContext(t), name)
	second := mustDial(t, ca.TLSPort(), name, roots)
	stop.Store(true)
	seen := map[string]int{}
	for range 4 {
		r := <-results
		if r.err != nil {
			t.Error("a handshake failed:", r.err)
		}
		for s, n := range r.serials {
			seen[s] += n
		}
	}
	if renewErr != nil {
		t.Fatal(renewErr)
	}
	if first.Equal(second) || first.PublicKey.(*ecdsa.PublicKey).Equal(second.PublicKey) {
		t.Error("the renewed certificate has the same serial number or key")
	}
	if seen[first.SerialNumber.String()] == 0 || len(seen) > 2 {
		t.Errorf("clients saw %v", seen)
	}
}
