package certwright_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// TestStoredCertificateIsServedUntilTheWantedOneIsThere changes the configuration
// while the CA is down: what is stored and covers the name is served from the
// start on, and what is wanted comes when the CA is back, once. (F1)
func TestStoredCertificateIsServedUntilTheWantedOneIsThere(t *testing.T) {
	names := func(list ...string) func(*Config, *Spec) { return func(_ *Config, s *Spec) { s.Names = list } }
	tests := []struct {
		name   string
		change func(conf *Config, s *Spec)
		orders int // that the change asks for
		wanted func(leaf *x509.Certificate) bool
	}{
		{"another issuer", nil, 1, nil},
		{"another EAB key", func(c *Config, _ *Spec) { c.Issuers[0].(*ACME).EAB = eab("two") }, 0, nil},
		{"another account", func(c *Config, _ *Spec) { c.Issuers[0].(*ACME).Account = "second" }, 0, nil},
		{"names in another order", names("b.example.com", "a.example.com"), 0, nil},
		{"a name taken away", names("a.example.com"), 1, func(l *x509.Certificate) bool { return len(l.DNSNames) == 1 }},
		{"P-256 to P-384", func(_ *Config, s *Spec) { s.KeyTypes = []KeyType{P384} }, 1, func(l *x509.Certificate) bool {
			return l.PublicKey.(*ecdsa.PublicKey).Curve == elliptic.P384()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{EAB: map[string][]byte{"one": []byte("secret"), "two": []byte("secret")}})
				conf.Issuers[0].(*ACME).EAB = eab("one")
				spec := Spec{Names: []string{"a.example.com", "b.example.com"}}
				m := start(t, conf)
				if err := m.Manage(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				first := mustLeaf(t, m, "a.example.com")
				time.Sleep(10 * day)
				closeManager(t, m)

				now := issuerAt(ca)
				now.EAB = eab("one")
				conf.Issuers = []Issuer{now}
				if tt.change == nil {
					ca, _ = newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "other")})
					conf.Issuers = []Issuer{issuerAt(ca)}
				} else {
					tt.change(&conf, &spec)
				}
				ca.Down(nil)
				before := len(ca.Orders())
				m = start(t, conf)
				if err := m.Manage(t.Context(), spec); err != nil {
					t.Errorf("Manage: %v", err)
				}
				for range 2 * 24 {
					time.Sleep(time.Hour)
					if leaf := mustLeaf(t, m, "a.example.com"); !leaf.Equal(first) {
						t.Fatalf("served is %x of %v", leaf.SerialNumber, leaf.DNSNames)
					}
				}
				ca.Up()
				time.Sleep(time.Hour)
				leaf := mustLeaf(t, m, "a.example.com")
				if n := len(ca.Orders()) - before; n != tt.orders || leaf.Equal(first) != (tt.orders == 0) {
					t.Errorf("%d orders, want %d; the first is still served: %v", n, tt.orders, leaf.Equal(first))
				}
				if tt.wanted != nil && !tt.wanted(leaf) {
					t.Errorf("served is %x of %v, a %T", leaf.SerialNumber, leaf.DNSNames, leaf.PublicKey)
				}
				if s := statusFor(t, m, spec.Names[0]); s.State != StateValid || s.LastError != "" {
					t.Errorf("Status is %+v", s)
				}
			})
		})
	}
}

// eab is a binding that the CA of these tests knows.
func eab(id string) *EAB { return &EAB{KeyID: id, MACKey: "c2VjcmV0"} }

// TestNameAddedToASetKeepsTheOthersServed adds a name to the set while the CA is
// down: what is stored does not cover the set, and still serves the names that it
// has. (F1)
func TestNameAddedToASetKeepsTheOthersServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		spec := Spec{Names: []string{"a.example.com", "b.example.com"}}
		m := start(t, conf)
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		first := mustLeaf(t, m, "a.example.com")
		time.Sleep(10 * day)
		closeManager(t, m)
		ca.Down(nil)
		m = start(t, conf)
		spec.Names = append(spec.Names, "c.example.com")
		if err := m.Manage(t.Context(), spec); err == nil {
			t.Error("a certificate for all three came from a CA that is down")
		}
		for _, name := range spec.Names[:2] {
			if leaf := leafOf(m, name); leaf == nil || !leaf.Equal(first) {
				t.Errorf("%s: served is %v", name, leaf)
			}
		}
		ca.Up()
		time.Sleep(time.Hour)
		for _, name := range spec.Names {
			if leaf := mustLeaf(t, m, name); len(leaf.DNSNames) != 3 {
				t.Errorf("%s: served is one for %v", name, leaf.DNSNames)
			}
		}
	})
}

// TestCoveringCertificatesAreReplacedOnceEach restarts 200 names with another CA:
// all are served at once, and each is ordered once. (F1)
func TestCoveringCertificatesAreReplacedOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		names := numbered(200, "example.com")
		m := start(t, conf)
		manage(t, m, names...)
		closeManager(t, m)
		other, second := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "other")})
		conf.Issuers = second.Issuers
		other.Down(nil)
		m = start(t, conf)
		began := time.Now()
		manage(t, m, names...)
		if took := time.Since(began); took > time.Second {
			t.Errorf("what is stored was served after %v", took)
		}
		time.Sleep(day)
		other.Up()
		time.Sleep(time.Hour)
		if n := len(other.Orders()); n != len(names) {
			t.Errorf("%d orders for %d names", n, len(names))
		}
		for _, name := range names {
			if s := statusFor(t, m, name); s.Issuer != second.Issuers[0].ID() {
				t.Errorf("%s is served from %s", name, s.Issuer)
			}
		}
	})
}

// TestCertificateOfATestCACountsAsNone begins with a CA whose certificates no
// client trusts and goes on with another: what the first has issued is not
// served. To go back to it is to be served what is stored. (F1)
func TestCertificateOfATestCACountsAsNone(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		trial, conf := newFake(t, fakeca.Options{BaseURL: "https://acme-staging." + testHost(t, "ca")})
		staged := slices.Clone(conf.Issuers)
		m := start(t, conf)
		manage(t, m, name)
		first := mustLeaf(t, m, name)
		closeManager(t, m)

		real, second := newFake(t, fakeca.Options{})
		real.Down(nil)
		conf.Issuers = second.Issuers
		m = start(t, conf)
		if err := m.ManageSync(t.Context(), []string{name}); err == nil {
			t.Error("the certificate of a test CA counts as one of the other's")
		}
		if leaf := leafOf(m, name); leaf != nil {
			t.Errorf("served is %v", leaf)
		}
		closeManager(t, m)

		conf.Issuers = []Issuer{&ACME{Directory: staged[0].(*ACME).Directory, HTTPClient: trial.Client()}}
		trial.Down(nil)
		m = start(t, conf)
		manage(t, m, name)
		if !mustLeaf(t, m, name).Equal(first) {
			t.Error("another certificate is served than is stored")
		}
	})
}

// TestWildcardServesAUntilANameHasItsOwn manages a name below a stored wildcard
// while the CA is down. (F1)
func TestWildcardServesUntilANameHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{Challenges: []string{"dns-01"}})
		solve := func() []Issuer {
			iss := issuerAt(ca)
			iss.Solvers = map[string]Solver{"dns-01": noSolver{}}
			return []Issuer{iss}
		}
		conf.Issuers = solve()
		m := start(t, conf)
		manage(t, m, "*.example.com")
		wild := mustLeaf(t, m, "a.example.com")
		closeManager(t, m)
		ca.Down(nil)
		conf.Issuers = solve()
		m = start(t, conf)
		manage(t, m, "a.example.com")
		if !mustLeaf(t, m, "a.example.com").Equal(wild) {
			t.Error("the wildcard's certificate is not served")
		}
		if leaf := leafOf(m, "b.example.com"); leaf != nil {
			t.Errorf("a name that nobody manages is served: %v", leaf.DNSNames)
		}
		ca.Up()
		time.Sleep(time.Hour)
		if leaf := mustLeaf(t, m, "a.example.com"); fmt.Sprint(leaf.DNSNames) != "[a.example.com]" {
			t.Errorf("served is one for %v", leaf.DNSNames)
		}
	})
}

// TestStoredCertificatesServeWhatIsSpeltOtherwise has names in certificates of
// their own, in one for all, or below a wildcard, change from one to the other while
// the CA is down: all that is stored and covers a name is served, and is good enough
// to start on. (F1)
func TestStoredCertificatesServeWhatIsSpeltOtherwise(t *testing.T) {
	one := func(names ...string) []Spec { return []Spec{{Names: names}} }
	each := func(names ...string) (list []Spec) {
		for _, name := range names {
			list = append(list, Spec{Names: []string{name}})
		}
		return list
	}
	for _, tt := range []struct {
		name          string
		before, after []Spec
		asked, dark   []string // what is served, and what is not
		ok            bool     // a start on it succeeds
	}{
		{"each to one", each("a.x.test", "b.x.test"), one("a.x.test", "b.x.test"), []string{"a.x.test", "b.x.test"}, nil, true},
		{"one to each", one("a.x.test", "b.x.test"), each("a.x.test", "b.x.test"), []string{"a.x.test", "b.x.test"}, nil, true},
		{"two to one", append(one("a.x.test", "b.x.test"), one("b.x.test", "c.x.test")...), one("a.x.test", "b.x.test", "c.x.test"), []string{"a.x.test", "b.x.test", "c.x.test"}, nil, true},
		{"one more", one("a.x.test", "b.x.test"), one("a.x.test", "b.x.test", "c.x.test"), []string{"a.x.test", "b.x.test"}, []string{"c.x.test"}, false},
		{"wildcard to each", each("*.x.test"), each("a.x.test", "b.x.test"), []string{"a.x.test", "b.x.test"}, []string{"c.x.test"}, true},
		{"wildcard to one", each("*.x.test"), one("a.x.test", "b.x.test"), []string{"a.x.test", "b.x.test"}, nil, true},
		{"each to wildcard", each("a.x.test", "b.x.test", "x.test", "a.b.x.test"), each("*.x.test"), []string{"a.x.test", "b.x.test"}, []string{"c.x.test", "x.test", "a.b.x.test"}, false},
		{"one to wildcard", one("a.x.test", "b.x.test", "y.test"), one("*.x.test", "x.test"), []string{"a.x.test", "b.x.test"}, []string{"c.x.test", "y.test"}, false},
		{"each to wildcard and the name", each("a.x.test", "x.test"), one("*.x.test", "x.test"), []string{"a.x.test", "x.test"}, []string{"c.x.test"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				mem := storage.NewMemory()
				on := func(c *Config) { c.Storage = mem }
				m := offline(t, f, on)
				if err := m.Manage(t.Context(), tt.before...); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * day)
				closeManager(t, m)
				f.set(func() { f.err = errors.New("down") })
				m = offline(t, f, on)
				if err := m.Manage(t.Context(), tt.after...); (err == nil) != tt.ok {
					t.Errorf("Manage: %v", err)
				}
				check := func() {
					for _, name := range tt.asked {
						if leaf := leafOf(m, name); leaf == nil {
							t.Errorf("%s is not served", name)
						}
					}
					for _, name := range tt.dark {
						if leaf := leafOf(m, name); leaf != nil {
							t.Errorf("%s is served by one for %v", name, leaf.DNSNames)
						}
					}
				}
				check()
				time.Sleep(day)
				check()
				before := f.count()
				f.set(func() { f.err = nil })
				time.Sleep(7 * time.Hour) // as long as any back-off
				if n := f.count() - before; n != len(tt.after) {
					t.Errorf("%d orders when the CA is back", n)
				}
				for _, name := range append(tt.asked, tt.after[0].Names...) {
					name = strings.Replace(name, "*", "w", 1)
					if s := statusFor(t, m, tt.after[0].Names[0]); leafOf(m, name) == nil || s.State != StateValid {
						t.Errorf("%s: Status is %+v", name, s)
					}
				}
				closeManager(t, m)
				for _, name := range tt.asked {
					if leafOf(m, name) == nil {
						t.Errorf("%s is not served after Close", name)
					}
				}
			})
		})
	}
}

// TestStoredKeyTypesAreServedEach changes the names of certificates with two key types
// while the CA is down: a client that takes one of them only is served on. (F1, F61)
func TestStoredKeyTypesAreServedEach(t *testing.T) {
	rsaOnly := helloFor("a.example.com", "")
	rsaOnly.SupportedVersions, rsaOnly.CipherSuites = []uint16{tls.VersionTLS12}, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	rsaOnly.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256}
	for _, tt := range []struct{ before, after []string }{
		{[]string{"a.example.com", "b.example.com"}, []string{"a.example.com"}},
		{[]string{"a.example.com"}, []string{"a.example.com", "b.example.com"}},
		{[]string{"*.example.com"}, []string{"a.example.com"}},
		{[]string{"a.example.com"}, []string{"*.example.com"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeSigner(t)
			mem := storage.NewMemory()
			on := func(c *Config) { c.Storage, c.KeyTypes = mem, []KeyType{P256, RSA2048} }
			m := offline(t, f, on)
			if err := m.Manage(t.Context(), Spec{Names: tt.before}); err != nil {
				t.Fatal(err)
			}
			closeManager(t, m)
			time.Sleep(day)
			f.set(func() { f.err = errors.New("down") })
			m = offline(t, f, on)
			_ = m.Manage(t.Context(), Spec{Names: tt.after})
			for want, hello := range map[x509.PublicKeyAlgorithm]*tls.ClientHelloInfo{x509.ECDSA: helloFor("a.example.com", ""), x509.RSA: rsaOnly} {
				if cert, err := m.GetCertificate(hello); err != nil || cert.Leaf.PublicKeyAlgorithm != want {
					t.Errorf("%v to %v: %v is not served: %v", tt.before, tt.after, want, err)
				}
			}
		})
	}
}

// TestTrialOfATestCACostsNothing goes from a CA to one whose certificates no client
// trusts, and back while the first is down: its certificate is there still. (F1)
func TestTrialOfATestCACostsNothing(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		real, conf := newFake(t, fakeca.Options{})
		trial, second := newFake(t, fakeca.Options{BaseURL: "https://acme-staging." + testHost(t, "ca")})
		m := start(t, conf)
		manage(t, m, name)
		first := mustLeaf(t, m, name)
		closeManager(t, m)
		time.Sleep(day)

		conf.Issuers = second.Issuers
		m = start(t, conf)
		manage(t, m, name)
		time.Sleep(40 * day)
		if mustLeaf(t, m, name).Equal(first) || len(trial.Orders()) != 1 {
			t.Errorf("the trial's certificate is not served; %d orders", len(trial.Orders()))
		}
		closeManager(t, m)

		real.Down(nil)
		conf.Issuers = []Issuer{issuerAt(real)}
		m = start(t, conf)
		manage(t, m, name)
		if !mustLeaf(t, m, name).Equal(first) {
			t.Error("the first certificate is not served")
		}
		time.Sleep(day)
		real.Up()
		time.Sleep(day)
		if n := len(real.Orders()); !mustLeaf(t, m, name).Equal(first) || n != 1 {
			t.Errorf("%d orders", n)
		}
		time.Sleep(30 * day)
		if n := len(real.Orders()); mustLeaf(t, m, name).Equal(first) || n != 2 {
			t.Errorf("not renewed, %d orders", n)
		}
		closeManager(t, m)
		conf.Issuers = []Issuer{issuerAt(real)}
		m = start(t, conf)
		manage(t, m, name)
		if leaf := mustLeaf(t, m, name); leaf.Equal(first) || len(real.Orders()) != 2 {
			t.Error("after another start it is not what was renewed")
		}
	})
}

// Clients that name no server come while a start reads what is stored: they wait for
// the only certificate, as those do that name it. (F68)
func TestOnlyCertificateIsReadForClientsWithoutAName(t *testing.T) {
	for _, types := range [][]KeyType{{P256}, {P256, P384}} {
		synctest.Test(t, func(t *testing.T) {
			f, mem := newFakeSigner(t), storage.NewMemory()
			spec := Spec{Names: []string{"a.example.com", "b.example.com"}, KeyTypes: types}
			if err := offline(t, f, func(c *Config) { c.Storage = mem }).Manage(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			for _, sni := range []string{"", "192.0.2.1"} {
				s := newFaulty(mem)
				s.set(func(call) fault { return fault{delay: time.Second} })
				m := offline(t, f, func(c *Config) { c.Storage = s })
				go m.Manage(t.Context(), spec) //nolint:errcheck // it takes as long as it takes
				synctest.Wait()
				checkHello(t, m, helloFor(sni, ""), "a.example.com")
			}
		})
	}
}
