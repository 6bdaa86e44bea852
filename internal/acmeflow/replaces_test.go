package acmeflow

import (
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// renew issues with the replaced certificate named.
func (e *env) renewal(t *testing.T, first *Result, names ...string) *Request {
	t.Helper()
	leaf := e.check(t, first, names...)
	e.state = nil
	req := e.request(t, names...)
	req.Replaces, req.ReplacesAccount = leaf, first.Account
	return req
}

func TestReplaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		req := e.renewal(t, e.issue(t, "example.com"), "example.com")
		res, err := e.client.Issue(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		e.check(t, res, "example.com")
		if o := e.ca.Orders(); len(o) != 2 || o[1].Replaces == "" {
			t.Errorf("orders: %+v", o)
		}
	})
}

func TestReplaces_NotNamed(t *testing.T) {
	for name, row := range map[string]struct {
		opt    fakeca.Options
		change func(*Request)
	}{
		"another account":    {change: func(r *Request) { r.ReplacesAccount = "https://ca.test/account/77" }},
		"account not known":  {change: func(r *Request) { r.ReplacesAccount = "" }},
		"CA has no ARI":      {opt: fakeca.Options{NoARI: true}},
		"no authority keyID": {change: func(r *Request) { c := *r.Replaces; c.AuthorityKeyId = nil; r.Replaces = &c }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, row.opt)
				req := e.renewal(t, e.issue(t, "example.com"), "example.com")
				if row.change != nil {
					row.change(req)
				}
				if _, err := e.client.Issue(t.Context(), req); err != nil {
					t.Fatal(err)
				}
				e.wantCount(t, "newOrder", 2)
				if o := e.ca.Orders(); o[1].Replaces != "" {
					t.Errorf("the order replaces %s", o[1].Replaces)
				}
			})
		})
	}
}

func TestA1_AlreadyReplaced(t *testing.T) {
	for _, kind := range []string{"alreadyReplaced", "conflict", "malformed"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{ReplacesErrorType: kind})
				first := e.issue(t, "example.com")
				req := e.renewal(t, first, "example.com")
				if _, err := e.client.Issue(t.Context(), req); err != nil { // another instance renewed it
					t.Fatal(err)
				}
				before := e.ca.Count("newOrder")
				start := time.Now()
				req = e.renewal(t, first, "example.com")
				res, err := e.client.Issue(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				e.check(t, res, "example.com")
				if n := e.ca.Count("newOrder") - before; n != 2 {
					t.Errorf("%d newOrder requests, want one with and one without", n)
				}
				if took := time.Since(start); took > time.Second {
					t.Errorf("took %v: the retry is at once", took)
				}
			})
		})
	}
}

// A later attempt for the same certificate does not name it again.
func TestA1_RefusalIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		first := e.issue(t, "example.com")
		req := e.renewal(t, first, "example.com")
		isReplacing := func(r *fakeca.Request) bool { return len(r.Payload) > 0 && containsReplaces(r.Payload) }
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", When: isReplacing, Problem: fakeca.NewProblem("alreadyReplaced", 409, "")})
		remove := e.ca.On(fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("badCSR", 400, "")})
		e.failRequest(t, req)
		remove()
		before := e.ca.Count("newOrder")
		again := e.request(t, "example.com") // with the state that was kept
		again.Replaces, again.ReplacesAccount = req.Replaces, req.ReplacesAccount
		if _, err := e.client.Issue(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		if n := e.ca.Count("newOrder") - before; n != 1 {
			t.Errorf("%d newOrder requests, want 1 without the certificate that was refused", n)
		}
	})
}

func TestA2_ServerErrorOnReplaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		req := e.renewal(t, e.issue(t, "example.com"), "example.com")
		e.ca.On(fakeca.Rule{
			Endpoint: "newOrder", When: func(r *fakeca.Request) bool { return containsReplaces(r.Payload) },
			Problem: fakeca.NewProblem("serverInternal", 500, "Error creating new order"),
		})
		res, err := e.client.Issue(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		e.check(t, res, "example.com")
	})
}

// A rate limit is not met with a second order.
func TestA1_RateLimitIsNoRefusal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		req := e.renewal(t, e.issue(t, "example.com"), "example.com")
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(time.Hour, "")})
		before := e.ca.Count("newOrder")
		e.failRequest(t, req)
		if n := e.ca.Count("newOrder") - before; n != 1 {
			t.Errorf("%d newOrder requests", n)
		}
	})
}

func TestReplaces_LostReply(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		req := e.renewal(t, e.issue(t, "example.com"), "example.com")
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", N: 1, HangUp: fakeca.After})
		res, err := e.client.Issue(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		e.check(t, res, "example.com")
	})
}
