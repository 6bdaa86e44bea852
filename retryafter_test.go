package certwright_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestPausedAccountIsLeftAloneForADay(t *testing.T) {
	const url = "https://portal.test/unpause?jwt=abc"
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{
			Endpoint: "newOrder", NoNonce: true,
			Problem: fakeca.RateLimited(0, "Your account is temporarily prevented from requesting certificates for a.example.com. Please visit: "+url),
		})
		m := startAlone(t, conf)
		err := m.ManageSync(t.Context(), []string{"a.example.com"})
		if err == nil || !strings.Contains(err.Error(), url) {
			t.Errorf("ManageSync = %v; want the URL in it", err)
		}
		if n := ca.Count("newOrder"); n != 1 {
			t.Errorf("%d orders were posted; want 1", n)
		}
		time.Sleep(day - time.Second)
		if n := ca.Count("newOrder"); n != 1 {
			t.Errorf("%d orders were posted within a day; want 1", n)
		}
		if s := statusFor(t, m, "a.example.com"); !strings.Contains(s.LastError, url) {
			t.Errorf("status says %q; want the URL in it", s.LastError)
		}
	})
}

func TestRetryAfterIsObeyedEverywhere(t *testing.T) {
	const week = 7 * day
	// Without a wish of the CA's, the back-off waits 48 to 60 seconds.
	for _, tt := range []struct {
		name        string
		header      func(now time.Time) string
		least, most time.Duration
	}{
		{"seconds", func(time.Time) string { return "3600" }, time.Hour, time.Hour + time.Minute},
		{"date", func(now time.Time) string { return now.Add(time.Hour).UTC().Format(http.TimeFormat) }, time.Hour - time.Minute, time.Hour + time.Minute},
		{"negative", func(time.Time) string { return "-1" }, 48 * time.Second, time.Minute},
		{"huge", func(time.Time) string { return "99999999" }, week, week + time.Minute},
		{"garbage", func(time.Time) string { return "soon" }, 48 * time.Second, time.Minute},
	} {
		for _, endpoint := range []string{"directory", "newNonce", "newAccount", "newOrder", "authz", "challenge", "finalize", "order", "cert"} {
			t.Run(tt.name+"/"+endpoint, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{PollsProcessing: 1})
					remove := ca.On(fakeca.Rule{
						Endpoint: endpoint, Problem: fakeca.RateLimited(0, "slow down"),
						Header: http.Header{"Retry-After": {tt.header(time.Now())}},
					})
					m := startAlone(t, conf)
					err := m.ManageSync(t.Context(), []string{"a.example.com"})
					if err == nil || !strings.Contains(err.Error(), "rateLimited") {
						t.Fatalf("ManageSync = %v; want the CA's problem", err)
					}
					asked := ca.Count(endpoint)
					if asked != 1 {
						t.Errorf("%d requests for one refusal", asked)
					}
					wait := time.Until(statusFor(t, m, "a.example.com").NextAt)
					if wait < tt.least-time.Second || wait > tt.most {
						t.Errorf("the next attempt is in %v; want %v to %v", wait, tt.least, tt.most)
					}
					time.Sleep(wait - time.Second)
					if n := ca.Count(endpoint); n != asked {
						t.Errorf("%d requests before the time had come", n-asked)
					}
					remove()
					time.Sleep(2 * time.Minute)
					mustLeaf(t, m, "a.example.com")
				})
			})
		}
	}
}

// Renew passes the Manager's own back-off and never the CA's word, at whichever
// step it came, and after a restart. (F29)
func TestRenewPassesOwnBackOffOnly(t *testing.T) {
	const name = "a.example.com"
	for what, tt := range map[string]struct {
		rule  fakeca.Rule
		asked bool
	}{
		"refused":                 {fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "no")}, true},
		"internal error":          {fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("serverInternal", 500, "no")}, true},
		"for the name":            {fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(2*time.Hour, "no")}, false},
		"without a time":          {fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(0, "no")}, false},
		"for the account":         {fakeca.Rule{Endpoint: "newNonce", Problem: fakeca.RateLimited(2*time.Hour, "no")}, false},
		"while it finalizes":      {fakeca.Rule{Endpoint: "finalize", Problem: fakeca.RateLimited(2*time.Hour, "no")}, false},
		"unavailable until later": {fakeca.Rule{Endpoint: "newOrder", Status: 503, Header: http.Header{"Retry-After": {"7200"}}}, false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				m := startAlone(t, conf)
				manage(t, m, name)
				time.Sleep(time.Hour) // what was pooled of the CA's is old
				ca.On(tt.rule)
				if m.Renew(t.Context(), name) == nil {
					t.Fatal("renewed")
				}
				for range 2 {
					time.Sleep(time.Second)
					asked := ca.Count(tt.rule.Endpoint)
					err := m.Renew(t.Context(), name)
					if n := ca.Count(tt.rule.Endpoint) - asked; n > 0 != tt.asked || err == nil {
						t.Errorf("Renew = %v, and the CA was asked %d times", err, n)
					}
					closeManager(t, m)
					m = startAlone(t, conf)
					manage(t, m, name)
				}
			})
		})
	}
}

// What kept a name from its certificate is mended and the program started again:
// it is tried at once, or the error says why not and when. (F81)
func TestStartAfterTheCauseIsMended(t *testing.T) {
	const name = "a.example.com"
	for what, tt := range map[string]struct {
		rule  fakeca.Rule
		after time.Duration // the last failure
		tried bool
	}{
		"an hour later":      {fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "no CAA for you")}, time.Hour, true},
		"at once":            {fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "no CAA for you")}, time.Minute, false},
		"a CA that was down": {fakeca.Rule{Endpoint: "directory", Status: 500}, 6 * time.Minute, true},
		"by the CA's word":   {fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(9*time.Hour, "slow down")}, time.Hour, false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				mended := ca.On(tt.rule)
				m := startAlone(t, conf)
				if err := m.ManageAsync([]string{name}); err != nil {
					t.Fatal(err)
				}
				last, asked := time.Now(), 0
				for time.Since(last) < tt.after || time.Until(statusFor(t, m, name).NextAt) < 2*time.Minute {
					time.Sleep(time.Second)
					if n := ca.Count(tt.rule.Endpoint); n > asked {
						last, asked = time.Now(), n
					}
				}
				closeManager(t, m)
				mended()
				m = startAlone(t, conf)
				err := m.ManageSync(t.Context(), []string{name})
				if tried := len(ca.Certificates()) > 0; tried != tt.tried || tried != (err == nil) {
					t.Errorf("tried: %v; ManageSync = %v", tried, err)
				}
				if !tt.tried && (err == nil || !strings.Contains(err.Error(), "not tried now but at 2000-01-0")) {
					t.Errorf("ManageSync = %v; want it to say that it was not tried, and when it is", err)
				}
			})
		})
	}
}
