package certwright_test

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// valueIssuer is an Issuer that is no pointer and cannot be compared.
type valueIssuer struct{ ids []string }

func (v valueIssuer) ID() string { return v.ids[0] }

func (valueIssuer) Issue(context.Context, IssueRequest) (Issued, error) {
	return Issued{}, errors.New("not issued")
}

// onlyStorage hides that a storage.Memory is a Locker too.
type onlyStorage struct{ Storage }

// configFaults are configurations that New refuses, with the field it names and
// a word of what it says.
var configFaults = []struct {
	name   string
	change func(*Config)
	field  string
	says   string
}{
	{"e-mail", func(c *Config) { c.Email = "admin" }, "Config.Email", "admin"},
	{"e-mail with a name", func(c *Config) { c.Email = "Ann <ann@example.com>" }, "Config.Email", "address alone"},
	{"two e-mails", func(c *Config) { c.Email = "a@example.com, b@example.com" }, "Config.Email", "admin@example.com"},
	{"e-mail in brackets", func(c *Config) { c.Email = "<ann@example.com>" }, "Config.Email", "address alone"},
	{"e-mail with a space", func(c *Config) { c.Email = " ann@example.com" }, "Config.Email", "address alone"},
	{"e-mail with a line's end", func(c *Config) { c.Email = "ann@example.com\n" }, "Config.Email", "address alone"},
	{"e-mail as a URL", func(c *Config) { c.Email = "mailto:ann@example.com" }, "Config.Email", "address alone"},
	{"terms", func(c *Config) { c.AgreeToTerms = false }, "Config.AgreeToTerms", "terms of service"},
	{"terms of the default issuer", func(c *Config) { c.AgreeToTerms, c.Issuers = false, nil }, "Config.AgreeToTerms", "terms of service"},
	{"directory", func(c *Config) { c.Issuers, c.Directory = nil, "ca.example.com" }, "Config.Directory", "not a URL"},
	{"directory over http", func(c *Config) { c.Issuers, c.Directory = nil, "http://ca.example.com/dir" }, "Config.Directory", "https://"},
	{"directory and issuers", func(c *Config) { c.Directory = LetsEncrypt }, "Config.Directory", "Issuers"},
	{"issuer nil", func(c *Config) { c.Issuers = []Issuer{nil} }, "Config.Issuers[0]", "nil"},
	{"issuer typed nil", func(c *Config) { c.Issuers = append(c.Issuers, (*ACME)(nil)) }, "Config.Issuers[1]", "nil"},
	{"issuer not comparable", func(c *Config) { c.Issuers = []Issuer{valueIssuer{[]string{"x"}}} }, "Config.Issuers[0]", "pointer"},
	{"issuer not comparable by what it holds", func(c *Config) { c.Issuers = []Issuer{struct{ Issuer }{valueIssuer{[]string{"x"}}}} }, "Config.Issuers[0]", "pointer"},
	{"issuer ID", func(c *Config) { c.Issuers = []Issuer{&valueIssuer{[]string{"a/b"}}} }, "Config.Issuers[0]", "a/b"},
	{"issuer twice", func(c *Config) { c.Issuers = append(c.Issuers, &ACME{Directory: c.Issuers[0].(*ACME).Directory}) }, "Config.Issuers[1]", "same ID"},
	{"issuer directory", func(c *Config) { c.Issuers = []Issuer{&ACME{Directory: "://"}} }, "Config.Issuers[0].Directory", "not a URL"},
	{"issuer e-mail", func(c *Config) { c.Issuers = []Issuer{&ACME{Email: "x"}} }, "Config.Issuers[0].Email", "x"},
	{"issuer EAB key ID", func(c *Config) { c.Issuers = []Issuer{&ACME{EAB: &EAB{MACKey: "AAAA"}}} }, "Config.Issuers[0].EAB.KeyID", "empty"},
	{"issuer EAB key", func(c *Config) { c.Issuers = []Issuer{&ACME{EAB: &EAB{KeyID: "k", MACKey: "se%cret"}}} }, "Config.Issuers[0].EAB.MACKey", "base64url"},
	{"issuer order limit", func(c *Config) { c.Issuers = []Issuer{&ACME{OrderLimit: OrderLimit{Orders: 1}}} }, "Config.Issuers[0].OrderLimit", "both"},
	{"issuer time-out", func(c *Config) { c.Issuers = []Issuer{&ACME{Timeout: -1}} }, "Config.Issuers[0].Timeout", "negative"},
	{"no challenge", func(c *Config) { c.Issuers = []Issuer{&ACME{DisableHTTP01: true, DisableTLSALPN01: true}} }, "Config.Issuers[0].Solvers", "challenge"},
	{"nil solver", func(c *Config) { c.Issuers = []Issuer{&ACME{Solvers: map[string]Solver{"dns-01": nil}}} }, "Config.Issuers[0].Solvers", "dns-01"},
	{"storage typed nil", func(c *Config) { c.Storage = (*storage.Dir)(nil) }, "Config.Storage", "nil"},
	{"no locker", func(c *Config) { c.Storage = onlyStorage{c.Storage} }, "Config.Locker", "Locker"},
	{"locker typed nil", func(c *Config) { c.Locker = (*storage.Memory)(nil) }, "Config.Locker", "nil"},
	{"key type", func(c *Config) { c.KeyTypes = []KeyType{P256, "dsa"} }, "Config.KeyTypes[1]", "dsa"},
	{"key type twice", func(c *Config) { c.KeyTypes = []KeyType{P256, ""} }, "Config.KeyTypes[1]", "twice"},
	{"default name", func(c *Config) { c.DefaultName = "http://a.example.com" }, "Config.DefaultName", "scheme"},
	{"fallback name", func(c *Config) { c.FallbackName = "a.example.com:443" }, "Config.FallbackName", "port"},
	{"certificate empty", func(c *Config) { c.Certificates = []StaticCertificate{{}} }, "Config.Certificates[0]", "CertFile"},
	{"certificate without a key", func(c *Config) { c.Certificates = []StaticCertificate{{CertFile: "x"}} }, "Config.Certificates[0]", "KeyFile"},
	{"certificate twice", func(c *Config) {
		c.Certificates = []StaticCertificate{{Certificate: &tls.Certificate{}, CertFile: "x"}}
	}, "Config.Certificates[0]", "both"},
	{"certificate in memory empty", func(c *Config) { c.Certificates = []StaticCertificate{{Certificate: &tls.Certificate{}}} }, "Config.Certificates[0]", "empty"},
	{"certificate missing", func(c *Config) {
		c.Certificates = []StaticCertificate{{CertFile: "no-such-cert.pem", KeyFile: "no-such-key.pem"}}
	}, "Config.Certificates[0]", "no-such-cert.pem"},
	{"fraction negative", func(c *Config) { c.RenewalFraction = -0.1 }, "Config.RenewalFraction", "-0.1"},
	{"fraction of one", func(c *Config) { c.RenewalFraction = 1 }, "Config.RenewalFraction", "below 1"},
	{"fraction NaN", func(c *Config) { c.RenewalFraction = math.NaN() }, "Config.RenewalFraction", "NaN"},
	{"workers", func(c *Config) { c.Workers = -1 }, "Config.Workers", "-1"},
	{"http port", func(c *Config) { c.HTTPPort = 65536 }, "Config.HTTPPort", "65535"},
	{"tls port", func(c *Config) { c.TLSPort = 70000 }, "Config.TLSPort", "65535"},
	{"listen host", func(c *Config) { c.ListenHost = "example.com" }, "Config.ListenHost", "IP address"},
}

func TestConfigFaultsNameTheField(t *testing.T) {
	for _, tt := range configFaults {
		t.Run(tt.name, func(t *testing.T) {
			ca, conf := newFake(t, fakeca.Options{})
			tt.change(&conf)
			m, err := New(conf)
			if err == nil {
				closeManager(t, m)
				t.Fatal("New took it")
			}
			var ce *ConfigError
			if !errors.As(err, &ce) {
				t.Fatalf("New = %v; want a *ConfigError", err)
			}
			if ce.Field != tt.field || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("New = %v\nof field %q; want field %q and %q in the text", err, ce.Field, tt.field, tt.says)
			}
			if strings.Count(err.Error(), "certwright: ") != 1 {
				t.Errorf("New = %v; want the package named once", err)
			}
			if strings.Contains(err.Error(), "se%cret") {
				t.Errorf("New = %v, which tells a secret", err)
			}
			if n := ca.Count(""); n != 0 {
				t.Errorf("%d requests to the CA", n)
			}
		})
	}
}

func TestDefaultStorageIsTheUsersFolder(t *testing.T) {
	t.Run("good", func(t *testing.T) {
		dir := t.TempDir()
		t.Setenv("XDG_CONFIG_HOME", dir)
		t.Setenv("HOME", dir)
		t.Setenv("AppData", dir)
		_, conf := newFake(t, fakeca.Options{})
		conf.Storage = nil
		closeManager(t, start(t, conf))
		where, err := os.UserConfigDir()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(where, "certwright")); err != nil {
			t.Error(err)
		}
	})
	t.Run("cannot be written", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		writeFile(t, file, nil)
		t.Setenv("XDG_CONFIG_HOME", file)
		t.Setenv("HOME", file)
		t.Setenv("AppData", file)
		ca, conf := newFake(t, fakeca.Options{})
		conf.Storage = nil
		_, err := New(conf)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != "Config.Storage" || !strings.Contains(err.Error(), file) {
			t.Errorf("New = %v; want an error of Config.Storage that names the folder", err)
		}
		if n := ca.Count(""); n != 0 {
			t.Errorf("%d requests to the CA", n)
		}
	})
}

// A name that cannot be managed is an error at once, and keeps none of the names
// given with it from being managed, but those in one certificate with it.
func TestBadNamesKeepNoOthersFromBeingManaged(t *testing.T) {
	for _, tt := range []struct{ name, says string }{
		{"", "empty"},
		{"a.example.com:443", "port"},
		{"[::1]:443", "port"},
		{"https://a.example.com", "scheme"},
		{"a.example.com/path", "path"},
		{"ann@a.example.com", "user"},
		{"a example.com", "space"},
		{"*", "wildcard"},
		{"*.*.example.com", ""},
		{"a.*.example.com", ""},
		{"-a.example.com", ""},
		{"a..example.com", ""},
		{"*.example.com", "dns-01"},
		{strings.Repeat("a", 64) + ".example.com", "63"},
		{strings.Repeat("abcdefgh.", 32) + "com", "253"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ca, conf := newFake(t, fakeca.Options{BaseURL: "https://bad-names.test"})
			m := start(t, conf)
			check := func(way string, err error, field string, managed ...string) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s = %v; want %q in it", way, err, tt.says)
				}
				var ce *ConfigError
				if !errors.As(err, &ce) || ce.Field != field {
					t.Errorf("%s = %v; want an error of %s", way, err, field)
				}
				var names []string
				for _, s := range m.Status() {
					names = append(names, s.Name)
				}
				if !slices.Equal(names, managed) {
					t.Errorf("after %s, %v are managed; want %v", way, names, managed)
				}
			}
			check("Manage", m.Manage(t.Context(), Spec{Names: []string{"good.example.com", tt.name}}), "Spec.Names[1]")
			if n := ca.Count(""); n != 0 {
				t.Errorf("%d requests to the CA", n)
			}
			check("ManageAsync", m.ManageAsync([]string{"a.example.com", tt.name}), "names[1]", "a.example.com")
			check("ManageSync", m.ManageSync(t.Context(), []string{"b.example.com", tt.name}), "names[1]", "a.example.com", "b.example.com")
			mustLeaf(t, m, "b.example.com")
		})
	}
}

// TestSpecFaultsNameTheField has specs that the CA is known not to issue for.
func TestSpecFaultsNameTheField(t *testing.T) {
	same := &ACME{Directory: LetsEncrypt}
	for _, tt := range []struct {
		name, field string
		spec        Spec
	}{
		{"no names", "Spec.Names", Spec{}},
		{"IP address without the profile", "Spec.Names[0]", Spec{Names: []string{"192.0.2.1"}}},
		{"private IP address", "Spec.Names[0]", Spec{Names: []string{"10.0.0.1"}, Profile: "shortlived"}},
		{"localhost", "Spec.Names[1]", Spec{Names: []string{"a.com", "localhost"}}},
		{"key type", "Spec.KeyTypes[0]", Spec{Names: []string{"a.com"}, KeyTypes: []KeyType{"x"}}},
		{"short life", "Spec.Lifetime", Spec{Names: []string{"a.com"}, Lifetime: time.Minute - 1}},
		{"negative life", "Spec.Lifetime", Spec{Names: []string{"a.com"}, Lifetime: -time.Hour}},
		{"nil issuer", "Spec.Issuers[0]", Spec{Names: []string{"a.com"}, Issuers: []Issuer{nil}}},
		{"bad issuer", "Spec.Issuers[0].Directory", Spec{Names: []string{"a.com"}, Issuers: []Issuer{&ACME{Directory: "x"}}}},
		{"same issuer", "Spec.Issuers[0]", Spec{Names: []string{"a.com"}, Issuers: []Issuer{same}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := start(t, Config{AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1})
			err := m.Manage(t.Context(), tt.spec)
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != tt.field {
				t.Errorf("Manage = %v; want an error of %s", err, tt.field)
			}
			if n := len(m.Status()); n != 0 {
				t.Errorf("%d names are managed", n)
			}
		})
	}
}

func TestErrorHasTheCAsProblemAndTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unsupportedIdentifier", http.StatusBadRequest, "no addresses here")})
		m := start(t, conf)
		err := m.ManageSync(t.Context(), []string{"192.0.2.1"})
		var p *Problem
		if !errors.As(err, &p) || !strings.HasSuffix(p.Type, "unsupportedIdentifier") || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Errorf("ManageSync = %v; want the CA's problem and the name", err)
		}
		if n := ca.Count("newOrder"); n != 1 {
			t.Errorf("%d orders", n)
		}
	})
}

func TestErrorSaysThatTheDirectoryIsAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "directory", Status: 200, Body: []byte("<!DOCTYPE html><html>welcome</html>"), ContentType: "text/html; charset=utf-8"})
		m := start(t, conf)
		err := m.ManageSync(t.Context(), []string{"a.example.com"})
		if err == nil {
			t.Fatal("a certificate came out of a page")
		}
		for _, want := range []string{"text/html", "<!DOCTYPE html>", "check the directory URL", ca.Directory(), "a.example.com"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("ManageSync = %v; want %q in it", err, want)
			}
		}
		if n := ca.Count(""); n != 1 {
			t.Errorf("%d requests to something that is no CA", n)
		}
	})
}
