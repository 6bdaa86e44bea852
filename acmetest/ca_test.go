package acmetest_test

import (
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/acmetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

func TestIssueByEachChallenge(t *testing.T) {
	ca := acmetest.Start(t)
	tests := []struct{ typ, name string }{
		{acme.ChallengeTypeHTTP01, "http.example.com"},
		{acme.ChallengeTypeTLSALPN01, "alpn.example.com"},
		{acme.ChallengeTypeDNS01, "dns.example.com"},
		{acme.ChallengeTypeDNS01, "*.wild.example.com"},
		{acme.ChallengeTypeHTTP01, "127.0.0.1"},
		{acme.ChallengeTypeTLSALPN01, "127.0.0.1"},
		{acme.ChallengeTypeHTTP01, "localhost"},
	}
	for _, tt := range tests {
		t.Run(tt.typ+" "+tt.name, func(t *testing.T) {
			u := newUser(t, ca, tt.typ)
			start := time.Now()
			chain := u.issue(t, tt.name)
			t.Logf("issued in %v", time.Since(start))
			leaf := verify(t, chain, ca.Roots(), tt.name)
			if got := leaf.NotAfter.Sub(leaf.NotBefore); got != 90*24*time.Hour-time.Second {
				t.Errorf("lifetime is %v, want 90 days less a second", got)
			}
		})
	}
}
