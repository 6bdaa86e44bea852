package certwright_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// replacing reports whether a newOrder request names a replaced certificate.
func replacing(r *fakeca.Request) bool {
	var o struct{ Replaces string }
	return json.Unmarshal(r.Payload, &o) == nil && o.Replaces != ""
}

func TestRenewsAlthoughTheCASaysAlreadyReplaced(t *testing.T) {
	for _, kind := range []string{"alreadyReplaced", "conflict", "malformed"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{ARIRetryAfter: day})
				m := startAlone(t, conf)
				manage(t, m, "a.example.com")
				first := mustLeaf(t, m, "a.example.com")
				remove := ca.On(fakeca.Rule{Endpoint: "newOrder", When: replacing, Problem: fakeca.NewProblem(kind, http.StatusConflict, "already has a replacement order")})
				time.Sleep(65 * day)
				if mustLeaf(t, m, "a.example.com").Equal(first) {
					t.Fatal("the certificate was not renewed")
				}
				if n := ca.Count("newOrder"); n != 3 {
					t.Errorf("%d orders; want 3: an issue, a refusal, a renewal", n)
				}
				remove()
				time.Sleep(65 * day)
				if all := ca.Requests("newOrder"); len(all) != 4 || !replacing(&all[3]) {
					t.Errorf("%d orders; want 4, and the last names what it replaces", len(all))
				}
			})
		})
	}
}

// The order without the replaced certificate fails for another reason.
func TestRefusedReplacesIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		m := startAlone(t, conf)
		manage(t, m, "a.example.com")
		ca.On(fakeca.Rule{Endpoint: "newOrder", When: replacing, Problem: fakeca.NewProblem("alreadyReplaced", http.StatusConflict, "")})
		ca.On(fakeca.Rule{Endpoint: "newOrder", N: 2, Problem: fakeca.RateLimited(time.Hour, "")})
		time.Sleep(65 * day)
		var named []bool
		for _, r := range ca.Requests("newOrder") {
			named = append(named, replacing(&r))
		}
		if want := []bool{false, true, false, false}; !slices.Equal(named, want) {
			t.Errorf("orders name what they replace: %v; want %v", named, want)
		}
		if n := len(ca.Certificates()); n != 2 {
			t.Errorf("%d certificates; want 2", n)
		}
	})
}

// Nothing was asked of the CA for so long that its directory has to be fetched
// again.
func TestReplacesAfterALongSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		conf.DisableRenewalInfo = true
		m := startAlone(t, conf)
		manage(t, m, "a.example.com")
		time.Sleep(30 * day)
		if err := m.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		if all := ca.Requests("newOrder"); len(all) != 2 || !replacing(&all[1]) {
			t.Errorf("%d orders; want 2, and the second names what it replaces", len(all))
		}
	})
}

func TestRenewsAlthoughTheCAFailsOnReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "newOrder", When: replacing, Status: 500})
		m := startAlone(t, conf)
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		time.Sleep(65 * day)
		if mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Error("the certificate was not renewed")
		}
		if n := ca.Count("newOrder"); n > 5 {
			t.Errorf("%d orders; want no more than 5: an issue, three tries with and one without", n)
		}
	})
}
