package fakeca_test

import (
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/fakeca"
)

// issueRaw takes an order from start to end.
func (r *rawClient) issueRaw(fields map[string]any, names ...string) *x509.Certificate {
	r.t.Helper()
	o := r.newOrder(fields, names...)
	if o.status != http.StatusCreated {
		r.t.Fatalf("newOrder was answered %d %s", o.status, o.raw)
	}
	r.meet(o)
	r.finalize(o, r.csr(names...)).wantStatus(r.t, "valid")
	all := r.ca.Certificates()
	return all[len(all)-1]
}

func (r *rawClient) renewalInfo(id string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url("renewal-info/"+id), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := r.do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// TestCertID compares with another implementation, over serial numbers with and without a first bit.
func TestCertID(t *testing.T) {
	r := newRaw(t, newCA(fakeca.Options{}))
	high, low := 0, 0
	for range 100 {
		leaf := r.issueRaw(nil, "example.com")
		want, err := acme.ARIUniqueIdentifier(leaf)
		if err != nil || fakeca.CertID(leaf) != want {
			t.Fatalf("got %q, want %q (%v)", fakeca.CertID(leaf), want, err)
		}
		if leaf.SerialNumber.BitLen()%8 == 0 {
			high++
		} else {
			low++
		}
		if high > 0 && low > 0 {
			return
		}
	}
	t.Errorf("of 100 serial numbers %d start with a set bit", high)
}

func TestDefaultWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(fakeca.Options{DefaultLifetime: 30 * time.Hour})
		u := newUser(t, ca)
		leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
		start := time.Now()
		info, err := u.GetRenewalInfo(t.Context(), leaf)
		if err != nil {
			t.Fatal(err)
		}
		if !info.SuggestedWindow.Start.Equal(leaf.NotBefore.Add(20*time.Hour)) ||
			!info.SuggestedWindow.End.Equal(leaf.NotBefore.Add(21*time.Hour)) {
			t.Errorf("the window is %v", info.SuggestedWindow)
		}
		if info.RetryAfter == nil || info.RetryAfter.Sub(start) != 6*time.Hour {
			t.Errorf("RetryAfter is %v", info.RetryAfter)
		}
	})
}

func TestWindowHook(t *testing.T) {
	var window *fakeca.Window
	ca := newCA(fakeca.Options{ARI: func(*x509.Certificate) *fakeca.Window { return window }, ARIRetryAfter: time.Minute})
	r := newRaw(t, ca)
	id := fakeca.CertID(r.issueRaw(nil, "example.com"))
	if a := r.renewalInfo(id); a.status != http.StatusNotFound {
		t.Errorf("got %d %s, want 404", a.status, a.raw)
	}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	window = &fakeca.Window{Start: at, End: at.Add(-time.Hour), ExplanationURL: "https://ca.test/why"}
	a := r.renewalInfo(id)
	const want = `{"explanationURL":"https://ca.test/why","suggestedWindow":{"end":"2029-12-31T23:00:00Z","start":"2030-01-01T00:00:00Z"}}`
	if a.raw != want || a.header.Get("Retry-After") != "60" {
		t.Errorf("got %s %v", a.raw, a.header)
	}
	for _, bad := range []string{"", "x", id + "A", strings.Repeat("A", 27) + id[strings.Index(id, "."):], id[:5]} {
		if a := r.renewalInfo(bad); a.status != http.StatusNotFound {
			t.Errorf("%q: got %d", bad, a.status)
		}
	}
}

func TestNoARI(t *testing.T) {
	ca := newCA(fakeca.Options{NoARI: true})
	u := newUser(t, ca)
	leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
	if _, err := u.GetRenewalInfo(t.Context(), leaf); !errors.Is(err, acme.ErrUnsupported) {
		t.Errorf("got %v, want no support", err)
	}
	r := newRaw(t, ca)
	if a := r.renewalInfo(fakeca.CertID(leaf)); a.status != http.StatusNotFound {
		t.Errorf("got %d", a.status)
	}
	r.newOrder(map[string]any{"replaces": "nonsense"}, "example.com").wantStatus(t, "pending")
}

func TestA1_ReplacesOnce(t *testing.T) {
	for option, kind := range map[string]string{"": "alreadyReplaced", "malformed": "malformed", "conflict": "conflict"} {
		ca := newCA(fakeca.Options{ReplacesErrorType: option})
		r := newRaw(t, ca)
		leaf := r.issueRaw(nil, "example.com", "www.example.com")
		replaces := map[string]any{"replaces": fakeca.CertID(leaf)}
		if a := r.newOrder(map[string]any{"replaces": "AAAA.AAAA"}, "example.com"); a.status != http.StatusNotFound {
			t.Errorf("an unknown certificate: %d %s", a.status, a.raw)
		}
		newRaw(t, ca).newOrder(replaces, "example.com").want(t, 403, "unauthorized")
		r.newOrder(replaces, "other.example").want(t, 400, "malformed")

		first := r.newOrder(replaces, "example.com")
		first.wantStatus(t, "pending")
		if first.body["replaces"] != replaces["replaces"] || ca.Orders()[1].Replaces != replaces["replaces"] {
			t.Errorf("the order does not say what it replaces: %s", first.raw)
		}
		r.newOrder(replaces, "example.com").want(t, 409, kind)
		// An order that failed gives the certificate free again (RFC 9773 section 5).
		r.post(r.at(first.body["authorizations"].([]any)[0]), map[string]any{"status": "deactivated"}, nil)
		r.issueRaw(replaces, "example.com")
		r.newOrder(replaces, "example.com").want(t, 409, kind)
		r.newOrder(nil, "example.com").wantStatus(t, "pending")
	}
}

// TestA2_ReplacesBreaksTheCA writes the fault as a rule.
func TestA2_ReplacesBreaksTheCA(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	replaces := map[string]any{"replaces": fakeca.CertID(r.issueRaw(nil, "example.com"))}
	ca.On(fakeca.Rule{Endpoint: "newOrder", Status: 500, When: func(req *fakeca.Request) bool {
		return strings.Contains(string(req.Payload), `"replaces"`)
	}})
	r.newOrder(replaces, "example.com").want(t, 500, "serverInternal")
	r.newOrder(nil, "example.com").wantStatus(t, "pending")
}

func TestA7_Revoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(fakeca.Options{ARI: func(*x509.Certificate) *fakeca.Window { return nil }})
		u := newUser(t, ca)
		leaf, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
		if ca.Revoked(leaf.SerialNumber) {
			t.Error("a new certificate is revoked")
		}
		if err := ca.Revoke(big.NewInt(1)); err == nil {
			t.Error("an unknown certificate was revoked")
		}
		if err := ca.Revoke(leaf.SerialNumber); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		time.Sleep(time.Hour)
		info, err := u.GetRenewalInfo(t.Context(), leaf)
		if err != nil || !info.SuggestedWindow.Start.Equal(at.Add(-time.Hour)) || !info.SuggestedWindow.End.Equal(at.Add(-30*time.Minute)) {
			t.Errorf("the window is %v (%v)", info.SuggestedWindow, err)
		}
		problem(t, u.RevokeCertificate(t.Context(), u.account, leaf, nil, 0), "alreadyRevoked")
	})
}

func TestRevokeCert(t *testing.T) {
	ca := newCA(fakeca.Options{})
	u := newUser(t, ca)
	byAccount, _ := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
	byKey, key := u.issue(t, acme.Order{Identifiers: identifiers("example.com")})
	stranger := newUser(t, ca)
	problem(t, stranger.RevokeCertificate(t.Context(), stranger.account, byAccount, nil, 0), "unauthorized")
	problem(t, stranger.RevokeCertificate(t.Context(), stranger.account, byAccount, key, 0), "unauthorized")
	problem(t, u.RevokeCertificate(t.Context(), u.account, byAccount, nil, 2), "badRevocationReason")
	intermediate, _ := ca.Intermediate()
	problem(t, u.RevokeCertificate(t.Context(), u.account, intermediate, nil, 0), "malformed")
	if ca.Revoked(byAccount.SerialNumber) {
		t.Error("it was revoked all the same")
	}
	if err := u.RevokeCertificate(t.Context(), u.account, byAccount, nil, 1); err != nil {
		t.Error(err)
	}
	if err := u.RevokeCertificate(t.Context(), acme.Account{}, byKey, key, 1); err != nil {
		t.Error(err)
	}
	if !ca.Revoked(byAccount.SerialNumber) || !ca.Revoked(byKey.SerialNumber) {
		t.Error("a certificate is not revoked")
	}
}
