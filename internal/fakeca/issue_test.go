package fakeca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/fakeca"
)

// acmez caches directories by URL for the whole process, so each CA has its own host.
var hosts atomic.Int64

func newCA(opt fakeca.Options) *fakeca.CA {
	if opt.BaseURL == "" {
		opt.BaseURL = fmt.Sprintf("https://ca%d.test/acme", hosts.Add(1))
	}
	return fakeca.New(opt)
}

// user is an ACME account at a CA.
type user struct {
	*acme.Client
	account acme.Account
}

func newUser(t *testing.T, ca *fakeca.CA) *user {
	t.Helper()
	u := &user{
		Client:  &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client()},
		account: acme.Account{PrivateKey: ecKey(t, elliptic.P256()), TermsOfServiceAgreed: true},
	}
	u.register(t)
	return u
}

func (u *user) register(t *testing.T) {
	t.Helper()
	var err error
	if u.account, err = u.NewAccount(t.Context(), u.account); err != nil {
		t.Fatal(err)
	}
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func identifiers(names ...string) []acme.Identifier {
	var out []acme.Identifier
	for _, name := range names {
		kind := "dns"
		if _, err := netip.ParseAddr(name); err == nil {
			kind = "ip"
		}
		out = append(out, acme.Identifier{Type: kind, Value: name})
	}
	return out
}

func csrFor(t testing.TB, key crypto.Signer, order acme.Order) []byte {
	t.Helper()
	template := new(x509.CertificateRequest)
	for _, id := range order.Identifiers {
		if id.Type == "ip" {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(id.Value))
		} else {
			template.DNSNames = append(template.DNSNames, id.Value)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// authorize answers every pending authorization with a challenge of the kind; "" means the first.
func (u *user) authorize(ctx context.Context, order acme.Order, kind string) error {
	for _, url := range order.Authorizations {
		authz, err := u.GetAuthorization(ctx, u.account, url)
		if err != nil {
			return err
		}
		if authz.Status == "valid" {
			continue
		}
		i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return kind == "" || c.Type == kind })
		if i < 0 {
			return fmt.Errorf("no challenge %q for %s", kind, authz.IdentifierValue())
		}
		if _, err := u.InitiateChallenge(ctx, u.account, authz.Challenges[i]); err != nil {
			return err
		}
		if _, err := u.PollAuthorization(ctx, u.account, authz); err != nil {
			return err
		}
	}
	return nil
}

// issue takes an order from start to end and returns the leaf with its key.
func (u *user) issue(t *testing.T, order acme.Order) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	leaf, err := u.tryIssue(t, key, order)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, key
}

// tryIssue may be called from any goroutine.
func (u *user) tryIssue(t testing.TB, key crypto.Signer, order acme.Order) (*x509.Certificate, error) {
	order, err := u.NewOrder(t.Context(), u.account, order)
	if err != nil {
		return nil, err
	}
	if err := u.authorize(t.Context(), order, ""); err != nil {
		return nil, err
	}
	order, err = u.FinalizeOrder(t.Context(), u.account, order, csrFor(t, key, order))
	if err != nil {
		return nil, err
	}
	chains, err := u.GetCertificateChain(t.Context(), u.account, order.Certificate)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(chains[0].ChainPEM)
	if block == nil {
		return nil, errors.New("no PEM in the chain")
	}
	return x509.ParseCertificate(block.Bytes)
}

// problem is the CA's document in err; the test fails when there is none or its type is another.
func problem(t *testing.T, err error, kind string) acme.Problem {
	t.Helper()
	var p acme.Problem
	if !errors.As(err, &p) || p.Type != "urn:ietf:params:acme:error:"+kind {
		t.Fatalf("got %v, want a %s problem", err, kind)
	}
	return p
}

func verify(t *testing.T, ca *fakeca.CA, leaf *x509.Certificate, names ...string) {
	t.Helper()
	intermediate, _ := ca.Intermediate()
	pool := x509.NewCertPool()
	pool.AddCert(intermediate)
	for _, name := range names {
		opt := x509.VerifyOptions{Roots: ca.Roots(), Intermediates: pool, DNSName: name, CurrentTime: time.Now()}
		if _, err := leaf.Verify(opt); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := len(leaf.DNSNames) + len(leaf.IPAddresses); got != len(names) {
		t.Errorf("the leaf has %d names, want %d", got, len(names))
	}
}

func TestIssue(t *testing.T) {
	for _, kind := range []string{"http-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen []fakeca.ChallengeInfo
				ca := newCA(fakeca.Options{Validate: func(_ context.Context, info fakeca.ChallengeInfo) error {
					seen = append(seen, info)
					return nil
				}})
				u := newUser(t, ca)
				names := []string{"example.com", "www.example.com", "192.0.2.7", "2001:db8::1"}
				order, err := u.NewOrder(t.Context(), u.account, acme.Order{Identifiers: identifiers(names...)})
				if err != nil {
					t.Fatal(err)
				}
				if err := u.authorize(t.Context(), order, kind); err != nil {
					t.Fatal(err)
				}
				order, err = u.FinalizeOrder(t.Context(), u.account, order, csrFor(t, ecKey(t, elliptic.P384()), order))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := u.GetCertificateChain(t.Context(), u.account, order.Certificate); err != nil {
					t.Fatal(err)
				}
				verify(t, ca, ca.Certificates()[0], names...)
				thumb, err := u.account.Thumbprint()
				if err != nil {
					t.Fatal(err)
				}
				for i, info := range seen {
					want := fakeca.ChallengeInfo{
						Type:             kind,
						Token:            info.Token,
						KeyAuthorization: info.Token + "." + thumb,
						Identifier:       fakeca.Identifier{Type: order.Identifiers[i].Type, Value: names[i]},
						Account:          u.account.Location,
					}
					if info.Token == "" || info != want {
						t.Errorf("the validator saw %+v, want %+v", info, want)
					}
				}
				if len(seen) != len(names) {
					t.Errorf("the validator saw %d challenges, want %d", len(seen), len(names))
				}
			})
		})
	}
}

func TestIssueOverTLS(t *testing.T) {
	ca := fakeca.New(fakeca.Options{Alternates: 1})
	srv := httptest.NewTLSServer(ca)
	defer srv.Close()
	for name, key := range map[string]crypto.Signer{
		"ES256": ecKey(t, elliptic.P256()), "ES384": ecKey(t, elliptic.P384()), "RS256": rsaKey(t),
	} {
		t.Run(name, func(t *testing.T) {
			u := &user{
				Client:  &acme.Client{Directory: srv.URL + "/directory", HTTPClient: srv.Client(), PollInterval: time.Millisecond},
				account: acme.Account{PrivateKey: key, TermsOfServiceAgreed: true, Contact: []string{"mailto:a@example.com"}},
			}
			u.register(t)
			if !strings.HasPrefix(u.account.Location, srv.URL+"/account/") {
				t.Errorf("the account is at %s, not on %s", u.account.Location, srv.URL)
			}
			leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com", "127.0.0.1")})
			verify(t, ca, leaf, "example.com", "127.0.0.1")
			chains, err := u.GetCertificateChain(t.Context(), u.account, srv.URL+"/cert/"+leaf.SerialNumber.Text(16))
			if err != nil || len(chains) != 2 {
				t.Errorf("got %d chains and %v, want 2", len(chains), err)
			}
		})
	}
	for _, r := range ca.Requests("") {
		if r.Status >= http.StatusBadRequest {
			t.Errorf("%s %s was answered %d", r.Method, r.URL, r.Status)
		}
	}
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
