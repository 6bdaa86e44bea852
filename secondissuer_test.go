package certwright_test

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// failingIssuers are the ways in which a first CA can be of no use.
var failingIssuers = []struct {
	name string
	rule fakeca.Rule
}{
	{"500", fakeca.Rule{Problem: fakeca.NewProblem("serverInternal", 500, "maintenance")}},
	{"503 page", fakeca.Rule{Status: 503, Body: []byte("<html>maintenance</html>")}},
	{"hang", fakeca.Rule{Hang: true}},
	{"hang at newOrder", fakeca.Rule{Endpoint: "newOrder", Hang: true}},
	{"refused", fakeca.Rule{Err: syscall.ECONNREFUSED}},
	{"429", fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(time.Hour, "slow down")}},
	{"429 at newAccount", fakeca.Rule{Endpoint: "newAccount", Problem: fakeca.RateLimited(time.Hour, "slow down")}},
	{"rejected", fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("rejectedIdentifier", 403, "not this name")}},
	{"finalize", fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("badCSR", 400, "not this CSR")}},
}

func TestSecondIssuerIsAskedWhenTheFirstIsOfNoUse(t *testing.T) {
	const name = "a.example.com"
	adding := map[string]func(t *testing.T, m *Manager) error{
		"ManageSync": func(t *testing.T, m *Manager) error { return m.ManageSync(t.Context(), []string{name}) },
		"ManageAsync": func(t *testing.T, m *Manager) error {
			return errors.Join(m.ManageAsync([]string{name}), m.Wait(t.Context(), name))
		},
		"Manage":             func(t *testing.T, m *Manager) error { return m.Manage(t.Context(), Spec{Names: []string{name}}) },
		"Manage with issuer": nil,
		"Renew":              nil,
	}
	for _, tt := range failingIssuers {
		for way, add := range adding {
			if way == "Renew" && tt.rule.Endpoint == "newAccount" {
				continue // there is an account by then
			}
			t.Run(tt.name+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "a")})
					b, _ := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "b")})
					first := issuerAt(a)
					first.Timeout = 30 * time.Second
					conf.Issuers = []Issuer{first, issuerAt(b)}
					m := startAlone(t, conf)
					switch way {
					case "Renew":
						manage(t, m, name)
						add = func(t *testing.T, m *Manager) error { return m.Renew(t.Context(), name) }
					case "Manage with issuer":
						add = func(t *testing.T, m *Manager) error {
							return m.Manage(t.Context(), Spec{Names: []string{name}, Issuers: []Issuer{first, conf.Issuers[1]}})
						}
					}
					a.On(tt.rule)
					if err := add(t, m); err != nil {
						t.Fatal(err)
					}
					if s := statusFor(t, m, name); s.Issuer != issuerAt(b).ID() || s.State != StateValid {
						t.Errorf("status says issuer %q, %q; want the second, valid", s.Issuer, s.State)
					}
					if n := len(b.Certificates()); n != 1 {
						t.Errorf("the second CA issued %d certificates", n)
					}
				})
			})
		}
	}
}
