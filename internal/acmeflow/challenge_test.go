package acmeflow

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// failing is a CA that never reaches answers of some types.
func failing(e **env, types ...string) func(context.Context, fakeca.ChallengeInfo) error {
	return func(ctx context.Context, ch fakeca.ChallengeInfo) error {
		if slices.Contains(types, ch.Type) {
			return fakeca.NewProblem("connection", 400, "cannot reach "+ch.Type)
		}
		return (*e).solver.validate(ctx, ch)
	}
}

func TestT4_EveryPresentIsCleanedUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var e *env
		bad := []string{"http-01", "tls-alpn-01", "dns-01"}
		e = newEnv(t, fakeca.Options{Validate: failing(&e, bad...)})
		e.fail(t, "example.com") // checks it
		e.fail(t, "a.example.com", "b.example.com", "*.example.com")
	})
}

// Each endpoint from the challenge on fails; the caller's context ends at Present.
func TestT4_CleanedUpWithEndedContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		e.solver.onPresent = func(Challenge) { cancel() }
		_, err := e.client.Issue(ctx, e.request(t, "example.com"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Issue: %v", err)
		}
		if len(e.solver.types()) != 1 {
			t.Errorf("presented %v", e.solver.types())
		}
		e.solver.checkClean(t)
		e.wantCount(t, "challenge", 0)
	})
}

// Two attempts in a row have different tokens.
func TestT4_NewTokenEachAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var e *env
		e = newEnv(t, fakeca.Options{Validate: failing(&e, "http-01"), Challenges: []string{"http-01"}})
		var tokens []string
		e.solver.onPresent = func(c Challenge) { tokens = append(tokens, c.Token) }
		e.fail(t, "example.com")
		e.fail(t, "example.com")
		if len(tokens) != 2 || tokens[0] == tokens[1] {
			t.Errorf("tokens %q", tokens)
		}
	})
}

func TestT7_AnotherTypeInTheSameIssue(t *testing.T) {
	for name, row := range map[string]struct{ bad, tried, failed []string }{
		"none fails":  {nil, []string{"http-01"}, nil},
		"http fails":  {[]string{"http-01"}, []string{"http-01", "tls-alpn-01"}, []string{"http-01"}},
		"both fail":   {[]string{"http-01", "tls-alpn-01"}, []string{"http-01", "tls-alpn-01", "dns-01"}, []string{"http-01", "tls-alpn-01"}},
		"alpn is bad": {[]string{"tls-alpn-01"}, []string{"http-01"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var e *env
				e = newEnv(t, fakeca.Options{Validate: failing(&e, row.bad...)})
				res, err := e.client.Issue(t.Context(), e.request(t, "example.com"))
				if err != nil {
					t.Fatal(err)
				}
				if got := e.solver.types(); !slices.Equal(got, row.tried) {
					t.Errorf("tried %v, want %v", got, row.tried)
				}
				if !slices.Equal(res.Failed["example.com"], row.failed) {
					t.Errorf("failed %v, want %v", res.Failed, row.failed)
				}
				e.check(t, res, "example.com")
			})
		})
	}
}

func TestT7_AllFail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var e *env
		e = newEnv(t, fakeca.Options{Validate: failing(&e, "http-01", "tls-alpn-01", "dns-01")})
		err := e.fail(t, "example.com")
		if err.Challenge != "dns-01" || problemType(err) != "connection" || !strings.Contains(err.Error(), "cannot reach dns-01") {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "newOrder", 3)
		e.wantCount(t, "challenge", 3)
	})
}

// What failed before is tried last, and what is disabled never.
func TestT7_PreferAndDisabled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var e *env
		e = newEnv(t, fakeca.Options{Validate: failing(&e, "http-01")})
		req := e.request(t, "example.com")
		req.Prefer = []string{"tls-alpn-01", "http-01"}
		if _, err := e.client.Issue(t.Context(), req); err != nil || !slices.Equal(e.solver.types(), []string{"tls-alpn-01"}) {
			t.Errorf("tried %v: %v", e.solver.types(), err)
		}
		e.solver.checkClean(t)
		e.state = nil
		req = e.request(t, "example.com")
		delete(req.Solvers, "tls-alpn-01")
		delete(req.Solvers, "dns-01")
		var tried []string
		e.solver.onPresent = func(c Challenge) { tried = append(tried, c.Type) }
		e.failRequest(t, req)
		if !slices.Equal(tried, []string{"http-01"}) {
			t.Errorf("tried %v; all but http-01 are disabled", tried)
		}
	})
}

// A Solver that cannot present does not cost an order.
func TestT7_PresentFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		broken := &fakeSolver{present: errors.New("port 80 is taken")}
		req := e.request(t, "example.com")
		req.Solvers["http-01"] = broken
		res, err := e.client.Issue(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.solver.types(); !slices.Equal(got, []string{"tls-alpn-01"}) || !slices.Equal(res.Failed["example.com"], []string{"http-01"}) {
			t.Errorf("tried %v, failed %v", got, res.Failed)
		}
		broken.checkClean(t)
		e.check(t, res, "example.com")
		e.wantCount(t, "newOrder", 1)
	})
}

// A CA that decided meanwhile refuses the challenge; its authorization is looked at.
func TestChallenge_BegunAlready(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "challenge", Run: true, Problem: fakeca.NewProblem("malformed", 400, "the authorization is not pending")})
		e.issue(t, "example.com")
	})
}

// With several names the error is that of the name that failed.
func TestAuthorize_ErrorNamesTheIdentifier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var e *env
		e = newEnv(t, fakeca.Options{Challenges: []string{"http-01"}, Validate: func(ctx context.Context, ch fakeca.ChallengeInfo) error {
			if ch.Identifier.Value == "n7.example.com" {
				return fakeca.NewProblem("dns", 400, "NXDOMAIN")
			}
			return e.solver.validate(ctx, ch)
		}})
		var names []string
		for i := range 20 {
			names = append(names, name(i))
		}
		err := e.fail(t, names...)
		if err.Identifier != "n7.example.com" || problemType(err) != "dns" {
			t.Errorf("error: %v", err)
		}
	})
}

func TestTLSALPNCertificate(t *testing.T) {
	const keyAuth = "token.thumbprint"
	for _, name := range []string{"example.com", "192.0.2.7", "2001:db8::7"} {
		cert, err := TLSALPNCertificate(name, keyAuth)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if ip := net.ParseIP(name); ip != nil {
			if len(leaf.IPAddresses) != 1 || !leaf.IPAddresses[0].Equal(ip) || len(leaf.DNSNames) != 0 {
				t.Errorf("%s: names %v %v", name, leaf.IPAddresses, leaf.DNSNames)
			}
		} else if !slices.Equal(leaf.DNSNames, []string{name}) || len(leaf.IPAddresses) != 0 {
			t.Errorf("%s: names %v %v", name, leaf.DNSNames, leaf.IPAddresses)
		}
		sum := sha256.Sum256([]byte(keyAuth))
		want, err := asn1.Marshal(sum[:])
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, x := range leaf.Extensions {
			if x.Id.String() == "1.3.6.1.5.5.7.1.31" {
				found = x.Critical && slices.Equal(x.Value, want)
			}
		}
		if !found {
			t.Errorf("%s: no critical acmeIdentifier extension with the digest", name)
		}
		if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
			t.Errorf("%s: valid from %v to %v", name, leaf.NotBefore, leaf.NotAfter)
		}
	}
}

// What holds for the name whatever the challenge does not use up another validation.
func TestT7_RefusalOfTheNameIsFinal(t *testing.T) {
	for _, kind := range []string{"caa", "rateLimited"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{Validate: func(context.Context, fakeca.ChallengeInfo) error {
					return fakeca.NewProblem(kind, 403, "never")
				}})
				err := e.fail(t, "example.com")
				if problemType(err) != kind || err.Identifier != "example.com" {
					t.Errorf("error: %v", err)
				}
				e.wantCount(t, "newOrder", 1)
				e.wantCount(t, "challenge", 1)
			})
		})
	}
}

// dns-persist-01 has no token; what its Solver needs is handed on.
func TestChallenge_DNSPersist(t *testing.T) {
	bubble(t, func(t *testing.T) {
		solver := &fakeSolver{}
		e := newEnv(t, fakeca.Options{Challenges: []string{"dns-persist-01"}, Validate: func(context.Context, fakeca.ChallengeInfo) error { return nil }})
		var got Challenge
		solver.onPresent = func(c Challenge) { got = c }
		req := e.request(t, "*.example.com")
		req.Solvers = map[string]Solver{"dns-persist-01": solver}
		res, err := e.client.Issue(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got.Account != res.Account || !slices.Equal(got.IssuerDomains, []string{"ca.test"}) || !got.Wildcard || got.Identifier != "example.com" || got.IdentifierType != "dns" {
			t.Errorf("challenge: %+v", got)
		}
		solver.checkClean(t)
	})
}
