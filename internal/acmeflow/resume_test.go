package acmeflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// crash issues until the rule hangs and takes the process away.
func (e *env) crash(t *testing.T, r fakeca.Rule) {
	t.Helper()
	r.Hang = true
	remove := e.ca.On(r)
	ctx, cancel := contextIn(t, 20*time.Second)
	defer cancel()
	_, err := e.client.Issue(ctx, e.request(t, "example.com"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Issue: %v, want it to hang", err)
	}
	remove()
	e.solver.checkClean(t)
	e.restart(nil)
}

func TestResume_AfterCrashAtEachStep(t *testing.T) {
	for name, row := range map[string]struct {
		rule fakeca.Rule
		opt  fakeca.Options
	}{
		"pending":             {rule: fakeca.Rule{Endpoint: "authz"}},
		"challenge not begun": {rule: fakeca.Rule{Endpoint: "challenge"}},
		"challenge begun":     {rule: fakeca.Rule{Endpoint: "challenge", Run: true}, opt: fakeca.Options{PollsBeforeValid: 2}},
		"authorized":          {rule: fakeca.Rule{Endpoint: "authz", N: 2, Count: -1}, opt: fakeca.Options{PollsBeforeReady: 2}},
		"ready":               {rule: fakeca.Rule{Endpoint: "finalize"}},
		"finalized":           {rule: fakeca.Rule{Endpoint: "finalize", Run: true}, opt: fakeca.Options{PollsProcessing: 1}},
		"processing":          {rule: fakeca.Rule{Endpoint: "order"}, opt: fakeca.Options{PollsProcessing: 3}},
		"valid":               {rule: fakeca.Rule{Endpoint: "cert"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				row.opt.FinalizeOnce = true
				e := newEnv(t, row.opt)
				e.crash(t, row.rule)
				e.issue(t, "example.com")
				e.wantCount(t, "newOrder", 1)
				e.wantCount(t, "newAccount", 1)
				if name == "challenge begun" {
					e.wantCount(t, "challenge", 1)
				}
				if n := len(e.ca.Certificates()); n != 1 {
					t.Errorf("%d certificates", n)
				}
			})
		})
	}
}

// What was kept is not good any more.
func TestResume_OrderIsOfNoUse(t *testing.T) {
	pinned := func(status string) func(*testing.T, *env) {
		return func(t *testing.T, e *env) {
			if err := e.ca.SetOrderStatus(e.ca.Orders()[0].ID, status); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, spoil := range map[string]func(*testing.T, *env){
		"invalid": pinned("invalid"),
		"gone":    func(_ *testing.T, e *env) { e.state = bytes.Replace(e.state, []byte("/order/"), []byte("/order/9"), 1) },
		"expired": func(*testing.T, *env) { time.Sleep(30 * 24 * time.Hour) },
		"other account": func(_ *testing.T, e *env) {
			e.state = bytes.Replace(e.state, []byte("/account/"), []byte("/account/9"), 1)
		},
		"account is lost": func(_ *testing.T, e *env) { e.ca.ForgetAccounts() },
		"other identifiers": func(_ *testing.T, e *env) {
			e.ca.On(fakeca.Rule{Endpoint: "order", N: 1, Mutate: func(_ *fakeca.Request, m map[string]any) {
				m["identifiers"] = []any{map[string]any{"type": "dns", "value": "other.example.com"}}
			}})
		},
		"other CA":    func(_ *testing.T, e *env) { e.state = bytes.ReplaceAll(e.state, []byte("ca.test"), []byte("ca2.test")) },
		"junk":        func(_ *testing.T, e *env) { e.state = []byte("{junk") },
		"null":        func(_ *testing.T, e *env) { e.state = []byte("null") },
		"other types": func(_ *testing.T, e *env) { e.state = []byte(`{"order":5}`) },
		"authorization is invalid": func(_ *testing.T, e *env) {
			e.ca.On(fakeca.Rule{Endpoint: "authz", N: 1, Mutate: func(_ *fakeca.Request, m map[string]any) { m["status"] = "invalid" }})
		},
		"authorization is deactivated": func(_ *testing.T, e *env) {
			e.ca.On(fakeca.Rule{Endpoint: "authz", N: 1, Mutate: func(_ *fakeca.Request, m map[string]any) { m["status"] = "deactivated" }})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.crash(t, fakeca.Rule{Endpoint: "challenge"})
				spoil(t, e)
				e.issue(t, "example.com")
				if strings.HasPrefix(name, "other account") {
					e.wantCount(t, "order", 0) // it is not this account's to ask for
				}
				e.wantCount(t, "newOrder", 2)
				var kept state
				if err := json.Unmarshal(e.saved(), &kept); err != nil || path.Base(kept.Order) == "" || kept.Account == "" {
					t.Errorf("the new order was not kept: %s", e.saved())
				}
			})
		})
	}
}

// A CA that cannot be asked about the order does not cost the order.
func TestResume_CADownMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.crash(t, fakeca.Rule{Endpoint: "challenge"})
		e.ca.Down(nil)
		e.fail(t, "example.com")
		e.ca.Up()
		remove := e.ca.On(fakeca.Rule{Endpoint: "order", Status: 500})
		e.fail(t, "example.com")
		remove()
		e.issue(t, "example.com")
		e.wantCount(t, "newOrder", 1)
	})
}

// Nothing is asked of the CA before the order's URL is kept.
func TestResume_SaveFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		req := e.request(t, "example.com")
		full := errors.New("disk full")
		req.Save = func(context.Context, []byte) error { return full }
		if err := e.failRequest(t, req); !errors.Is(err, full) {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "authz", 0)
		e.wantCount(t, "challenge", 0)
	})
}

// A refusal that ends an order is not met again by the next attempt.
func TestResume_DeadOrderIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{Challenges: []string{"http-01"}})
		e.solver.onPresent = func(ch Challenge) {
			e.solver.mu.Lock()
			defer e.solver.mu.Unlock()
			e.solver.live[ch.Type+" "+ch.Identifier+" "+ch.Token] = "wrong"
		}
		err := e.fail(t, "example.com")
		if err.Identifier != "example.com" || err.Challenge != "http-01" || problemType(err) != "unauthorized" {
			t.Errorf("error: %+v", err)
		}
		if strings.Contains(string(e.saved()), "/order/") {
			t.Errorf("the dead order was kept: %s", e.saved())
		}
		e.solver.onPresent = nil
		e.issue(t, "example.com")
		e.wantCount(t, "newOrder", 2)
	})
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte(`{"status":"pending","challenges":[{"type":"http-01","url":"u","token":"t"},null,5,{"type":3}]}`))
	f.Add([]byte(`{"error":{"type":5,"detail":"x","subproblems":[{"identifier":7}]},"expires":"x"}`))
	f.Add([]byte(`{"identifiers":[{"type":"dns","value":"*.A.example."}],"authorizations":[null],"status":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a authorization
		decode(b, &order{})
		decode(b, &a)
		r := &run{req: &Request{Names: []string{"*.a.example"}}}
		for _, ch := range a.Challenges {
			if r.solvable(&ch) {
				t.Errorf("%q has a challenge that no solver is there for", b)
			}
		}
		if name, ok := r.match(&a); ok && name != "*.a.example" {
			t.Errorf("%q is for %q", b, name)
		}
		p := parseProblem(400, "", b)
		if p.Type == "" && p.document || p.Status != 400 || len(p.Error()) > (3*maxSubproblems+4)*(maxErrorText+40) {
			t.Errorf("problem of %q: %d bytes", b, len(p.Error()))
		}
	})
}

// A valid order whose certificate is gone is not asked for again and again.
func TestResume_CertificateIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.crash(t, fakeca.Rule{Endpoint: "cert"})
		e.ca.On(fakeca.Rule{Endpoint: "cert", N: 1, Status: 404})
		e.issue(t, "example.com")
		e.wantCount(t, "newOrder", 2)
	})
}

// What a process that was killed has presented is withdrawn by the one that goes on
// with its order, whatever has become of that (F53).
func TestChallengesOfADeadProcessAreWithdrawn(t *testing.T) {
	for name, row := range map[string]struct {
		rule fakeca.Rule
		opt  fakeca.Options
	}{
		"authorized": {fakeca.Rule{Endpoint: "authz", N: 2, Count: -1}, fakeca.Options{PollsBeforeReady: 2}},
		"ready":      {fakeca.Rule{Endpoint: "finalize"}, fakeca.Options{}},
		"processing": {fakeca.Rule{Endpoint: "order"}, fakeca.Options{PollsProcessing: 3}},
		"valid":      {fakeca.Rule{Endpoint: "cert"}, fakeca.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, row.opt)
				var left Challenge
				e.solver.onPresent = func(ch Challenge) { left = ch }
				e.crash(t, row.rule)
				if err := e.solver.Present(t.Context(), left); err != nil { // as if it had not been cleaned up
					t.Fatal(err)
				}
				e.issue(t, "example.com") // which looks at what is still answered
				e.wantCount(t, "newOrder", 1)
			})
		})
	}
}
