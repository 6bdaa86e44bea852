package acmetest_test

import (
	"crypto/x509"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/acmetest"
)

func TestRenewalInfo(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	chain := u.issue(t, "example.com")
	leaf := parseChain(t, chain)[0]

	own, err := u.client.GetRenewalInfo(t.Context(), leaf)
	if err != nil {
		t.Fatal(err)
	}
	if start := own.SuggestedWindow.Start; !start.After(leaf.NotBefore) || !start.Before(leaf.NotAfter) {
		t.Errorf("the CA's own window starts at %v", start)
	}

	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	end := start.Add(30 * time.Minute)
	if err := ca.SetRenewalInfo(chain, start, end, "https://example.com/why"); err != nil {
		t.Fatal(err)
	}
	got, err := u.client.GetRenewalInfo(t.Context(), leaf)
	if err != nil {
		t.Fatal(err)
	}
	if w := got.SuggestedWindow; !w.Start.Equal(start) || !w.End.Equal(end) || got.ExplanationURL != "https://example.com/why" {
		t.Errorf("renewal info is %+v", got)
	}

	if err := ca.SetRenewalInfoRaw(chain, "{"); err != nil {
		t.Fatal(err)
	}
	if got := fetchRenewalInfo(t, ca, leaf); got != "{" {
		t.Errorf("the body is %q, want the malformed one", got)
	}
	if err := ca.SetRenewalInfoRaw(chain, ""); err != nil {
		t.Fatal(err)
	}
	if back, err := u.client.GetRenewalInfo(t.Context(), leaf); err != nil || !back.SameWindow(own) {
		t.Errorf("the CA's own window did not come back: %+v, %v", back, err)
	}
}

// fetchRenewalInfo returns the body of the answer for a certificate.
func fetchRenewalInfo(t *testing.T, ca *acmetest.CA, leaf *x509.Certificate) string {
	t.Helper()
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client(), UserAgent: "acmetest"}
	directory, err := client.GetDirectory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ca.Client().Get(directory.RenewalInfo + "/" + id)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	return string(body)
}

func TestA1_SecondReplacementIsRefused(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	first := parseChain(t, u.issue(t, "example.com"))[0]
	replace := func(p *acmez.OrderParameters) { p.Replaces = first }
	certs, err := u.order(t, replace, "example.com", "www.example.com")
	if err != nil {
		t.Fatalf("replacing a certificate at once: %v", err)
	}
	verify(t, certs[0].ChainPEM, ca.Roots(), "www.example.com")
	// acmez itself would order again without the field.
	id, err := acme.ARIUniqueIdentifier(first)
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.client.NewOrder(t.Context(), u.account, acme.Order{
		Replaces:    id,
		Identifiers: []acme.Identifier{{Type: "dns", Value: "example.com"}},
	})
	var problem acme.Problem
	if !errors.As(err, &problem) || problem.Type != acme.ProblemTypeAlreadyReplaced || problem.Status != 409 {
		t.Errorf("replacing it again: %v, want alreadyReplaced", err)
	}
}

func TestRevocation(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	byClient, byCA := u.issue(t, "example.com"), u.issue(t, "example.com")
	first, second := parseChain(t, byClient)[0], parseChain(t, byCA)[0]
	if status, err := ca.Status(first.SerialNumber); err != nil || status.Revoked || !status.Certificate.Equal(first) {
		t.Errorf("before: %+v, %v", status, err)
	}

	if err := u.client.RevokeCertificate(t.Context(), u.account, first, nil, 4); err != nil {
		t.Fatal(err)
	}
	if err := ca.Revoke(byCA, 1); err != nil {
		t.Fatal(err)
	}
	for reason, cert := range map[int]*x509.Certificate{4: first, 1: second} {
		status, err := ca.Status(cert.SerialNumber)
		if err != nil || !status.Revoked || status.Reason != reason || time.Since(status.RevokedAt) > time.Minute {
			t.Errorf("after: %+v, %v", status, err)
		}
	}
	info, err := u.client.GetRenewalInfo(t.Context(), second)
	if err != nil || info.SuggestedWindow.End.After(time.Now()) {
		t.Errorf("renewal info of a revoked certificate: %+v, %v; want a window in the past", info, err)
	}
}

func TestManagementOfUnknownCertificates(t *testing.T) {
	ca := acmetest.Start(t)
	foreign := ca.APIRootPEM()
	now := time.Now()
	calls := map[string]func(data []byte) error{
		"SetRenewalInfo":    func(data []byte) error { return ca.SetRenewalInfo(data, now, now, "") },
		"SetRenewalInfoRaw": func(data []byte) error { return ca.SetRenewalInfoRaw(data, "{}") },
		"Revoke":            func(data []byte) error { return ca.Revoke(data, 0) },
	}
	for name, call := range calls {
		if err := call(foreign); !errors.Is(err, acmetest.ErrUnknownCertificate) {
			t.Errorf("%s of a foreign certificate: %v", name, err)
		}
		if err := call([]byte("not PEM")); err == nil || errors.Is(err, acmetest.ErrUnknownCertificate) {
			t.Errorf("%s of no certificate: %v", name, err)
		}
	}
	if err := ca.Revoke(foreign, 7); err == nil || errors.Is(err, acmetest.ErrUnknownCertificate) {
		t.Errorf("revoking for an unused reason: %v", err)
	}
}
