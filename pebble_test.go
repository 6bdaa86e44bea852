package certwright

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

// pebbleConfig is a Config for a CA of acmetest: nothing listens for validation
// requests unless the test does.
func pebbleConfig(t *testing.T, ca *acmetest.CA, change ...func(*ACME)) Config {
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

// testContext ends long before the test binary's own time-out.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

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
		if err := ignoreClosed(<-done); err != nil {
			t.Error(err)
		}
	})
}

// hello answers with the protocol and the server name.
func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Proto+" "+r.TLS.ServerName) // a client that has gone
}

// dial makes a verified handshake with 127.0.0.1:port for name, which may be an
// IP address, and returns its state.
func dial(t *testing.T, port int, name string, roots *x509.CertPool, protos ...string) (tls.ConnectionState, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots, NextProtos: protos}}
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

// issuerData returns what the issuer left with the stored certificate of name.
func issuerData(t *testing.T, m *Manager, name string) string {
	t.Helper()
	value, err := m.conf.Storage.Load(t.Context(), storageKey(keyCerts, m.conf.Issuers[0].ID(), name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := new(decoder).bundle(name, value)
	if err != nil {
		t.Fatal(err)
	}
	return string(b.data)
}

func TestPebble_HTTP01Only(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, pebbleConfig(t, ca, func(a *ACME) { a.DisableTLSALPN01 = true }))
	serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(&http.Server{Handler: http.HandlerFunc(hello)}))
	if err := m.ManageSync(testContext(t), []string{"http.example.com"}); err != nil {
		t.Fatal(err)
	}
	leaf := mustDial(t, ca.TLSPort(), "http.example.com", ca.Roots())
	if len(leaf.DNSNames) != 1 || ca.Orders() != 1 {
		t.Errorf("names %v, %d orders; want one of each", leaf.DNSNames, ca.Orders())
	}
	if m.validations.http.Load() == 0 || m.validations.tls.Load() != 0 {
		t.Error("validated by tls-alpn-01, which is disabled")
	}
}

func TestPebble_TLSALPN01Only(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, pebbleConfig(t, ca, func(a *ACME) { a.DisableHTTP01 = true }))
	serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(&http.Server{Handler: http.HandlerFunc(hello)}))
	if err := m.ManageSync(testContext(t), []string{"alpn.example.com"}); err != nil {
		t.Fatal(err)
	}
	mustDial(t, ca.TLSPort(), "alpn.example.com", ca.Roots())
	if m.validations.tls.Load() == 0 || m.validations.http.Load() != 0 || ca.Orders() != 1 {
		t.Errorf("not validated by one tls-alpn-01 challenge (%d orders)", ca.Orders())
	}
}

// With one challenge type failing the other one is used, and the one that
// failed is not tried first again.
func TestT7_OneChallengeTypeFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		serve  func(t *testing.T, ca *acmetest.CA, m *Manager)
		orders int // for the first certificate
		failed string
	}{
		{"tls-alpn-01 is refused", func(t *testing.T, ca *acmetest.CA, m *Manager) {
			serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
		}, 2, "tls-alpn-01"},
		{"tls-alpn-01 reaches a foreign server", func(t *testing.T, ca *acmetest.CA, m *Manager) {
			serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
			serveHTTP(t, listenPort(t, ca.TLSPort()), http.NotFoundHandler())
		}, 2, "tls-alpn-01"},
		{"http-01 is refused", func(t *testing.T, ca *acmetest.CA, m *Manager) {
			serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
		}, 1, ""},
		{"http-01 reaches a foreign server", func(t *testing.T, ca *acmetest.CA, m *Manager) {
			serveHTTP(t, listenPort(t, ca.HTTPPort()), http.NotFoundHandler())
			serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
		}, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const name = "half.example.com"
			ca := acmetest.Start(t)
			m := start(t, pebbleConfig(t, ca))
			tc.serve(t, ca, m)
			if err := m.ManageSync(testContext(t), []string{name}); err != nil {
				t.Fatal(err)
			}
			if ca.Orders() != tc.orders {
				t.Errorf("%d orders, want %d", ca.Orders(), tc.orders)
			}
			if data := issuerData(t, m, name); strings.Contains(data, "failed_challenges") != (tc.failed != "") || !strings.Contains(data, tc.failed) {
				t.Errorf("kept with the certificate: %s; want %q as failed", data, tc.failed)
			}
			ca.ResetCounts()
			for range 2 {
				if err := m.Renew(testContext(t), name); err != nil {
					t.Fatal(err)
				}
			}
			if ca.Orders() != 2 {
				t.Errorf("%d orders for 2 renewals: the type that failed was tried first again", ca.Orders())
			}
		})
	}
}

// When every challenge type fails, the error says for each why.
func TestPebble_AllChallengeTypesFail(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, pebbleConfig(t, ca))
	err := m.ManageSync(testContext(t), []string{"none.example.com"})
	var failure *IssueError
	var step *StepError
	if !errors.As(err, &failure) || !errors.As(err, &step) {
		t.Fatalf("%v; want an *IssueError with a *StepError", err)
	}
	if failure.Name != "none.example.com" || failure.RetryAt.IsZero() {
		t.Errorf("name %q, retry at %v", failure.Name, failure.RetryAt)
	}
	if step.Challenge != "http-01" || step.Problem == nil || len(step.Earlier) != 1 || step.Earlier[0].Challenge != "tls-alpn-01" || step.Earlier[0].Problem == nil {
		t.Errorf("steps %+v", step)
	}
	for _, want := range []string{"tls-alpn-01", "port 443", "http-01", "port 80"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}

// Before any server runs the Manager answers by itself, only as long as a
// challenge is pending.
func TestPebble_BeforeAnyServer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*ACME)
	}{
		{"either", func(*ACME) {}},
		{"http-01", func(a *ACME) { a.DisableTLSALPN01 = true }},
		{"tls-alpn-01", func(a *ACME) { a.DisableHTTP01 = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			conf := pebbleConfig(t, ca, tc.change)
			conf.HTTPPort, conf.TLSPort, conf.ListenHost = ca.HTTPPort(), ca.TLSPort(), "127.0.0.1"
			m := start(t, conf)
			names := []string{"one.example.com", "two.example.com", "three.example.com"}
			if err := m.ManageSync(testContext(t), names); err != nil {
				t.Fatal(err)
			}
			// The ports are free again: the program's own server can have them.
			serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
			serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
			for _, n := range names {
				mustDial(t, ca.TLSPort(), n, ca.Roots())
			}
			if ca.Orders() != len(names) {
				t.Errorf("%d orders, want %d", ca.Orders(), len(names))
			}
			// And now that it runs, it is the one that answers.
			if err := m.Renew(testContext(t), names[0]); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// T8: a port that cannot be bound is no error as long as the program answers
// elsewhere, where the validator's requests are forwarded.
func TestT8_PortCannotBeBound(t *testing.T) {
	ca := acmetest.Start(t)
	taken := listenPort(t, 0)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	conf := pebbleConfig(t, ca)
	conf.HTTPPort, conf.TLSPort, conf.ListenHost = port, port, "127.0.0.1"
	m := start(t, conf)
	serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
	if err := m.ManageSync(testContext(t), []string{"forwarded.example.com"}); err != nil {
		t.Fatal(err)
	}
	mustDial(t, ca.TLSPort(), "forwarded.example.com", ca.Roots())
}

// T11: when the validator gets another server's answer, the error quotes it.
func TestT11_ForeignServer(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, pebbleConfig(t, ca, func(a *ACME) { a.DisableTLSALPN01 = true }))
	serveHTTP(t, listenPort(t, ca.HTTPPort()), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "welcome to somebody else")
	}))
	err := m.ManageSync(testContext(t), []string{"foreign.example.com"})
	if err == nil {
		t.Fatal("issued although another server answered")
	}
	for _, want := range []string{"foreign.example.com", "http-01", "welcome to somebody else", "HTTPHandler"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}

// zoneSolver answers dns-01 in the CA's own DNS.
type zoneSolver struct{ ca *acmetest.CA }

func (s zoneSolver) Present(_ context.Context, ch Challenge) error {
	s.ca.AddTXT(ch.DNSName, ch.DNSValue)
	return nil
}

func (s zoneSolver) CleanUp(_ context.Context, ch Challenge) error {
	s.ca.DeleteTXT(ch.DNSName, ch.DNSValue)
	return nil
}

func TestPebble_Wildcard(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, pebbleConfig(t, ca, func(a *ACME) { a.Solvers = map[string]Solver{"dns-01": zoneSolver{ca}} }))
	if err := m.Manage(testContext(t), Spec{Names: []string{"example.com", "*.example.com"}}); err != nil {
		t.Fatal(err)
	}
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
	for _, n := range []string{"example.com", "any.example.com"} {
		leaf := mustDial(t, ca.TLSPort(), n, ca.Roots())
		if !slices.Contains(leaf.DNSNames, "*.example.com") || len(leaf.DNSNames) != 2 {
			t.Errorf("certificate for %v, want both names", leaf.DNSNames)
		}
	}
	if left := ca.TXT("_acme-challenge.example.com"); len(left) > 0 {
		t.Errorf("records left: %v", left)
	}
}
