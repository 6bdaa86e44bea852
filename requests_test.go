package certwright_test

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// caEndpoints are what a CA is asked at.
var caEndpoints = []string{
	"directory", "newNonce", "newAccount", "newOrder", "authz", "challenge", "finalize", "order", "cert", "renewalInfo",
}

// requestCount counts the requests by endpoint since they were last asked for.
type requestCount struct {
	ca   *fakeca.CA
	last map[string]int
}

func (c *requestCount) since() map[string]int {
	got := map[string]int{}
	other := c.ca.Count("") - c.last[""]
	c.last[""] += other
	for _, e := range caEndpoints {
		n := c.ca.Count(e) - c.last[e]
		c.last[e] += n
		other -= n
		if n > 0 {
			got[e] = n
		}
	}
	if other > 0 {
		got["other"] = other
	}
	return got
}

// newCounted is newFake with a CA that is some way off, and whose order is
// processing when it has taken the CSR and valid at the first look, as those of
// public CAs are.
func newCounted(t *testing.T) (*requestCount, Config) {
	t.Helper()
	ca, conf := newFake(t, fakeca.Options{})
	ca.On(fakeca.Rule{Delay: 20 * time.Millisecond, Mutate: func(r *fakeca.Request, m map[string]any) {
		if r.Endpoint == "finalize" && m["status"] == "valid" {
			m["status"] = "processing"
			delete(m, "certificate")
		}
	}})
	return &requestCount{ca: ca, last: map[string]int{}}, conf
}

// TestRequestsOfAnIssue pins down what a certificate costs the CA: the seven
// requests of RFC 8555 §7.1 that none of them can do without, and one for the
// renewal information.
func TestRequestsOfAnIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, conf := newCounted(t)
		m := start(t, conf)
		want := map[string]int{
			"newOrder": 1, "authz": 2, "challenge": 1, "finalize": 1, "order": 1, "cert": 1, "renewalInfo": 1,
		}
		cold := maps.Clone(want)
		cold["directory"], cold["newNonce"], cold["newAccount"] = 1, 1, 1
		check := func(what string, want map[string]int, issue func() error) {
			t.Helper()
			if err := issue(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(time.Second) // what follows a certificate has been asked for
			if got := asked.since(); !maps.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		check("cold", cold, func() error { return m.ManageSync(t.Context(), []string{"a.example.com"}) })
		check("warm", want, func() error { return m.ManageSync(t.Context(), []string{"b.example.com"}) })
		check("renewal", want, func() error { return m.Renew(t.Context(), "a.example.com") })
		check("managed already", map[string]int{}, func() error { return m.ManageSync(t.Context(), []string{"a.example.com"}) })
		two := maps.Clone(want)
		two["authz"], two["challenge"], two["newNonce"] = 4, 2, 1 // two requests at once need two nonces
		check("two names", two, func() error {
			return m.Manage(t.Context(), Spec{Names: []string{"c.example.com", "d.example.com"}})
		})
	})
}

// TestRequestsOfManyIssues has 50 names wanted at once from a CA that knows
// nobody yet: one directory, one account, and a nonce for each worker.
func TestRequestsOfManyIssues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const names = 50
		asked, conf := newCounted(t)
		m := start(t, conf)
		list := make([]string, names)
		for i := range list {
			list[i] = fmt.Sprintf("n%d.example.com", i)
		}
		manage(t, m, list...)
		time.Sleep(time.Second)
		want := map[string]int{
			"directory": 1, "newNonce": 16, "newAccount": 1, "newOrder": names, "authz": 2 * names, "challenge": names,
			"finalize": names, "order": names, "cert": names, "renewalInfo": names,
		}
		if got := asked.since(); !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// TestOldNoncesAreDroppedHoweverOftenTheCAIsAsked asks for renewal info, which
// needs no nonce, so often that the CA is never left alone for long: those of the
// last order are too old for the next one all the same. (P1)
func TestOldNoncesAreDroppedHoweverOftenTheCAIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{NonceLifetime: time.Hour, ARIRetryAfter: 5 * time.Minute})
		m := start(t, conf)
		manage(t, m, "a.example.com")
		time.Sleep(3 * time.Hour)
		if n := ca.Count("renewalInfo"); n < 30 {
			t.Fatalf("the CA was asked for renewal info %d times", n)
		}
		if err := m.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		if n := ca.Count("newOrder"); n != 2 {
			t.Errorf("%d requests for two orders", n)
		}
	})
}
