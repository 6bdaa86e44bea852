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
