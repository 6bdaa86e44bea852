package acmeflow

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestP4_OrderStaysPending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsBeforeReady: 5})
		start := time.Now()
		e.issue(t, "example.com")
		if took := time.Since(start); took > firstDoubt {
			t.Errorf("took %v: a request that came too early is not waited for", took)
		}
		e.wantCount(t, "finalize", 2)
		if n := e.ca.Count("order"); n < 5 {
			t.Errorf("%d looks at the order", n)
		}
	})
}

func TestP5_OrderStaysReadyAfterFinalize(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsAfterFinalize: 3, PollsProcessing: 2, FinalizeOnce: true})
		e.issue(t, "example.com")
		e.wantCount(t, "finalize", 1)
	})
}

func TestP7_AbsurdRetryAfterOfPoll(t *testing.T) {
	for _, endpoint := range []string{"authz", "order", "finalize"} {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsBeforeValid: 1, PollsProcessing: 2})
				e.ca.On(fakeca.Rule{Endpoint: endpoint, Header: map[string][]string{"Retry-After": {"86400"}}})
				start := time.Now()
				e.issue(t, "example.com")
				if took := time.Since(start); took < time.Minute || took > 5*time.Minute {
					t.Errorf("took %v: the wait is neither ignored nor obeyed without a bound", took)
				}
			})
		})
	}
}

func TestP8_FinalizeReplyLost(t *testing.T) {
	for name, o := range map[string]fakeca.Options{
		"valid":      {FinalizeOnce: true},
		"processing": {FinalizeOnce: true, PollsProcessing: 4},
		"ready":      {FinalizeOnce: true, PollsAfterFinalize: 4, PollsProcessing: 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, o)
				e.ca.On(fakeca.Rule{Endpoint: "finalize", N: 1, HangUp: fakeca.After})
				e.issue(t, "example.com")
				e.wantCount(t, "finalize", 1)
				if n := len(e.ca.Certificates()); n != 1 {
					t.Errorf("%d certificates", n)
				}
			})
		})
	}
}

// A proxy says 502 while the CA took the request.
func TestP8_FinalizeAnsweredByProxy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{FinalizeOnce: true, PollsProcessing: 2})
		e.ca.On(fakeca.Rule{Endpoint: "finalize", N: 1, Run: true, Status: 502, Body: []byte("<html>"), NoNonce: true})
		e.issue(t, "example.com")
		e.wantCount(t, "finalize", 1)
	})
}

// A finalize request that never arrived is sent again.
func TestP8_FinalizeRequestLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{FinalizeOnce: true})
		e.ca.On(fakeca.Rule{Endpoint: "finalize", N: 1, HangUp: fakeca.Before})
		start := time.Now()
		e.issue(t, "example.com")
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		e.wantCount(t, "finalize", 2)
		if n := len(e.ca.Orders()); n != 1 {
			t.Errorf("%d orders", n)
		}
	})
}

func TestP8_FinalizeNeverAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("orderNotReady", 403, "not yet")})
		err := e.fail(t, "example.com")
		if err.Step != StepFinalize {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "finalize", maxFinalize)
	})
}

func TestP10_AuthorizationReused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{AuthzReuse: true})
		e.issue(t, "example.com")
		e.state = nil
		before := e.counts()
		e.solver.present = errUnexpected
		e.issue(t, "example.com")
		after := e.counts()
		for endpoint, want := range map[string]int{"newOrder": 1, "authz": 0, "challenge": 0, "finalize": 1, "cert": 1} {
			if got := after[endpoint] - before[endpoint]; got != want {
				t.Errorf("%d requests to %s, want %d", got, endpoint, want)
			}
		}
	})
}

// One authorization of a new order is valid, the other is not.
func TestP10_AuthorizationReusedInPart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{AuthzReuse: true})
		e.issue(t, "a.example.com")
		e.state = nil
		before := e.ca.Count("challenge")
		e.issue(t, "a.example.com", "b.example.com")
		if n := e.ca.Count("challenge") - before; n != 1 {
			t.Errorf("%d challenges answered, want 1", n)
		}
	})
}

func TestP11_UnknownChallenges(t *testing.T) {
	odd := []map[string]any{
		{"type": "dns-persist-01", "url": "https://ca.test/challenge/x/0", "status": "pending", "issuer-domain-names": []any{"ca.test"}},
		{"type": "foo-99", "url": "https://ca.test/challenge/x/1", "status": "pending", "token": nil, "more": map[string]any{"a": []any{1}}},
		{"type": "foo-98", "url": 7, "status": []any{}, "token": 12},
		{"type": 3},
		{},
	}
	for _, first := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
			e.ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) {
				list := m["challenges"].([]any)
				var add []any
				for _, o := range odd {
					add = append(add, o)
				}
				add = append(add, nil, "text", 5)
				if first {
					m["challenges"] = append(add, list...)
				} else {
					m["challenges"] = append(list, add...)
				}
				m["future"], m["expires"], m["wildcard"] = map[string]any{"x": 1}, "soon", "no"
			}})
			e.issue(t, "example.com")
		})
	}
}

func TestP11_NoChallengeInCommon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Challenges: []string{"foo-99", "dns-persist-01"}})
		err := e.fail(t, "example.com")
		for _, want := range []string{"foo-99", "http-01", "example.com"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error does not name %s: %v", want, err)
			}
		}
	})
}

func TestP13_MissingFieldsNotNeeded(t *testing.T) {
	drop := func(names ...string) func(*fakeca.Request, map[string]any) {
		return func(_ *fakeca.Request, m map[string]any) {
			for _, n := range names {
				delete(m, n)
			}
		}
	}
	for name, r := range map[string]fakeca.Rule{
		"link of the challenge":     {Endpoint: "challenge", Header: map[string][]string{"Link": nil}},
		"challenge":                 {Endpoint: "challenge", Mutate: drop("type", "url", "status", "token")},
		"location of the order":     {Endpoint: "order", Header: map[string][]string{"Location": nil}},
		"order's fixed members":     {Endpoint: "order", Mutate: drop("authorizations", "finalize", "expires")},
		"order, expires and others": {Endpoint: "newOrder", Mutate: drop("expires", "status")},
		"finalize":                  {Endpoint: "finalize", Mutate: drop("identifiers", "authorizations", "finalize"), Header: map[string][]string{"Location": nil}},
		"authz status and expires":  {Endpoint: "authz", N: 1, Mutate: drop("status", "expires")},
		"account members":           {Endpoint: "newAccount", Mutate: drop("status", "contact")},
		"content types":             {Header: map[string][]string{"Content-Type": {"text/plain"}}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1})
				e.ca.On(r)
				e.issue(t, "example.com")
			})
		})
	}
}

func TestP13_MissingFieldsAreNamed(t *testing.T) {
	for name, row := range map[string]struct {
		rule fakeca.Rule
		want []string
	}{
		"order location": {fakeca.Rule{Endpoint: "newOrder", Header: map[string][]string{"Location": nil}}, []string{"Location", "ca.test"}},
		"finalize":       {fakeca.Rule{Endpoint: "newOrder", Mutate: func(_ *fakeca.Request, m map[string]any) { delete(m, "finalize") }}, []string{"finalize", "ca.test"}},
		"challenges":     {fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) { delete(m, "challenges") }}, []string{"no challenge in common", "ca.test"}},
		"certificate":    {fakeca.Rule{Endpoint: "finalize", Mutate: func(_ *fakeca.Request, m map[string]any) { delete(m, "certificate") }}, []string{"certificate", "ca.test"}},
		"account":        {fakeca.Rule{Endpoint: "newAccount", Header: map[string][]string{"Location": nil}}, []string{"Location"}},
		"directory":      {fakeca.Rule{Endpoint: "directory", Mutate: func(_ *fakeca.Request, m map[string]any) { delete(m, "newOrder") }}, []string{"newOrder", "ca.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(row.rule)
				err := e.fail(t, "example.com")
				for _, w := range row.want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("error does not name %s: %v", w, err)
					}
				}
			})
		})
	}
}

func TestP14_OtherIdentifiers(t *testing.T) {
	id := func(v string) map[string]any { return map[string]any{"type": "dns", "value": v} }
	for name, row := range map[string]struct {
		ids []any
		ok  bool
	}{
		"dropped":    {[]any{id("a.example.com")}, false},
		"added":      {[]any{id("a.example.com"), id("b.example.com"), id("c.example.com")}, false},
		"other":      {[]any{id("a.example.com"), id("c.example.com")}, false},
		"none":       {[]any{}, false},
		"upper case": {[]any{id("A.example.COM"), id("b.example.com")}, true},
		"reordered":  {[]any{id("b.example.com"), id("a.example.com")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "newOrder", Mutate: func(_ *fakeca.Request, m map[string]any) { m["identifiers"] = row.ids }})
				if row.ok {
					e.issue(t, "a.example.com", "b.example.com")
					return
				}
				err := e.fail(t, "a.example.com", "b.example.com")
				if !strings.Contains(err.Error(), "a.example.com") {
					t.Errorf("error: %v", err)
				}
				e.wantCount(t, "finalize", 0)
				e.wantCount(t, "challenge", 0)
			})
		})
	}
}

func TestP23_EveryOrderHasTheProfile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Profiles: map[string]time.Duration{"shortlived": 6 * 24 * time.Hour}})
		first := e.request(t, "example.com")
		first.Profile = "shortlived"
		res, err := e.client.Issue(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		leaf := e.check(t, res, "example.com")
		e.state = nil
		renewal := e.request(t, "example.com")
		renewal.Profile, renewal.Replaces, renewal.ReplacesAccount = "shortlived", leaf, res.Account
		if _, err := e.client.Issue(t.Context(), renewal); err != nil {
			t.Fatal(err)
		}
		var bodies []map[string]any
		for _, r := range e.ca.Requests("newOrder") {
			var m map[string]any
			if err := json.Unmarshal(r.Payload, &m); err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, m)
		}
		if len(bodies) != 2 || bodies[1]["replaces"] == nil {
			t.Fatalf("newOrder bodies: %v", bodies)
		}
		delete(bodies[1], "replaces")
		a, _ := json.Marshal(bodies[0])
		b, _ := json.Marshal(bodies[1])
		if !bytes.Equal(a, b) || bodies[0]["profile"] != "shortlived" {
			t.Errorf("first %s, renewal %s", a, b)
		}
	})
}

// An order that was made for another profile is not gone on with.
func TestP23_ProfileChangedBetweenAttempts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Profiles: map[string]time.Duration{"short": time.Hour}})
		remove := e.ca.On(fakeca.Rule{Endpoint: "authz", Problem: fakeca.NewProblem("serverInternal", 500, "")})
		e.fail(t, "example.com")
		remove()
		req := e.request(t, "example.com")
		req.Profile = "short"
		res, err := e.tryIssue(t, req)
		if err != nil {
			t.Fatal(err)
		}
		if leaf := e.check(t, res, "example.com"); leaf.NotAfter.Sub(leaf.NotBefore) > time.Hour+time.Minute {
			t.Errorf("lifetime %v", leaf.NotAfter.Sub(leaf.NotBefore))
		}
	})
}

func TestP25_BadCSR(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		remove := e.ca.On(fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("badCSR", 400, "the subject lacks C")})
		err := e.fail(t, "example.com")
		if problemType(err) != "badCSR" || err.Step != StepFinalize {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "finalize", 1)
		remove() // the caller's template now suits the CA
		e.issue(t, "example.com")
	})
}
