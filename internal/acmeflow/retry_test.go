package acmeflow

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/fakeca"
)

// The reply of every endpoint is lost once, before and after the CA acted (F53).
func TestRetry_LostOnce(t *testing.T) {
	for _, endpoint := range issueEndpoints {
		for when, hangUp := range map[string]fakeca.HangUp{"before": fakeca.Before, "after": fakeca.After} {
			t.Run(endpoint+" "+when, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{FinalizeOnce: true})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, HangUp: hangUp})
					withOrderPoll(e.ca)
					e.issue(t, "example.com")
					if n := len(e.ca.Certificates()); n != 1 {
						t.Errorf("%d certificates", n)
					}
					if n := e.ca.Accounts(); n != 1 {
						t.Errorf("%d accounts", n)
					}
				})
			})
		}
	}
}

func TestRetry_ServerErrorOnce(t *testing.T) {
	for _, endpoint := range issueEndpoints {
		for _, status := range []int{500, 502, 503} {
			t.Run(fmt.Sprint(endpoint, status), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, Status: status, Body: []byte("<html>bad gateway</html>"), NoNonce: true})
					withOrderPoll(e.ca)
					e.issue(t, "example.com")
					if n := len(e.ca.Certificates()); n != 1 {
						t.Errorf("%d certificates", n)
					}
				})
			})
		}
	}
}

// A CA that is down is asked a few times and then left alone.
func TestRetry_ServerErrorAlways(t *testing.T) {
	for _, endpoint := range issueEndpoints {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: endpoint, Problem: fakeca.NewProblem("serverInternal", 500, "database gone")})
				withOrderPoll(e.ca)
				err := e.fail(t, "example.com")
				if n := e.ca.Count(endpoint); n < 2 || n > maxFinalize {
					t.Errorf("%d requests", n)
				}
				if endpoint != "finalize" && (err.Problem == nil || err.Problem.Status != 500) {
					t.Errorf("error: %v", err)
				}
			})
		})
	}
}

func TestR6_RateLimitedAtEachEndpoint(t *testing.T) {
	for _, endpoint := range issueEndpoints {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				remove := e.ca.On(fakeca.Rule{Endpoint: endpoint, Problem: fakeca.RateLimited(time.Hour, "too many"), NoNonce: true})
				withOrderPoll(e.ca)
				start := time.Now()
				err := e.fail(t, "example.com")
				if problemType(err) != "rateLimited" || err.RetryAfter != time.Hour || err.Problem.Status != http.StatusTooManyRequests {
					t.Errorf("error: %v", err)
				}
				e.wantCount(t, endpoint, 1)
				if took := time.Since(start); took > time.Second {
					t.Errorf("took %v", took)
				}
				remove()
				e.issue(t, "example.com")
				if n := len(e.ca.Orders()); n != 1 {
					t.Errorf("%d orders: the one that was made is gone on with", n)
				}
			})
		})
	}
}

func TestR6_FormsOfRetryAfter(t *testing.T) {
	date := func(d time.Duration) func() string {
		return func() string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	}
	text := func(s string) func() string { return func() string { return s } }
	for name, row := range map[string]struct {
		value func() string
		want  time.Duration
	}{
		"seconds":   {text("3600"), time.Hour},
		"negative":  {text("-1"), 0},
		"huge":      {text("99999999"), backoff.MaxRetryAfter},
		"words":     {text("soon"), 0},
		"empty":     {text(""), 0},
		"date":      {date(2 * time.Hour), 2 * time.Hour},
		"past date": {date(-2 * time.Hour), 0},
		"wrong day": {date(-30 * 24 * time.Hour), 0},
		"two":       {text("60, 120"), 0},
		"fraction":  {text("3.5"), 0},
		"plus":      {text("+60"), 0},
		"spaces":    {text("  60 "), time.Minute},
		"overflow":  {text("99999999999999999999999"), backoff.MaxRetryAfter},
		"far date":  {date(10 * 365 * 24 * time.Hour), backoff.MaxRetryAfter},
		"old date":  {func() string { return time.Now().Add(time.Hour).UTC().Format(time.RFC850) }, time.Hour},
	} {
		for _, endpoint := range []string{"newAccount", "newOrder", "authz", "finalize"} {
			for _, status := range []int{429, 503} {
				t.Run(fmt.Sprint(name, " ", endpoint, status), func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						e := newEnv(t, fakeca.Options{})
						e.ca.On(fakeca.Rule{Endpoint: endpoint, Status: status, Header: http.Header{"Retry-After": {row.value()}}})
						err := e.fail(t, "example.com")
						if d := row.want - err.RetryAfter; d < 0 || d > time.Second {
							t.Errorf("RetryAfter %v, want %v", err.RetryAfter, row.want)
						}
						if status == 429 || row.want > 0 {
							e.wantCount(t, endpoint, 1)
						}
					})
				})
			}
		}
	}
}

func TestR5_PausedAccount(t *testing.T) {
	url := "https://portal.example/sfe/v1/unpause?jwt=" + strings.Repeat("eyJhbGciOi", 60)
	for name, p := range map[string]*fakeca.Problem{
		"detail":   {Type: "rateLimited", Status: 429, Detail: "Your account is temporarily prevented from requesting certificates for example.com. Please visit: " + url},
		"instance": {Type: "rateLimited", Status: 429, Detail: "prevented", Instance: url},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: p, NoNonce: true})
				err := e.fail(t, "example.com")
				e.wantCount(t, "newOrder", 1)
				if !strings.Contains(err.Error(), url) {
					t.Errorf("the URL is not in the error: %v", err)
				}
				if err.RetryAfter < 24*time.Hour {
					t.Errorf("RetryAfter %v, want a day at least", err.RetryAfter)
				}
			})
		})
	}
}

// A rate limit with no document at all is one, and so is a page of HTML.
func TestR6_RateLimitedByProxy(t *testing.T) {
	for _, body := range []string{"", "<html>slow down</html>", `{"detail":7,"type":null}`, `[]`, `{"type":"urn:ietf:params:acme:error:rateLimited","status":"429","subproblems":3}`} {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			e.ca.On(fakeca.Rule{Endpoint: "newOrder", Status: 429, Body: []byte(body)})
			if err := e.fail(t, "example.com"); problemType(err) != "rateLimited" {
				t.Errorf("body %q: %v", body, err)
			}
			e.wantCount(t, "newOrder", 1)
		})
	}
}

// A reply beyond all measure ends the step; it is not read to its end or asked for again.
func TestGiantReplies(t *testing.T) {
	if testing.Short() {
		t.Skip("many CAs")
	}
	giant := []byte(`{"x":"` + strings.Repeat("x", 2<<20) + `"}`)
	for _, endpoint := range issueEndpoints {
		if endpoint == "newNonce" {
			continue // a reply to HEAD has no body
		}
		for _, status := range []int{200, 400} {
			t.Run(fmt.Sprint(endpoint, status), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, Status: status, Body: giant})
					withOrderPoll(e.ca)
					err := e.fail(t, "example.com")
					says, asked := "larger than", true // once
					switch {
					case endpoint == "finalize": // it may have been taken: the order is polled
						says, asked = "", false
					case endpoint == "challenge" && status == 400: // it is asked again and again, and each time told
						says, asked = "HTTP 400", false
					}
					if text := err.Error(); len(text) > 4096 || !strings.Contains(text, says) {
						t.Errorf("error of %d bytes: %.200s", len(text), text)
					}
					if asked {
						e.wantCount(t, endpoint, 1)
					}
				})
			})
		}
	}
}

// Each endpoint answers nonsense with 200.
func TestNonsenseReplies(t *testing.T) {
	if testing.Short() {
		t.Skip("many CAs")
	}
	for _, body := range []string{"", "null", "[]", "{}", "<html>hello</html>", `{"status":5}`, `{"identifiers":"x","authorizations":{}}`, "\x00\xff", `{"status":"valid","error":7}`} {
		for _, endpoint := range issueEndpoints {
			t.Run(endpoint+" "+body, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, Body: []byte(body)})
					withOrderPoll(e.ca)
					ctx, cancel := contextIn(t, 30*time.Second)
					defer cancel()
					res, err := e.client.Issue(ctx, e.request(t, "example.com"))
					if err == nil {
						e.check(t, res, "example.com")
						return
					}
					e.solver.checkClean(t)
					if err.Error() == "" || ctx.Err() == nil && e.ca.Count("") > 200 {
						t.Errorf("%d requests; error %v", e.ca.Count(""), err)
					}
				})
			})
		}
	}
}

// A date is of the CA's clock, whatever that of this host says.
func TestRetryAfterIsADateOfTheCAsClock(t *testing.T) {
	for _, skew := range []time.Duration{0, 400 * 24 * time.Hour, -400 * 24 * time.Hour} {
		bubble(t, func(t *testing.T) {
			e := newEnv(t, fakeca.Options{})
			theirs := time.Now().Add(skew).UTC()
			e.ca.On(fakeca.Rule{Endpoint: "newOrder", Status: 429, Header: http.Header{
				"Date": {theirs.Format(http.TimeFormat)}, "Retry-After": {theirs.Add(2 * time.Hour).Format(http.TimeFormat)},
			}})
			if err := e.fail(t, "example.com"); err.RetryAfter != 2*time.Hour {
				t.Errorf("a clock that is %v ahead: RetryAfter %v, want 2h", skew, err.RetryAfter)
			}
		})
	}
}
