package stepca_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
)

// TestIssuesByEachChallengeType also takes the CA's root from ACME.RootCAs.
func TestIssuesByEachChallengeType(t *testing.T) {
	for name, change := range map[string]func(*ACME){
		"http-01":     func(a *ACME) { a.DisableTLSALPN01 = true },
		"tls-alpn-01": func(a *ACME) { a.DisableHTTP01 = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, options{})
			m := start(t, ca.manager(t, change))
			manage(t, m, "a.test", "b.test", "127.0.0.1")
			check(t, m, ca, "a.test", "b.test", "127.0.0.1")
			ca.expect(t, counts{"new-account": 1, "new-order": 3, "finalize": 3, "challenge": 3})
		})
	}
}

// TestSeveralNamesInOneCertificate also asks for a life that the CA does not give
// by itself.
func TestSeveralNamesInOneCertificate(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{})
	m := start(t, ca.manager(t))
	if err := m.Manage(testContext(t), Spec{Names: []string{"a.test", "b.test", "c.test"}, Lifetime: 20 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	check(t, m, ca, "a.test", "b.test", "c.test")
	ca.expect(t, counts{"new-order": 1, "finalize": 1, "challenge": 3})
	if s := status(t, m, "a.test"); time.Until(s.NotAfter) > 21*time.Minute {
		t.Errorf("it ends at %v", s.NotAfter)
	}
}

// F20: step-ca leaves a challenge that it cannot reach pending. Another type is
// tried in the same attempt, and comes first at the next.
func TestTLSPortClosed(t *testing.T) {
	if testing.Short() {
		t.Skip("step-ca is asked three times before the other type is tried")
	}
	t.Parallel()
	ca := newCA(t, options{})
	conf := ca.manager(t)
	conf.TLSPort = -1
	m := start(t, conf)
	manage(t, m, "a.test")
	check(t, m, ca, "a.test")
	asked := ca.accepted("challenge")
	ca.expect(t, counts{"new-order": 1, "finalize": 1})
	renew(t, m, "a.test")
	ca.expect(t, counts{"new-order": 2, "finalize": 2, "challenge": asked + 1})
}

// foreign serves something of its own at a port until the test ends.
func foreign(t *testing.T, port int, useTLS bool) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "welcome") }))
	_ = srv.Listener.Close()
	ln, err := net.Listen("tcp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener, srv.Config.ErrorLog = ln, log.New(t.Output(), "", 0)
	if useTLS {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
}

// TestAnotherServerAnswers: step-ca calls that a rejected identifier. The other
// type is tried; where there is none, the error says what to do.
func TestAnotherServerAnswers(t *testing.T) {
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		ca := newCA(t, options{})
		foreign(t, ca.tlsPort, true)
		conf := ca.manager(t)
		conf.TLSPort = -1
		m := start(t, conf)
		manage(t, m, "a.test")
		check(t, m, ca, "a.test")
		ca.expect(t, counts{"new-order": 2, "finalize": 1, "challenge": 2})
	})
	for name, row := range map[string]struct {
		change func(*ACME)
		says   string
	}{
		"HTTP": {func(a *ACME) { a.DisableTLSALPN01 = true }, "Manager.HTTPHandler"},
		"TLS":  {func(a *ACME) { a.DisableHTTP01 = true }, "NextProtos"},
	} {
		t.Run("only "+name, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, options{})
			foreign(t, ca.httpPort, false)
			foreign(t, ca.tlsPort, true)
			conf := ca.manager(t, row.change)
			conf.HTTPPort, conf.TLSPort = -1, -1
			err := start(t, conf).ManageSync(testContext(t), []string{"a.test"})
			if err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), "forwarded here") {
				t.Errorf("error: %v", err)
			}
		})
	}
}

// slowDNS sets a record that the CA sees only after a while, as where a DNS
// provider's servers follow each other.
type slowDNS struct{ ca *ca }

func (s slowDNS) Present(_ context.Context, ch Challenge) error {
	time.AfterFunc(time.Second, func() { s.ca.setTXT(ch.DNSName, ch.DNSValue) })
	return nil
}

func (s slowDNS) CleanUp(_ context.Context, ch Challenge) error {
	s.ca.setTXT(ch.DNSName, "")
	return nil
}

// TestAsksTheCAToLookAgain: step-ca looks at a challenge once for each request to
// do so.
func TestAsksTheCAToLookAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds until the CA is asked again")
	}
	t.Parallel()
	ca := newCA(t, options{})
	m := start(t, ca.manager(t, func(a *ACME) { a.Solvers = map[string]Solver{"dns-01": slowDNS{ca}} }))
	manage(t, m, "*.a.test")
	check(t, m, ca, "www.a.test")
	ca.expect(t, counts{"new-order": 1, "finalize": 1})
	if n := ca.accepted("challenge"); n < 2 {
		t.Errorf("the CA was asked %d times to look at the challenge", n)
	}
}

// TestCAWithoutItsRoot: the error says what to set.
func TestCAWithoutItsRoot(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{})
	m := start(t, ca.manager(t, func(a *ACME) { a.RootCAs = nil }))
	err := m.ManageSync(testContext(t), []string{"a.test"})
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok || !strings.Contains(err.Error(), "set ACME.RootCAs") {
		t.Errorf("error: %v", err)
	}
	if s := status(t, m, "a.test"); s.State != StateMissing || !strings.Contains(s.LastError, "set ACME.RootCAs") {
		t.Errorf("status: %+v", s)
	}
	ca.expect(t, counts{"directory": 0})
}

// TestExternalAccountBinding: with the key, without it and with a wrong one.
func TestExternalAccountBinding(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{requireEAB: true})
	eab := func(id, mac string) func(*ACME) {
		return func(a *ACME) { a.EAB = &EAB{KeyID: id, MACKey: mac} }
	}
	newKey := func() (id, mac string) {
		k, err := ca.acme.CreateExternalAccountKey(t.Context(), provisionerID, "")
		if err != nil {
			t.Fatal(err)
		}
		return k.ID, base64.RawURLEncoding.EncodeToString(k.HmacKey)
	}
	id, mac := newKey()
	_, wrong := newKey()
	for name, change := range map[string]func(*ACME){"none": func(*ACME) {}, "wrong": eab(id, wrong)} {
		m := start(t, ca.manager(t, change))
		err := m.ManageSync(testContext(t), []string{"a.test"})
		if p, ok := errors.AsType[*Problem](err); !ok || p.Detail == "" || strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", name, err)
		}
		closeManager(t, m)
	}
	conf := ca.manager(t, eab(id, mac))
	m := start(t, conf)
	manage(t, m, "a.test")
	closeManager(t, m)
	m = start(t, conf)
	manage(t, m, "a.test", "b.test")
	check(t, m, ca, "a.test", "b.test")
	ca.expect(t, counts{"new-account": 1, "new-order": 2})
}
