package certwright_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// TestBackOffIsOneIssuers has a first CA ask for a week's wait, and then
// configures a second one beside it or in its place: that is asked at once. (F2)
func TestBackOffIsOneIssuers(t *testing.T) {
	const name = "a.example.com"
	week := 167 * time.Hour
	for _, renewal := range []bool{false, true} {
		for what, order := range map[string]string{"the second alone": "b", "the second behind": "ab", "the second before": "ba"} {
			for _, way := range []string{"restart", "Manage"} {
				t.Run(fmt.Sprintf("%s/%s/renewal=%v", what, way, renewal), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "a")})
						b, other := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "b")})
						first := conf.Issuers[0]
						m := startAlone(t, conf)
						if renewal {
							manage(t, m, name)
							time.Sleep(58 * day)
						}
						a.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(week, "slow down")})
						if renewal {
							time.Sleep(8 * day) // it became due
						} else if m.ManageSync(t.Context(), []string{name}) == nil {
							t.Fatal("a certificate came from a CA that refuses all orders")
						}
						if s := statusFor(t, m, name); s.LastError == "" {
							t.Fatalf("nothing was refused: %+v", s)
						}
						refused := a.Count("newOrder")
						var issuers []Issuer
						for _, c := range order {
							issuers = append(issuers, map[rune]Issuer{'a': first, 'b': other.Issuers[0]}[c])
						}
						if way == "restart" {
							closeManager(t, m)
							conf.Issuers = issuers
							m = startAlone(t, conf)
							manage(t, m, name)
						} else if err := m.Manage(t.Context(), Spec{Names: []string{name}, Issuers: issuers}); err != nil {
							t.Error(err)
						}
						time.Sleep(time.Minute)
						if s := statusFor(t, m, name); s.Issuer != other.Issuers[0].ID() || s.State != StateValid {
							t.Errorf("Status is %+v; want a certificate of the second", s)
						}
						if n := len(b.Certificates()); n != 1 {
							t.Errorf("the second CA issued %d certificates", n)
						}
						if n := a.Count("newOrder"); n != refused {
							t.Errorf("the first was asked %d times within the week it asked for", n-refused)
						}
					})
				})
			}
		}
	}
}

// TestNextIsTheEarliestOfTheIssuers has two CAs ask for different waits. (F2)
func TestNextIsTheEarliestOfTheIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "a")})
		b, other := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "b")})
		conf.Issuers = append(conf.Issuers, other.Issuers...)
		a.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(5*day, "slow down")})
		remove := b.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(2*day, "slow down")})
		m := startAlone(t, conf)
		if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
			t.Fatal("a certificate came from CAs that refuse all orders")
		}
		for range 2 { // in memory, and as it is stored
			if wait := time.Until(statusFor(t, m, "a.example.com").NextAt); wait < 2*day-time.Second || wait > 2*day+time.Minute {
				t.Errorf("tried again in %v, want two days", wait)
			}
			closeManager(t, m)
			m = startAlone(t, conf)
			if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		remove()
		time.Sleep(2*day + time.Minute)
		mustLeaf(t, m, "a.example.com")
		if n := a.Count("newOrder"); n != 1 {
			t.Errorf("the first was asked %d times", n)
		}
	})
}
