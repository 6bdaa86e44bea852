package fakeca_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// statuses sends n new orders and returns how each was answered.
func (r *rawClient) statuses(n int) []int {
	r.t.Helper()
	var out []int
	for range n {
		out = append(out, r.newOrder(nil, "example.com").status)
	}
	return out
}

func TestRuleChoosesRequests(t *testing.T) {
	tests := []struct {
		name string
		rule fakeca.Rule
		want []int
	}{
		{"every", fakeca.Rule{}, []int{500, 500, 500, 500, 500}},
		{"the third", fakeca.Rule{N: 3}, []int{201, 201, 500, 201, 201}},
		{"two from the second", fakeca.Rule{N: 2, Count: 2}, []int{201, 500, 500, 201, 201}},
		{"the first two", fakeca.Rule{Count: 2}, []int{500, 500, 201, 201, 201}},
		{"all from the fourth", fakeca.Rule{N: 4, Count: -1}, []int{201, 201, 201, 500, 500}},
		{"every endpoint", fakeca.Rule{Endpoint: "-", N: 5}, []int{201, 201, 201, 201, 500}},
		{"another endpoint", fakeca.Rule{Endpoint: "finalize"}, []int{201, 201, 201, 201, 201}},
		{"no such payload", fakeca.Rule{When: func(r *fakeca.Request) bool {
			return !bytes.Contains(r.Payload, []byte("example.com"))
		}}, []int{201, 201, 201, 201, 201}},
		{"the second that fits", fakeca.Rule{N: 2, When: func(r *fakeca.Request) bool { return r.N%2 == 0 }}, []int{201, 201, 201, 500, 201}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca := newCA(fakeca.Options{})
			r := newRaw(t, ca)
			switch tt.rule.Endpoint {
			case "":
				tt.rule.Endpoint = "newOrder"
			case "-":
				tt.rule.Endpoint = ""
			}
			tt.rule.Status = http.StatusInternalServerError
			remove := ca.On(tt.rule)
			if got := r.statuses(len(tt.want)); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			remove()
			if got := r.statuses(2); !slices.Equal(got, []int{201, 201}) {
				t.Errorf("got %v after the rule was removed", got)
			}
		})
	}
}

func TestRulesInOrder(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	ca.On(fakeca.Rule{Endpoint: "newOrder", N: 2, Status: 502})
	ca.On(fakeca.Rule{Endpoint: "newOrder", N: 2, Count: 2, Status: 503})
	if got, want := r.statuses(4), []int{201, 502, 503, 201}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestUnknownEndpointPanics(t *testing.T) {
	ca := newCA(fakeca.Options{})
	for name, f := range map[string]func(){
		"On":       func() { ca.On(fakeca.Rule{Endpoint: "newCert"}) },
		"Count":    func() { ca.Count("new-order") },
		"Requests": func() { ca.Requests("orders") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it took an endpoint that does not exist")
				}
			}()
			f()
		})
	}
}

func TestRuleReplaces(t *testing.T) {
	html := []byte("<html>maintenance</html>")
	tests := []struct {
		name   string
		rule   fakeca.Rule
		status int
		kind   string
		orders int
	}{
		{"status", fakeca.Rule{Status: 503}, 503, "serverInternal", 0},
		{"status 429", fakeca.Rule{Status: 429}, 429, "rateLimited", 0},
		{"status 409", fakeca.Rule{Status: 409}, 409, "conflict", 0},
		{"status 401", fakeca.Rule{Status: 401}, 401, "unauthorized", 0},
		{"problem", fakeca.Rule{Problem: fakeca.NewProblem("caa", 403, "CAA forbids it")}, 403, "caa", 0},
		{"problem without status", fakeca.Rule{Problem: &fakeca.Problem{Type: "urn:ietf:params:acme:error:dns"}}, 400, "dns", 0},
		{"R6 rate limit", fakeca.Rule{Problem: fakeca.RateLimited(time.Hour, "too many")}, 429, "rateLimited", 0},
		{"carried out", fakeca.Rule{Status: 500, Run: true}, 500, "serverInternal", 1},
		{"status over problem", fakeca.Rule{Status: 200, Problem: fakeca.NewProblem("caa", 403, "no")}, 200, "caa", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca := newCA(fakeca.Options{})
			r := newRaw(t, ca)
			tt.rule.Endpoint = "newOrder"
			ca.On(tt.rule)
			a := r.newOrder(nil, "example.com")
			a.want(t, tt.status, tt.kind)
			if a.body["detail"] == "" || a.body["status"] == nil || a.header.Get("Replay-Nonce") == "" {
				t.Errorf("the reply is incomplete: %v %s", a.header, a.raw)
			}
			if got := len(ca.Orders()); got != tt.orders {
				t.Errorf("there are %d orders, want %d", got, tt.orders)
			}
		})
	}
	t.Run("body", func(t *testing.T) {
		ca := newCA(fakeca.Options{})
		r := newRaw(t, ca)
		ca.On(fakeca.Rule{Endpoint: "newOrder", Status: 503, Body: html})
		a := r.newOrder(nil, "example.com")
		if a.status != 503 || a.raw != string(html) || a.header.Get("Content-Type") != "text/html" {
			t.Errorf("got %d %q %v", a.status, a.raw, a.header)
		}
	})
}

// TestR5_RateLimitWithoutNonce also has the nonce of the limited request used up.
func TestR5_RateLimitWithoutNonce(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	defer ca.On(fakeca.Rule{Endpoint: "newOrder", NoNonce: true, Problem: fakeca.RateLimited(90*time.Second, "paused, see https://ca.test/unpause")})()
	a := r.newOrder(nil, "example.com")
	a.want(t, 429, "rateLimited")
	if got := a.header.Get("Retry-After"); got != "90" {
		t.Errorf("Retry-After is %q, want 90", got)
	}
	if a.header.Get("Replay-Nonce") != "" {
		t.Error("the reply has a nonce")
	}
	r.newOrder(nil, "example.com").want(t, 400, "badNonce") // r.nonce is still the old one
}

func TestR6_OddRetryAfter(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	for _, odd := range []string{"-1", "99999999", "soon", "Fri, 31 Dec 1999 23:59:59 GMT"} {
		remove := ca.On(fakeca.Rule{Problem: fakeca.RateLimited(time.Hour, "x"), Header: http.Header{"Retry-After": {odd}}})
		if got := r.newOrder(nil, "example.com").header.Values("Retry-After"); !slices.Equal(got, []string{odd}) {
			t.Errorf("Retry-After is %q, want %q", got, odd)
		}
		remove()
	}
}

func TestP2_NewNonceRateLimited(t *testing.T) {
	ca := newCA(fakeca.Options{})
	ca.On(fakeca.Rule{Endpoint: "newNonce", NoNonce: true, Problem: fakeca.RateLimited(time.Hour, "too many")})
	resp, err := ca.Client().Head(strings.Replace(ca.Directory(), "directory", "new-nonce", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "3600" || resp.Header.Get("Replay-Nonce") != "" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

// TestP13_P14_MutatedReplies edits and thins out replies.
func TestP13_P14_MutatedReplies(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	ca.On(fakeca.Rule{
		Endpoint: "newOrder",
		Header:   http.Header{"Location": nil, "X-Mark": {"1", "2"}},
		Mutate: func(req *fakeca.Request, m map[string]any) {
			if req.Kid != r.kid {
				t.Errorf("the rule saw the kid %q", req.Kid)
			}
			m["identifiers"] = append(m["identifiers"].([]any), map[string]any{"type": "dns", "value": "EVIL.example"})
			delete(m, "expires")
		},
	})
	a := r.newOrder(nil, "example.com")
	if got := a.body["identifiers"].([]any); len(got) != 2 || a.body["expires"] != nil {
		t.Errorf("the reply is unchanged: %s", a.raw)
	}
	if a.header.Get("Location") != "" || len(a.header.Values("X-Mark")) != 2 {
		t.Errorf("the header is unchanged: %v", a.header)
	}
	ca.On(fakeca.Rule{Endpoint: "authz", Mutate: func(_ *fakeca.Request, m map[string]any) { delete(m, "challenges") }})
	if a := r.get(a.body["authorizations"].([]any)[0]); a.body["challenges"] != nil || a.body["identifier"] == nil {
		t.Errorf("the authorization is unchanged: %s", a.raw)
	}
}

func TestRuleDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(fakeca.Options{})
		r := newRaw(t, ca)
		ca.On(fakeca.Rule{Endpoint: "newOrder", Delay: time.Minute})
		start := time.Now()
		r.newOrder(nil, "example.com").wantStatus(t, "pending")
		if got := time.Since(start); got != time.Minute {
			t.Errorf("the reply took %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		_, err := r.send(ctx, "new-order", r.sign(r.head("new-order"), map[string]any{"identifiers": identifiers("a.example")}))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if got := len(ca.Orders()); got != 1 {
			t.Errorf("there are %d orders, want 1", got)
		}
	})
}

func TestR8_RuleHangs(t *testing.T) {
	for _, run := range []struct {
		name   string
		first  bool
		orders int
	}{{"nothing done", false, 0}, {"carried out", true, 1}} {
		t.Run(run.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newCA(fakeca.Options{})
				r := newRaw(t, ca)
				ca.On(fakeca.Rule{Endpoint: "newOrder", Hang: true, Run: run.first})
				r.http.Timeout = time.Hour
				start := time.Now()
				_, err := r.send(t.Context(), "new-order", r.sign(r.head("new-order"), map[string]any{"identifiers": identifiers("a.example")}))
				var timeout net.Error
				if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Hour {
					t.Errorf("got %v after %v", err, time.Since(start))
				}
				if got := len(ca.Orders()); got != run.orders {
					t.Errorf("there are %d orders, want %d", got, run.orders)
				}
			})
		})
	}
}

func TestRuleHangsUp(t *testing.T) {
	tests := []struct {
		name   string
		rule   fakeca.Rule
		err    error
		orders int
		nonce  bool // the nonce of the lost request is still good
	}{
		{"before", fakeca.Rule{HangUp: fakeca.Before}, io.ErrUnexpectedEOF, 0, true},
		{"after", fakeca.Rule{HangUp: fakeca.After}, io.ErrUnexpectedEOF, 1, false},
		{"R8 refused", fakeca.Rule{Err: syscall.ECONNREFUSED}, syscall.ECONNREFUSED, 0, true},
		{"reset after", fakeca.Rule{HangUp: fakeca.After, Err: syscall.ECONNRESET}, syscall.ECONNRESET, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca := newCA(fakeca.Options{})
			r := newRaw(t, ca)
			tt.rule.Endpoint = "newOrder"
			remove := ca.On(tt.rule)
			jws := r.sign(r.head("new-order"), map[string]any{"identifiers": identifiers("example.com")})
			if _, err := r.send(t.Context(), "new-order", jws); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if got := len(ca.Orders()); got != tt.orders {
				t.Errorf("there are %d orders, want %d", got, tt.orders)
			}
			remove()
			a, err := r.send(t.Context(), "new-order", jws)
			if err != nil || (a.status == http.StatusCreated) != tt.nonce {
				t.Errorf("the same request again: %d %s %v", a.status, a.raw, err)
			}
		})
	}
}

// TestHangUpOverTLS drops a real connection.
func TestHangUpOverTLS(t *testing.T) {
	ca := fakeca.New(fakeca.Options{})
	srv := httptest.NewTLSServer(ca)
	defer srv.Close()
	// On a connection used before, net/http would try again by itself.
	srv.Client().Transport.(*http.Transport).DisableKeepAlives = true
	ca.On(fakeca.Rule{Endpoint: "directory", N: 1, HangUp: fakeca.After})
	resp, err := srv.Client().Get(srv.URL + "/directory")
	if err == nil {
		resp.Body.Close()
		t.Errorf("got %d, want a lost connection", resp.StatusCode)
	}
	resp, err = srv.Client().Get(srv.URL + "/directory")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var dir map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&dir); err != nil || dir["newOrder"] != srv.URL+"/new-order" {
		t.Errorf("got %v %v", dir, err)
	}
}
