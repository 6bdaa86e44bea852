package certwright

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
)

// TestOwnSolver_ChallengesForOneNameTakeTurns has the certificate that answers
// tls-alpn-01 be that of one order until it has no more need of it.
func TestOwnSolver_ChallengesForOneNameTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := offline(t, newFakeSigner(t))
		s := newOwnSolver(m)
		alpn := func(token string) acmeflow.Challenge {
			return acmeflow.Challenge{Type: challenge.TLSALPN01, Identifier: "a.example.com", Token: token, KeyAuthorization: token + ".print"}
		}
		answered := func() *x509.Certificate {
			h := helloFor("a.example.com", "")
			h.SupportedProtos = []string{alpnProto}
			cert, err := m.GetCertificate(h)
			if err != nil {
				return nil
			}
			leaf, err := x509.ParseCertificate(cert.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return leaf
		}
		if err := s.Present(t.Context(), alpn("one")); err != nil {
			t.Fatal(err)
		}
		first := answered()
		ended, end := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- s.Present(ended, alpn("gives-up")) }()
		second := make(chan error, 1)
		synctest.Wait()
		go func() { second <- s.Present(t.Context(), alpn("two")) }()
		synctest.Wait()
		if !answered().Equal(first) {
			t.Error("another order's challenge took the place of one that is pending")
		}
		end()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("Present after its context ended: %v", err)
		}
		if err := s.CleanUp(t.Context(), alpn("gives-up")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !answered().Equal(first) {
			t.Error("the clean-up of one that gave up let another in")
		}
		if err := s.CleanUp(t.Context(), alpn("one")); err != nil {
			t.Error(err)
		}
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		if leaf := answered(); leaf == nil || leaf.Equal(first) {
			t.Error("the second challenge is not answered")
		}
		if err := s.CleanUp(t.Context(), alpn("two")); err != nil {
			t.Error(err)
		}
		if answered() != nil {
			t.Error("a challenge is answered after its clean-up")
		}
	})
}
