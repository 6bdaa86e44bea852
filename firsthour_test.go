package certwright_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// refusing is a configuration for a CA whose validations all end in a problem of
// that type, with ports of loopback for the Manager to listen on.
func refusing(t *testing.T, problem, detail string, change ...func(*Config)) *Manager {
	t.Helper()
	_, conf := newFake(t, fakeca.Options{Validate: func(context.Context, fakeca.ChallengeInfo) error {
		return fakeca.NewProblem(problem, http.StatusBadRequest, detail)
	}})
	conf.ListenHost, conf.HTTPPort, conf.TLSPort = "127.0.0.1", freePort(t), freePort(t)
	for _, f := range change {
		f(&conf)
	}
	return start(t, conf)
}

// onlyOver has the configured *ACME use one type of challenge.
func onlyOver(challengeType string) func(*Config) {
	return func(c *Config) {
		a := c.Issuers[0].(*ACME)
		a.DisableHTTP01, a.DisableTLSALPN01 = challengeType != "http-01", challengeType != "tls-alpn-01"
	}
}

// firstHour are mistakes of a first hour, with what the error has to say: where
// the mistake is, and what to do.
var firstHour = []struct {
	name string
	run  func(t *testing.T) error
	says []string
	not  []string // misleading
}{
	{
		"terms not agreed to", func(*testing.T) error { _, err := New(Config{}); return err },
		[]string{"Config.AgreeToTerms", "must be true", "letsencrypt"},
		nil,
	},
	{
		"no names", func(t *testing.T) error { return offline(t, newFakeSigner(t)).ManageSync(t.Context(), nil) },
		[]string{"names", "name at least one"},
		[]string{"Spec"},
	},
	{
		"no names, in the background", func(t *testing.T) error { return offline(t, newFakeSigner(t)).ManageAsync([]string{}) },
		[]string{"names", "name at least one"},
		[]string{"Spec"},
	},
	{"no names to serve", func(t *testing.T) error { return Serve(t.Context(), nil) }, []string{"names", "name at least one"}, nil},
	{"no specs", func(t *testing.T) error { return offline(t, newFakeSigner(t)).Manage(t.Context()) }, []string{"specs", "at least one"}, nil},
	{
		"no names in a spec", func(t *testing.T) error { return offline(t, newFakeSigner(t)).Manage(t.Context(), Spec{}) },
		[]string{"Spec.Names", "name at least one"},
		nil,
	},
	{"one bad name of three", func(t *testing.T) error {
		return offline(t, newFakeSigner(t)).ManageSync(t.Context(), []string{"a.example.com", "https://b.example.com/", "c.example.com"})
	}, []string{"names[1]", "https://b.example.com/", "scheme"}, []string{"Spec", "a.example.com", "c.example.com"}},
	{"wildcard without dns-01", func(t *testing.T) error {
		_, conf := newFake(t, fakeca.Options{})
		return start(t, conf).ManageSync(t.Context(), []string{"*.example.com"})
	}, []string{"names[0]", "*.example.com", `ACME.Solvers["dns-01"]`}, []string{"Spec"}},
	{"a port that is in use, Serve", func(t *testing.T) error {
		taken := listenPort(t, 0)
		defer taken.Close()
		m := offline(t, newFakeSigner(t), func(c *Config) { c.ListenHost, c.HTTPPort, c.TLSPort = "127.0.0.1", freePort(t), portOf(taken) })
		return m.Serve(t.Context(), nil, "a.example.com")
	}, []string{"Config.TLSPort", "in use", "stop the other server"}, nil},
	{"a port that is in use, Listen", func(t *testing.T) error {
		taken := listenPort(t, 0)
		defer taken.Close()
		_, err := offline(t, newFakeSigner(t)).Listen("tcp", taken.Addr().String())
		return err
	}, []string{"127.0.0.1:", "in use", "stop the other server"}, nil},
	{"a port that is in use, http-01", func(t *testing.T) error {
		taken := listenPort(t, 0)
		defer taken.Close()
		m := refusing(t, "unauthorized", "404", onlyOver("http-01"), func(c *Config) { c.HTTPPort = portOf(taken) })
		return m.ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "another server", "stop it", "Config.HTTPPort", "HTTPHandler"}, nil},
	{"a port that is in use, tls-alpn-01", func(t *testing.T) error {
		taken := listenPort(t, 0)
		defer taken.Close()
		m := refusing(t, "tls", "handshake failure", onlyOver("tls-alpn-01"), func(c *Config) { c.TLSPort = portOf(taken) })
		return m.ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "another server", "stop it", "Config.TLSPort", "NextProtos"}, nil},
	{"mapped ports, http-01", func(t *testing.T) error {
		return refusing(t, "connection", "timeout", onlyOver("http-01")).ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "port 80 of the name", "Config.HTTPPort", "HTTPHandler"}, nil},
	{"mapped ports, tls-alpn-01", func(t *testing.T) error {
		return refusing(t, "connection", "timeout", onlyOver("tls-alpn-01")).ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "port 443 of the name", "Config.TLSPort", "NextProtos"}, nil},
	{"no DNS record", func(t *testing.T) error {
		return refusing(t, "dns", "NXDOMAIN looking up A for a.example.com").ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "NXDOMAIN", "spelling", "A and AAAA"}, []string{"port 80", "port 443", "HTTPHandler", "NextProtos"}},
	{"CAA record of another CA", func(t *testing.T) error {
		return refusing(t, "caa", "CAA record for a.example.com prevents issuance").ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "CAA"}, []string{"port 80", "port 443", "HTTPHandler"}},
	{"private CA without its root", func(t *testing.T) error {
		return atPrivateCA(t, func(a *ACME) { a.HTTPClient = nil })
	}, []string{"a.example.com", "unknown authority", "set ACME.RootCAs", "Config.Issuers"}, nil},
	{"private CA without its root, own client", func(t *testing.T) error {
		return atPrivateCA(t, func(a *ACME) { a.HTTPClient = &http.Client{} })
	}, []string{"a.example.com", "unknown authority", "set RootCAs in the transport of ACME.HTTPClient"}, nil},
	{"no DNS record, at a CA that does not say so by the type", func(t *testing.T) error {
		return refusing(t, "connection", "Get \"http://a.example.com/\": dial tcp: lookup a.example.com: no such host").ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "spelling", "A and AAAA"}, []string{"port 80 of", "port 443 of", "HTTPHandler", "NextProtos"}},
	{"no DNS record, at a CA that says nothing", func(t *testing.T) error {
		return refusing(t, "connection", "The server could not connect to validation target").ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "lead here by its A and AAAA records", "port 80 of the name"}, nil},
	{"another server answers, at a CA that rejects the name for it", func(t *testing.T) error {
		return refusing(t, "rejectedIdentifier", "The server will not issue certificates for the identifier").ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "tls-alpn-01", "http-01", "HTTPHandler", "NextProtos"}, nil},
	{"a typo in the directory URL", func(t *testing.T) error {
		return answering404(t).ManageSync(t.Context(), []string{"a.example.com"})
	}, []string{"a.example.com", "HTTP 404", "404 page not found", "check the directory URL"}, []string{"about:blank"}},
	{"not a directory", func(t *testing.T) error {
		return atAccount(t, fakeca.Rule{Endpoint: "directory", Body: []byte("<html>welcome")})
	}, []string{"a.example.com", "HTTP 200", "<html>welcome", "check the directory URL"}, nil},
	{"no account binding", func(t *testing.T) error {
		return atAccount(t, fakeca.Rule{Endpoint: "newAccount", Problem: fakeca.NewProblem("externalAccountRequired", 403, "")})
	}, []string{"a.example.com", "set ACME.EAB"}, nil},
	{"an address that the CA does not take", func(t *testing.T) error {
		return atAccount(t, fakeca.Rule{Endpoint: "newAccount", Problem: fakeca.NewProblem("invalidContact", 400, "forbidden domain \"example.com\"")})
	}, []string{"a.example.com", "forbidden domain", "Config.Email"}, nil},
	{"new terms", func(t *testing.T) error {
		return atAccount(t, fakeca.Rule{Endpoint: "newOrder", Problem: &fakeca.Problem{Type: "userActionRequired", Status: 403, Instance: "https://ca.test/terms"}})
	}, []string{"a.example.com", "https://ca.test/terms", "agree"}, nil},
	{"an account that was deactivated", func(t *testing.T) error {
		return atAccount(t, fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 401, "account is deactivated")})
	}, []string{"a.example.com", "account is deactivated", "/account/", "delete its record v1/accounts/ca."}, nil},
	{"folder ~/certs", func(*testing.T) error { _, err := storage.OpenDir("~/certs"); return err }, []string{"~/certs", "not expanded", "os.UserHomeDir"}, nil},
	{"folder ~", func(*testing.T) error { _, err := storage.OpenDir("~"); return err }, []string{`"~"`, "not expanded"}, nil},
	{"folder $HOME/certs", func(*testing.T) error { _, err := storage.OpenDir("$HOME/certs"); return err }, []string{"$HOME/certs", "not expanded"}, nil},
}

// F26, F83, F84.
func TestErrorsOfTheFirstHourNameTheCure(t *testing.T) {
	for _, tt := range firstHour {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir()) // where a wrong folder would be made
			err := tt.run(t)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			for _, no := range tt.not {
				if strings.Contains(err.Error(), no) {
					t.Errorf("%v\nspeaks of %q", err, no)
				}
			}
			if strings.Count(err.Error(), "certwright: ") > 1 {
				t.Errorf("%v\nnames the package more than once", err)
			}
			if made, globErr := filepath.Glob("*"); len(made) > 0 || globErr != nil {
				t.Errorf("%q was made", made)
			}
		})
	}
}

// atAccount asks a CA that does what the rule says.
func atAccount(t *testing.T, rule fakeca.Rule) error {
	t.Helper()
	ca, conf := newFake(t, fakeca.Options{})
	ca.On(rule)
	return start(t, conf).ManageSync(t.Context(), []string{"a.example.com"})
}

// answering404 asks a server at whose directory URL nothing is.
func answering404(t *testing.T) *Manager {
	t.Helper()
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	_, conf := newFake(t, fakeca.Options{})
	conf.Issuers = []Issuer{&ACME{Directory: srv.URL + "/directori"}}
	return start(t, conf)
}

// atPrivateCA asks a CA over real TLS whose root nobody knows.
func atPrivateCA(t *testing.T, change func(*ACME)) error {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, conf := newFake(t, fakeca.Options{BaseURL: srv.URL})
	change(conf.Issuers[0].(*ACME))
	return start(t, conf).ManageSync(t.Context(), []string{"a.example.com"})
}

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

// What is to be served in place of others and is not there is told once, when
// names are managed (F83).
func TestTellsThatADefaultNameIsNotManaged(t *testing.T) {
	for _, tt := range []struct {
		name          string
		def, fallback string
		fields        []string
	}{
		{"both are there", "a.example.com", "B.example.com", nil},
		{"covered by a wildcard", "x.w.example.com", "", nil},
		{"supplied by the caller", "s.example.com", "s.example.com", nil},
		{"none", "", "", nil},
		{"a typo in one", "a.exmaple.com", "a.example.com", []string{"Config.DefaultName"}},
		{"a typo in the other", "a.example.com", "b.exmaple.com", []string{"Config.FallbackName"}},
		{"a typo in both", "a.exmaple.com", "b.exmaple.com", []string{"Config.DefaultName", "Config.FallbackName"}},
		{"below a wildcard's label", "x.y.w.example.com", "", []string{"Config.DefaultName"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, logs := observed(slog.LevelWarn)
			m := offline(t, newFakeSigner(t), static(selfSigned(t, "s.example.com")), func(c *Config) {
				c.DefaultName, c.FallbackName, c.Logger = tt.def, tt.fallback, log
			})
			manage(t, m, "a.example.com", "b.example.com", "*.w.example.com")
			manage(t, m, "c.example.com")
			var fields []string
			for _, l := range logs.All() {
				fields = append(fields, l.Fields["field"])
			}
			if strings.Join(fields, " ") != strings.Join(tt.fields, " ") {
				t.Errorf("lines %v; want %q", logs.All(), tt.fields)
			}
		})
	}
}

// Errors that a caller branches on name the package once too, wherever they stand
// (F83).
func TestErrorsNameThePackageOnce(t *testing.T) {
	m := offline(t, newFakeSigner(t))
	_, unknown := m.GetCertificate(helloFor("other.example.com", ""))
	_, unnamed := m.GetCertificate(helloFor("", ""))
	closed := offline(t, newFakeSigner(t))
	closeManager(t, closed)
	_, listenErr := closed.Listen("tcp", "127.0.0.1:0")
	for _, tt := range []struct {
		err  error
		is   error
		says string
	}{
		{unknown, ErrNotManaged, "other.example.com"},
		{unnamed, ErrNoCertificate, "no name is managed"},
		{m.Renew(t.Context(), "a.example.com"), ErrNotManaged, "a.example.com"},
		{m.Wait(t.Context(), "a.example.com"), ErrNotManaged, "a.example.com"},
		{m.Unmanage("a.example.com"), ErrNotManaged, "a.example.com"},
		{closed.ManageSync(t.Context(), []string{"a.example.com"}), ErrClosed, "closed"},
		{closed.Renew(t.Context(), "a.example.com"), ErrClosed, "closed"},
		{listenErr, ErrClosed, "127.0.0.1:0"},
	} {
		if !errors.Is(tt.err, tt.is) || !strings.Contains(tt.err.Error(), tt.says) || strings.Count(tt.err.Error(), "certwright: ") != 1 {
			t.Errorf("%v; want it to be %v, with %q, and the package named once", tt.err, tt.is, tt.says)
		}
	}
}
