package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestIssue(t *testing.T) {
	for _, names := range [][]string{
		{"example.com"},
		{"example.com", "www.example.com", "*.example.com"},
		{"192.0.2.7"},
		{"2001:db8::7", "example.com"},
	} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.issue(t, names...)
				e.wantCount(t, "newAccount", 1)
				e.wantCount(t, "finalize", 1)
				if got := len(e.ca.Orders()); got != 1 {
					t.Errorf("%d orders", got)
				}
			})
		})
	}
}

// The requests of an issue once the directory, the account and a nonce are known.
func TestIssue_WarmRequestsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		withOrderPoll(e.ca)
		e.issue(t, "a.example.com")
		before := e.counts()
		e.state = nil
		e.issue(t, "b.example.com")
		after := e.counts()
		want := map[string]int{"newOrder": 1, "authz": 2, "challenge": 1, "finalize": 1, "order": 1, "cert": 1}
		total := 0
		for endpoint, n := range after {
			got := n - before[endpoint]
			total += got
			if got != want[endpoint] {
				t.Errorf("%d requests to %s, want %d", got, endpoint, want[endpoint])
			}
		}
		if total != 7 {
			t.Errorf("%d requests, want 7", total)
		}
	})
}

func TestIssue_ParallelSharesAccount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		var wg sync.WaitGroup
		for i := range 32 {
			req := e.request(t, name(i))
			req.State, req.Save = nil, nil
			wg.Go(func() {
				if _, err := e.client.Issue(t.Context(), req); err != nil {
					t.Errorf("Issue %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		e.solver.checkClean(t)
		e.wantCount(t, "newAccount", 1)
		e.wantCount(t, "directory", 1)
		e.wantCount(t, "finalize", 32)
	})
}

// Every endpoint hangs in turn; the end of the context ends Issue at once.
func TestIssue_ContextEnds(t *testing.T) {
	for _, endpoint := range issueEndpoints {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.ca.On(fakeca.Rule{Endpoint: endpoint, Hang: true})
				withOrderPoll(e.ca)
				cause := errors.New("shutting down")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(5*time.Second, func() { cancel(cause) })
				start := time.Now()
				_, err := e.client.Issue(ctx, e.request(t, "example.com"))
				if took := time.Since(start); took > 6*time.Second {
					t.Errorf("Issue took %v", took)
				}
				if !errors.Is(err, cause) {
					t.Errorf("Issue: %v, want the context's cause", err)
				}
				e.solver.checkClean(t)
			})
		})
	}
}

// A CA that never decides is waited for until the context ends.
func TestIssue_ContextEndsWhilePolling(t *testing.T) {
	for name, o := range map[string]fakeca.Options{
		"authz":      {PollsBeforeValid: 1 << 30},
		"order":      {PollsBeforeReady: 1 << 30},
		"processing": {PollsProcessing: 1 << 30},
		"ready":      {PollsAfterFinalize: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, o)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				_, err := e.client.Issue(ctx, e.request(t, "example.com"))
				if took := time.Since(start); took > 61*time.Second || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after %v: %v", took, err)
				}
				e.solver.checkClean(t)
				if n := e.ca.Count(""); n > 50 {
					t.Errorf("%d requests in a minute", n)
				}
				if len(e.saved()) == 0 {
					t.Error("the order was not kept")
				}
			})
		})
	}
}

func TestIssue_SlowCA(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsBeforeValid: 3, PollsBeforeReady: 3, PollsAfterFinalize: 3, PollsProcessing: 3})
		e.ca.On(fakeca.Rule{Delay: 5 * time.Second})
		e.issue(t, "example.com")
		if n := len(e.ca.Certificates()); n != 1 {
			t.Errorf("%d certificates", n)
		}
	})
}

// Every request says who asks (RFC 8555 section 6.1).
func TestIssue_UserAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		for _, r := range e.ca.Requests("") {
			if !strings.HasPrefix(r.Header.Get("User-Agent"), "certwright-test/1") {
				t.Errorf("%s: User-Agent %q", r.Endpoint, r.Header.Get("User-Agent"))
			}
		}
	})
}

func TestIssue_NotAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		req := e.request(t, "example.com")
		req.NotAfter = time.Now().Add(48 * time.Hour)
		e.failRequest(t, req) // this CA takes none
		const want = `"notAfter":"2000-01-03T00:00:00Z"`
		if body := string(e.ca.Requests("newOrder")[0].Payload); !strings.Contains(body, want) {
			t.Errorf("%s is not in %s", want, body)
		}
	})
}
