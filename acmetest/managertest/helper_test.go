// Package managertest_test has the tests of a Manager that need a real CA: they
// run against Pebble, through the public API only. They lie in the module of
// acmetest so that who uses certwright does not depend on Pebble.
package managertest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

const alpnProto = "acme-tls/1" // RFC 8737 §6.2

// behindServers is a Config for a CA of acmetest with which nothing listens for
// validation requests unless the test does.
func behindServers(t *testing.T, ca *acmetest.CA, change ...func(*ACME)) Config {
	t.Helper()
	a := &ACME{Directory: ca.Directory(), HTTPClient: ca.Client()}
	for _, f := range change {
		f(a)
	}
	return Config{
		AgreeToTerms: true, Storage: storage.NewMemory(), Issuers: []Issuer{a},
		HTTPPort: -1, TLSPort: -1, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// standalone is a Config with which the Manager answers the CA by itself.
func standalone(t *testing.T, ca *acmetest.CA, change ...func(*ACME)) Config {
	t.Helper()
	conf := behindServers(t, ca, change...)
	conf.HTTPPort, conf.TLSPort, conf.ListenHost = ca.HTTPPort(), ca.TLSPort(), "127.0.0.1"
	return conf
}

// onlyHTTP01 and onlyTLSALPN01 leave an issuer one type of challenge.
func onlyHTTP01(a *ACME)    { a.DisableTLSALPN01 = true }
func onlyTLSALPN01(a *ACME) { a.DisableHTTP01 = true }

// start returns a Manager that is closed at the end of the test.
func start(t *testing.T, conf Config) *Manager {
	t.Helper()
	m, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeManager(t, m) })
	return m
}

func closeManager(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}

// testContext ends long before the test binary's own time-out.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// manage has names managed and fails the test when one gets no certificate.
func manage(t *testing.T, m *Manager, names ...string) {
	t.Helper()
	if err := m.ManageSync(testContext(t), names); err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example.com", i)
	}
	return names
}

func serials(m *Manager) []string {
	var list []string
	for _, s := range m.Status() {
		list = append(list, s.Serial)
	}
	return list
}

// listenAddr is a port of a host.
func listenAddr(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// listenPort binds a port of the CA's validator on loopback.
func listenPort(t *testing.T, port int) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", listenAddr("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serveHTTP serves handler on ln until the test ends.
func serveHTTP(t *testing.T, ln net.Listener, handler http.Handler) {
	t.Helper()
	serveOn(t, &http.Server{Handler: handler}, func(srv *http.Server) error { return srv.Serve(ln) })
}

// serveTLS serves srv with TLS on ln until the test ends.
func serveTLS(t *testing.T, ln net.Listener, srv *http.Server) {
	t.Helper()
	serveOn(t, srv, func(srv *http.Server) error { return srv.ServeTLS(ln, "", "") })
}

func serveOn(t *testing.T, srv *http.Server, serve func(*http.Server) error) {
	srv.ErrorLog = log.New(io.Discard, "", 0) // what clients do wrong here is meant
	done := make(chan error, 1)
	go func() { done <- serve(srv) }()
	t.Cleanup(func() {
		_ = srv.Close() // its error is that of a listener the server closed before
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// validations counts the requests of the CA's validator that arrive at servers.
type validations struct{ http, tls atomic.Int32 }

// serve has both servers of m run on an address of this host.
func (v *validations) serve(t *testing.T, ca *acmetest.CA, m *Manager, host string) {
	t.Helper()
	var listeners []net.Listener
	for _, port := range []int{ca.HTTPPort(), ca.TLSPort()} {
		ln, err := net.Listen("tcp", listenAddr(host, port))
		if err != nil {
			t.Skip("no such loopback address:", err)
		}
		listeners = append(listeners, ln)
	}
	plain := m.HTTPHandler(nil)
	serveHTTP(t, listeners[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
			v.http.Add(1)
		}
		plain.ServeHTTP(w, r)
	}))
	srv := m.TLS(&http.Server{Handler: http.HandlerFunc(hello)})
	choose := srv.TLSConfig.GetConfigForClient
	srv.TLSConfig.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Equal(h.SupportedProtos, []string{alpnProto}) {
			v.tls.Add(1)
		}
		if choose == nil {
			return nil, nil
		}
		return choose(h)
	}
	serveTLS(t, listeners[1], srv)
}

// hello answers with the protocol and the server name.
func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Proto+" "+r.TLS.ServerName) // a client that has gone
}

// dial makes a verified handshake with 127.0.0.1:port for name, which may be an
// IP address, and returns its state.
func dial(t *testing.T, port int, name string, roots *x509.CertPool, protos ...string) (tls.ConnectionState, error) {
	t.Helper()
	return dialWith(t, port, &tls.Config{ServerName: name, RootCAs: roots, NextProtos: protos})
}

func dialWith(t *testing.T, port int, conf *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	d := tls.Dialer{Config: conf}
	conn, err := d.DialContext(testContext(t), "tcp", listenAddr("127.0.0.1", port))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil
}

func mustDial(t *testing.T, port int, name string, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	state, err := dial(t, port, name, roots)
	if err != nil {
		t.Fatalf("handshake for %q: %v", name, err)
	}
	return state.PeerCertificates[0]
}

// selfSigned returns a certificate that no CA issued, for a server's own use.
func selfSigned(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// onlyRecord returns the only record of a kind in a storage.
func onlyRecord(t *testing.T, s Storage, kind string) string {
	t.Helper()
	keys, err := s.List(t.Context(), "v1/"+kind)
	if err != nil || len(keys) != 1 {
		t.Fatalf("records of kind %q: %q, %v; want one", kind, keys, err)
	}
	value, err := s.Load(t.Context(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}
