package managertest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
)

func TestUsesTheChallengeTypeThatIsEnabled(t *testing.T) {
	for _, tc := range []struct {
		name      string
		change    func(*ACME)
		http, tls bool
	}{
		{"http-01", onlyHTTP01, true, false},
		{"tls-alpn-01", onlyTLSALPN01, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const name = "one.example.com"
			ca := acmetest.Start(t)
			m := start(t, behindServers(t, ca, tc.change))
			var v validations
			v.serve(t, ca, m, "127.0.0.1")
			manage(t, m, name)
			leaf := mustDial(t, ca.TLSPort(), name, ca.Roots())
			if len(leaf.DNSNames) != 1 || ca.Orders() != 1 {
				t.Errorf("names %v, %d orders; want one of each", leaf.DNSNames, ca.Orders())
			}
			if h, s := v.http.Load(), v.tls.Load(); (h > 0) != tc.http || (s > 0) != tc.tls {
				t.Errorf("%d requests for http-01, %d for tls-alpn-01", h, s)
			}
		})
	}
}

// With one challenge type failing the other one is used, and the one that
// failed is not tried first again (T7).
func TestFallsBackToTheOtherChallengeTypeAndRemembers(t *testing.T) {
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
			conf := behindServers(t, ca)
			m := start(t, conf)
			tc.serve(t, ca, m)
			manage(t, m, name)
			if ca.Orders() != tc.orders {
				t.Errorf("%d orders, want %d", ca.Orders(), tc.orders)
			}
			header, _, _ := strings.Cut(onlyRecord(t, conf.Storage, "certs"), "-----BEGIN")
			if strings.Contains(header, "failed_challenges") != (tc.failed != "") || !strings.Contains(header, tc.failed) {
				t.Errorf("kept with the certificate: %s; want %q as failed", header, tc.failed)
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
func TestSaysWhyEachChallengeTypeFailed(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca))
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
func TestAnswersByItselfBeforeAnyServerRuns(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*ACME)
	}{
		{"either", func(*ACME) {}},
		{"http-01", onlyHTTP01},
		{"tls-alpn-01", onlyTLSALPN01},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := acmetest.Start(t)
			m := start(t, standalone(t, ca, tc.change))
			names := []string{"one.example.com", "two.example.com", "three.example.com"}
			manage(t, m, names...)
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

// A port that cannot be bound is no error as long as the program answers
// elsewhere, where the validator's requests are forwarded (T8).
func TestIssuesWhereAPortIsForwarded(t *testing.T) {
	ca := acmetest.Start(t)
	taken := listenPort(t, 0)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	conf := behindServers(t, ca)
	conf.HTTPPort, conf.TLSPort, conf.ListenHost = port, port, "127.0.0.1"
	m := start(t, conf)
	serveHTTP(t, listenPort(t, ca.HTTPPort()), m.HTTPHandler(nil))
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
	manage(t, m, "forwarded.example.com")
	mustDial(t, ca.TLSPort(), "forwarded.example.com", ca.Roots())
}

// When the validator gets another server's answer, the error quotes it (T11).
func TestQuotesTheServerThatAnsweredInstead(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca, onlyHTTP01))
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

func TestIssuesWildcardsByDNS01(t *testing.T) {
	ca := acmetest.Start(t)
	m := start(t, behindServers(t, ca, func(a *ACME) { a.Solvers = map[string]Solver{"dns-01": zoneSolver{ca}} }))
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
