package certwright_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestNamesOfACertificateAreASet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		lists := [][]string{
			{"b.example.com", "a.example.com", "c.example.com"},
			{"c.example.com", "B.example.com.", "a.example.com", "b.example.com"},
		}
		m := start(t, conf)
		for _, names := range lists {
			if err := m.Manage(t.Context(), Spec{Names: names}); err != nil {
				t.Fatal(err)
			}
		}
		if s := m.Status(); len(s) != 1 || s[0].Name != "b.example.com" || len(s[0].Names) != 3 {
			t.Errorf("status = %+v", s)
		}
		closeManager(t, m)
		if err := start(t, conf).Manage(t.Context(), Spec{Names: lists[1]}); err != nil {
			t.Fatal(err)
		}
		if n := ca.Count("newOrder"); n != 1 {
			t.Errorf("%d orders for one set", n)
		}
	})
}

func TestAnOrderIsResumedWhateverTheOrderOfItsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		remove := ca.On(fakeca.Rule{Endpoint: "finalize", Status: http.StatusInternalServerError})
		m := start(t, conf)
		if m.Manage(t.Context(), Spec{Names: []string{"b.example.com", "a.example.com"}}) == nil {
			t.Fatal("issued although the CA refuses")
		}
		closeManager(t, m)
		remove()
		orders := ca.Count("newOrder")
		m = start(t, conf)
		_ = m.Manage(t.Context(), Spec{Names: []string{"a.example.com", "b.example.com"}}) // it may be too early
		if err := m.Wait(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		if n := ca.Count("newOrder"); n != orders {
			t.Errorf("%d orders instead of going on with the one there is", n-orders)
		}
	})
}

// RFC 8555 §7.1.3
func TestLifetimeIsAskedForInTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		began := time.Now()
		err := m.Manage(t.Context(),
			Spec{Names: []string{"a.example.com"}, Lifetime: 36 * time.Hour}, Spec{Names: []string{"b.example.com"}})
		if err == nil {
			t.Fatal("issued although the CA does not take notAfter")
		}
		got := map[string]string{}
		for _, r := range ca.Requests("newOrder") {
			var order struct {
				Identifiers         []struct{ Value string }
				NotBefore, NotAfter string
			}
			if err := json.Unmarshal(r.Payload, &order); err != nil {
				t.Fatal(err)
			}
			if order.NotBefore != "" {
				t.Errorf("asked for notBefore %s", order.NotBefore)
			}
			got[order.Identifiers[0].Value] = order.NotAfter
		}
		at, err := time.Parse(time.RFC3339, got["a.example.com"])
		if life := at.Sub(began); err != nil || life < 36*time.Hour-time.Second || life > 36*time.Hour+time.Minute {
			t.Errorf("asked for notAfter %q at %s", got["a.example.com"], began)
		}
		if s, ok := got["b.example.com"]; s != "" || !ok {
			t.Errorf("asked for notAfter %q although Lifetime is 0", s)
		}
	})
}

func TestACMEIssuesOnlyForAManager(t *testing.T) {
	_, err := (&ACME{}).Issue(t.Context(), IssueRequest{Names: []string{"a.example.com"}})
	if err == nil || !strings.Contains(err.Error(), "Config.Issuers") || !strings.Contains(err.Error(), LetsEncrypt) {
		t.Errorf("Issue = %v; want an error that names the CA and the cure", err)
	}
}
