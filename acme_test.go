package certwright_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

func TestACMEIDIsOneAccounts(t *testing.T) {
	const dir = "https://CA.example/acme/directory"
	eab := func(id string) *certwright.EAB { return &certwright.EAB{KeyID: id, MACKey: "c2VjcmV0"} }
	all := []*certwright.ACME{
		{},
		{Directory: certwright.LetsEncryptStaging},
		{Directory: dir},
		{Directory: dir, EAB: eab("one")},
		{Directory: dir, EAB: eab("two")},
		{Directory: dir, Account: "customer-7"},
		{Directory: dir, Account: "customer-8"},
		{Directory: dir, Account: "customer-8", EAB: eab("one")},
		{Directory: dir + "?tenant=a"}, // F31
		{Directory: dir + "?tenant=b"},
	}
	seen := map[string]int{}
	for i, a := range all {
		if j, ok := seen[a.ID()]; ok {
			t.Errorf("%d and %d have the ID %q", i, j, a.ID())
		}
		seen[a.ID()] = i
		if strings.Contains(a.ID(), "tenant") || strings.Contains(a.CA(), "tenant") {
			t.Errorf("%q, %q: the query is in the ID", a.ID(), a.CA())
		}
	}
	for _, a := range all[2:8] {
		if a.CA() != "ca.example-acme-directory" {
			t.Errorf("%s: the CA is %q", a.ID(), a.CA())
		}
	}
	if a, b := all[8].CA(), all[9].CA(); a == b {
		t.Errorf("two directories are one CA: %q", a)
	}
}

// F31, F53.
func TestACMEConfigErrorsShowNoSecret(t *testing.T) {
	for _, a := range []certwright.ACME{
		{Directory: "://user:hunter2@ca.example/?key=hunter2", AgreeToTerms: true},
		{Directory: "user:hunter2@ca.example?key=hunter2", AgreeToTerms: true},
		{Directory: "http://user:hunter2@ca.example/dir?key=hunter2", AgreeToTerms: true},
		{Directory: "https://user:hunter2@ca.example/dir?key=hunter2"}, // terms not agreed to
		{Directory: "https://ca.example/%zz?hunter2", AgreeToTerms: true},
	} {
		_, err := certwright.New(certwright.Config{Storage: storage.NewMemory(), Issuers: []certwright.Issuer{&a}})
		if ce := (*certwright.ConfigError)(nil); !errors.As(err, &ce) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("New: %v", err)
		}
	}
	eab := certwright.EAB{KeyID: "kid", MACKey: "hunter2"}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", eab, eab, eab, eab), fmt.Sprintf("%+v", &eab), fmt.Sprintf("%#v", certwright.ACME{EAB: &eab})} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("printed as %s", text)
		}
	}
}

// F31: nor does an attempt, whatever the CA answers.
func TestWhatIsToldOfAnAttemptShowsNoSecret(t *testing.T) {
	const mac = "aHVudGVyMg" // "hunter2"
	for name, rule := range map[string]fakeca.Rule{
		"issued":       {Endpoint: "directory", N: 1 << 20},
		"not found":    {Endpoint: "directory", Status: 404, Body: []byte("nothing here")},
		"a page":       {Endpoint: "directory", Body: []byte("<html>")},
		"goes round":   {Endpoint: "directory", Status: 302, Header: http.Header{"Location": {"?key=hunter2"}}},
		"no account":   {Endpoint: "newAccount", Problem: fakeca.NewProblem("malformed", 400, "no")},
		"hangs up":     {Endpoint: "newOrder", HangUp: fakeca.Before, Err: errors.New("connection reset")},
		"not accepted": {Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "no")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := fakeca.New(fakeca.Options{
					EAB:      map[string][]byte{"kid": []byte("hunter2")},
					Validate: func(context.Context, fakeca.ChallengeInfo) error { return nil },
				})
				ca.On(rule)
				var told strings.Builder
				dir := strings.Replace(ca.Directory(), "://", "://user:hunter2@", 1) + "?key=hunter2"
				conf := certwright.Config{
					Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1,
					Logger: slog.New(slog.NewTextHandler(&told, &slog.HandlerOptions{Level: slog.LevelDebug})),
					Issuers: []certwright.Issuer{&certwright.ACME{
						Directory: dir, HTTPClient: ca.Client(), AgreeToTerms: true, EAB: &certwright.EAB{KeyID: "kid", MACKey: mac},
					}},
				}
				m, err := certwright.New(conf)
				if err != nil {
					t.Fatal(err)
				}
				events := m.Subscribe(t.Context())
				err = m.ManageSync(t.Context(), []string{"a.example.com"})
				if (err == nil) != (name == "issued") {
					t.Errorf("ManageSync: %v", err)
				}
				status := fmt.Sprintf("%+v %+v", m.Status(), m.Health())
				if err := m.Close(t.Context()); err != nil {
					t.Error(err)
				}
				fmt.Fprintf(&told, "%v %+v %+v %s", err, err, conf, status)
				for ev := range events {
					fmt.Fprintf(&told, " %+v", ev)
				}
				for _, secret := range []string{"hunter2", mac, "PRIVATE KEY"} {
					if strings.Contains(told.String(), secret) {
						t.Errorf("%q is in: %s", secret, &told)
					}
				}
			})
		})
	}
}

func TestTwoAccountsAtOneCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := fakeca.New(fakeca.Options{Validate: func(context.Context, fakeca.ChallengeInfo) error { return nil }})
		issuer := func(account string) *certwright.ACME {
			return &certwright.ACME{Directory: ca.Directory(), HTTPClient: ca.Client(), AgreeToTerms: true, Account: account}
		}
		a, b := issuer(""), issuer("second")
		_, err := certwright.New(certwright.Config{Storage: storage.NewMemory(), Issuers: []certwright.Issuer{a, issuer("")}})
		if err == nil || !strings.Contains(err.Error(), "set Account") {
			t.Errorf("two with one ID: %v", err)
		}
		m, err := certwright.New(certwright.Config{Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Issuers: []certwright.Issuer{a, b}})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close(t.Context())
		for i, iss := range []certwright.Issuer{a, b} {
			if err := m.Manage(t.Context(), certwright.Spec{Names: []string{fmt.Sprintf("n%d.example.com", i)}, Issuers: []certwright.Issuer{iss}}); err != nil {
				t.Fatal(err)
			}
		}
		if n := ca.Accounts(); n != 2 {
			t.Errorf("%d accounts", n)
		}
	})
}

func TestACMERootCAs(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	ask := func(pool *x509.CertPool) error {
		m, err := certwright.New(certwright.Config{Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Issuers: []certwright.Issuer{
			&certwright.ACME{Directory: srv.URL + "/dir", AgreeToTerms: true, RootCAs: pool},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close(context.Background())
		return m.ManageSync(t.Context(), []string{"example.com"})
	}
	if err := ask(nil); err == nil || !strings.Contains(err.Error(), "RootCAs") {
		t.Errorf("without the root: %v", err)
	}
	if err := ask(roots); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("with the root: %v", err)
	}
	_, err := certwright.New(certwright.Config{Storage: storage.NewMemory(), Issuers: []certwright.Issuer{
		&certwright.ACME{AgreeToTerms: true, RootCAs: roots, HTTPClient: srv.Client()},
	}})
	if err == nil || !strings.Contains(err.Error(), "RootCAs") {
		t.Errorf("both RootCAs and HTTPClient: %v", err)
	}
}
