package certwright_test

import (
	"context"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// badReplies are answers that no CA should give.
var badReplies = []struct {
	name string
	rule fakeca.Rule
}{
	{"500", fakeca.Rule{Problem: fakeca.NewProblem("serverInternal", 500, "")}},
	{"429", fakeca.Rule{Problem: fakeca.RateLimited(time.Hour, "slow down")}},
	{"429 without nonce", fakeca.Rule{NoNonce: true, Problem: fakeca.RateLimited(0, "")}},
	{"403 without body", fakeca.Rule{Status: 403, Body: []byte{}}},
	{"400 of null", fakeca.Rule{Status: 400, Body: []byte("null"), ContentType: "application/problem+json"}},
	{"400 of odd types", fakeca.Rule{Status: 400, Body: []byte(`{"type":1,"detail":[],"status":"x","subproblems":[null,{"identifier":7}]}`), ContentType: "application/problem+json"}},
	{"empty", fakeca.Rule{Status: 200, Body: []byte{}}},
	{"null", fakeca.Rule{Status: 200, Body: []byte("null"), ContentType: "application/json"}},
	{"list", fakeca.Rule{Status: 200, Body: []byte("[]"), ContentType: "application/json"}},
	{"object", fakeca.Rule{Status: 200, Body: []byte("{}"), ContentType: "application/json"}},
	{"odd types", fakeca.Rule{Mutate: func(_ *fakeca.Request, o map[string]any) {
		for k := range o {
			o[k] = []any{nil, 1, "x"}
		}
	}}},
	{"nulls", fakeca.Rule{Mutate: func(_ *fakeca.Request, o map[string]any) {
		for k := range o {
			o[k] = nil
		}
	}}},
	{"page", fakeca.Rule{Status: 200, Body: []byte("<html></html>")}},
	{"lost request", fakeca.Rule{HangUp: fakeca.Before}},
	{"lost reply", fakeca.Rule{HangUp: fakeca.After}},
}

var allEndpoints = []string{"directory", "newNonce", "newAccount", "newOrder", "order", "authz", "challenge", "finalize", "cert", "renewalInfo"}

// TestBadRepliesPanicNowhere runs every entry point against every bad reply, with a nil
// Logger: nothing panics, and once the CA is well the name gets its certificate.
func TestBadRepliesPanicNowhere(t *testing.T) {
	silenceStderr(t)
	for i, tt := range badReplies {
		for j, endpoint := range allEndpoints {
			if testing.Short() && (i+j)%5 != 0 {
				continue
			}
			t.Run(tt.name+"/"+endpoint, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{PollsProcessing: 1})
					conf.Logger = nil
					rule := tt.rule
					rule.Endpoint = endpoint
					remove := ca.On(rule)
					m := start(t, conf)
					everyEntryPoint(t, m)
					if p := m.Health().Panics; p != 0 {
						t.Errorf("%d panics", p)
					}
					remove()
					time.Sleep(day)
					for _, name := range []string{"a.example.com", "b.example.com", "c.example.com"} {
						mustLeaf(t, m, name)
						if s := statusFor(t, m, name); s.State != StateValid {
							t.Errorf("%s is %q after the CA is well again: %s", name, s.State, s.LastError)
						}
					}
				})
			})
		}
	}
}

// everyEntryPoint calls what the package offers; some calls fail, as they should.
func everyEntryPoint(t *testing.T, m *Manager) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	_ = m.ManageSync(ctx, []string{"a.example.com"})
	_ = m.Manage(ctx, Spec{Names: []string{"b.example.com", "b2.example.com"}, KeyTypes: []KeyType{P384}})
	if err := m.ManageAsync([]string{"c.example.com", "d.example.com"}); err != nil {
		t.Error(err)
	}
	_ = m.Renew(ctx, "a.example.com")
	_ = leafOf(m, "a.example.com")
	_ = leafOf(m, "")
	w := httptest.NewRecorder()
	m.HTTPHandler(nil).ServeHTTP(w, httptest.NewRequest("GET", "http://a.example.com/.well-known/acme-challenge/x", nil))
	_, _ = m.Status(), m.Health()
	if err := m.Unmanage("d.example.com"); err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	_ = m.Wait(short, "c.example.com")
}

// silenceStderr keeps the default logger's lines out of the test's output.
func silenceStderr(t *testing.T) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = null
	t.Cleanup(func() {
		os.Stderr = old
		if err := null.Close(); err != nil {
			t.Error(err)
		}
	})
}
