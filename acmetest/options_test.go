package acmetest_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/acmetest"
)

func TestNewRefusesBadOptions(t *testing.T) {
	const secret = "not/base64url+"
	tests := []struct {
		field   string
		options acmetest.Options
	}{
		{"BadNonces", acmetest.Options{BadNonces: 100}},
		{"ReuseAuthorizations", acmetest.Options{ReuseAuthorizations: -1}},
		{"HTTPPort", acmetest.Options{HTTPPort: 65536}},
		{"TLSPort", acmetest.Options{TLSPort: -1}},
		{"AlternateRoots", acmetest.Options{AlternateRoots: -1}},
		{"ChainLength", acmetest.Options{ChainLength: -1}},
		{"Profiles", acmetest.Options{Profiles: map[string]acmetest.Profile{"": {}}}},
		{"Profiles", acmetest.Options{Profiles: map[string]acmetest.Profile{"a": {Lifetime: -1}}}},
		{"EAB", acmetest.Options{EAB: map[string]string{"kid": secret}}},
		{"EAB", acmetest.Options{EAB: map[string]string{"kid": ""}}},
		{"RetryAfter", acmetest.Options{RetryAfter: -1}},
		{"ListenAddr", acmetest.Options{ListenAddr: "no port"}},
	}
	for _, tt := range tests {
		t.Run(tt.field, func(t *testing.T) {
			_, err := acmetest.New(tt.options)
			if err == nil || !strings.Contains(err.Error(), tt.field) {
				t.Errorf("error is %v, want one that names %s", err, tt.field)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Error("the error quotes a MAC key")
			}
		})
	}
	ca := acmetest.Start(t)
	taken := strings.TrimSuffix(strings.TrimPrefix(ca.Directory(), "https://"), "/dir")
	if _, err := acmetest.New(acmetest.Options{ListenAddr: taken}); err == nil {
		t.Error("listening on an address in use did not fail")
	}
}

func TestProfiles(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{Profiles: map[string]acmetest.Profile{
		"week":  {Description: "seven days", Lifetime: 7 * 24 * time.Hour},
		"tiny":  {Lifetime: 9*time.Second + time.Millisecond},
		"usual": {},
	}})
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	directory, err := u.client.GetDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := directory.Meta.Profiles["week"]; got != "seven days" {
		t.Errorf("the directory describes a profile as %q", got)
	}
	want := map[string]time.Duration{"week": 7 * 24 * time.Hour, "tiny": 10 * time.Second, "usual": 90 * 24 * time.Hour}
	for profile, lifetime := range want {
		certs, err := u.order(t, func(p *acmez.OrderParameters) { p.Profile = profile }, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		leaf := parseChain(t, certs[0].ChainPEM)[0]
		if got := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second; got != lifetime {
			t.Errorf("profile %q: lifetime is %v, want %v", profile, got, lifetime)
		}
	}
	// acmez itself would not send such an order.
	problem := postJWS(t, ca, u.account, directory.NewOrder,
		`{"profile":"other","identifiers":[{"type":"dns","value":"example.com"}]}`)
	if problem.Type != "urn:ietf:params:acme:error:invalidProfile" {
		t.Errorf("unknown profile: %v, want invalidProfile", problem)
	}
}

func TestExternalAccountBinding(t *testing.T) {
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	ca := acmetest.StartWith(t, acmetest.Options{EAB: map[string]string{"kid-1": key}})
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client(), UserAgent: "acmetest"}
	tests := []struct {
		name    string
		eab     *acme.EAB
		problem string // empty means success
	}{
		{"right key", &acme.EAB{KeyID: "kid-1", MACKey: key}, ""},
		{"none", nil, acme.ProblemTypeExternalAccountRequired},
		{"wrong key", &acme.EAB{KeyID: "kid-1", MACKey: "c2VjcmV0"}, acme.ProblemTypeUnauthorized},
		{"unknown key identifier", &acme.EAB{KeyID: "kid-2", MACKey: key}, acme.ProblemTypeUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(t)}
			if tt.eab != nil {
				if err := account.SetExternalAccountBinding(t.Context(), client, *tt.eab); err != nil {
					t.Fatal(err)
				}
			}
			account, err := client.NewAccount(t.Context(), account)
			var problem acme.Problem
			errors.As(err, &problem)
			if problem.Type != tt.problem || (tt.problem == "") != (account.Location != "") {
				t.Errorf("account %q, error %v; want problem %q", account.Location, err, tt.problem)
			}
		})
	}
}

func TestChains(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{AlternateRoots: 2, ChainLength: 2, OCSPURL: "http://ocsp.test/"})
	u := newUser(t, ca, acme.ChallengeTypeTLSALPN01)
	certs, err := u.order(t, nil, "example.com")
	if err != nil {
		t.Fatal(err)
	}
	roots := parseChain(t, ca.RootPEM())
	if len(certs) != 3 || len(roots) != 3 {
		t.Fatalf("%d chains and %d roots, want 3 and 3", len(certs), len(roots))
	}
	reached := make(map[string]bool)
	for _, cert := range certs {
		chain := parseChain(t, cert.ChainPEM)
		if len(chain) != 3 {
			t.Errorf("a chain has %d certificates, want a leaf and 2 intermediates", len(chain))
		}
		for _, root := range roots {
			if bytes.Equal(chain[len(chain)-1].AuthorityKeyId, root.SubjectKeyId) {
				reached[root.Subject.CommonName] = true
			}
		}
		if leaf := verify(t, cert.ChainPEM, ca.Roots(), "example.com"); !slices.Equal(leaf.OCSPServer, []string{"http://ocsp.test/"}) {
			t.Errorf("the OCSP responder is %q", leaf.OCSPServer)
		}
	}
	if len(reached) != 3 {
		t.Errorf("the chains lead to %d roots, want 3", len(reached))
	}
}

func TestBlocklist(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{Blocklist: []string{"Bad.Example.com."}})
	u := newUser(t, ca, acme.ChallengeTypeDNS01)
	for _, name := range []string{"bad.example.com", "BAD.example.com", "very.bad.example.com", "*.bad.example.com"} {
		_, err := u.order(t, nil, "good.example.com", name)
		var problem acme.Problem
		if !errors.As(err, &problem) || problem.Type != acme.ProblemTypeRejectedIdentifier {
			t.Errorf("ordering %q: %v, want rejectedIdentifier", name, err)
		} else if len(problem.Subproblems) != 1 || !strings.EqualFold(problem.Subproblems[0].Identifier.Value, name) {
			t.Errorf("ordering %q: subproblems %v do not name it", name, problem.Subproblems)
		}
	}
	if got := ca.Orders(); got != 0 {
		t.Errorf("%d refused orders are counted", got)
	}
	for _, name := range []string{"example.com", "notbad.example.com", "*.example.com"} {
		verify(t, u.issue(t, name), ca.Roots(), strings.Replace(name, "*", "a", 1))
	}
}

func TestReuseAuthorizations(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{ReuseAuthorizations: 100})
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	u.issue(t, "example.com")
	u.issue(t, "example.com")
	if got := ca.Requests()[acmetest.KindChallenge]; got != 1 {
		t.Errorf("%d challenges were answered, want the first order's only", got)
	}
}

func TestP1_BadNonces(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{BadNonces: 90})
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client(), UserAgent: "acmetest"}
	directory, err := client.GetDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// acmez waits before each of its retries, which would take seconds.
	const tries = 200
	var bad, good int
	for range tries {
		switch problem := postJWS(t, ca, acme.Account{PrivateKey: newKey(t)}, directory.NewAccount, `{"termsOfServiceAgreed":true}`); problem.Type {
		case "":
			good++
		case acme.ProblemTypeBadNonce:
			bad++
		default:
			t.Fatalf("problem %v", problem)
		}
	}
	if good == 0 || bad < tries*7/10 {
		t.Errorf("%d nonces were good and %d bad, want about a tenth good", good, bad)
	}
}

// TestConcurrentUsers is for the race detector, and for locks in Pebble that
// requests take in different orders.
func TestConcurrentUsers(t *testing.T) {
	ca := acmetest.Start(t)
	const users, rounds = 6, 4
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			name := string(rune('a'+i)) + ".example.com"
			var old *x509.Certificate
			for range rounds {
				certs, err := u.order(t, func(p *acmez.OrderParameters) { p.Replaces = old }, name)
				if err != nil {
					t.Errorf("issuing for %q: %v", name, err)
					return
				}
				old = parseChain(t, certs[0].ChainPEM)[0]
			}
		})
	}
	wg.Wait()
	if got := ca.Orders(); got != users*rounds {
		t.Errorf("%d orders, want %d", got, users*rounds)
	}
}
