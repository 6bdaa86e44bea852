package acmeflow

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestP1_NonceOfAnotherAge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		time.Sleep(24 * time.Hour)
		e.ca.ForgetNonces()
		e.state = nil
		before := e.ca.Count("newOrder")
		e.issue(t, "example.com")
		if n := e.ca.Count("newOrder") - before; n != 1 {
			t.Errorf("%d newOrder requests, want 1: old nonces are not to be tried", n)
		}
	})
}

// Requests that need no nonce do not make the pooled ones look fresh.
func TestNoncesGrowOldBesideOtherRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{NonceLifetime: time.Hour})
		leaf := e.check(t, e.issue(t, "example.com"), "example.com")
		for range 24 {
			time.Sleep(5 * time.Minute)
			if _, err := e.client.RenewalInfo(t.Context(), leaf); err != nil {
				t.Fatal(err)
			}
		}
		e.newKey(t)
		e.issue(t, "example.com")
		e.wantCount(t, "newOrder", 2)
	})
}

// The CA moves to another site in the middle of the day: each pooled nonce is bad.
func TestP1_AllNoncesForgottenAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		e.ca.ForgetNonces()
		e.state = nil
		before := e.ca.Count("newOrder")
		e.issue(t, "example.com")
		if n := e.ca.Count("newOrder") - before; n != 2 {
			t.Errorf("%d newOrder requests, want 2: the refusal brings a good nonce", n)
		}
	})
}

func TestP1_NinetyPercentRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		var n atomic.Int64
		e.ca.On(fakeca.Rule{
			When:    func(r *fakeca.Request) bool { return r.Method == "POST" && n.Add(1)%10 != 0 },
			Problem: fakeca.NewProblem("badNonce", 400, "the nonce is not good"),
		})
		start := time.Now()
		e.issue(t, "example.com")
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if c := len(e.ca.Certificates()); c != 1 {
			t.Errorf("%d certificates", c)
		}
	})
}

func TestP1_AllRefusedIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("badNonce", 400, "no nonce is good")})
		err := e.fail(t, "example.com")
		if problemType(err) != "badNonce" || err.Step != StepOrder {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "newOrder", maxNonceTries)
	})
}

// A refusal without a nonce costs a request for one.
func TestP1_RefusalBringsNoNonce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", N: 1, NoNonce: true, Problem: fakeca.NewProblem("badNonce", 400, "")})
		e.issue(t, "example.com")
		e.wantCount(t, "newOrder", 2)
	})
}

func TestP2_NewNonceRateLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newNonce", Problem: fakeca.RateLimited(time.Hour, "too many requests")})
		err := e.fail(t, "example.com")
		if problemType(err) != "rateLimited" || err.RetryAfter != time.Hour {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "newNonce", 1)
		e.wantCount(t, "newAccount", 0)
	})
}
