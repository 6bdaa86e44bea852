package acmetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/acmetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

func TestIssueByEachChallenge(t *testing.T) {
	ca := acmetest.Start(t)
	tests := []struct{ typ, name string }{
		{acme.ChallengeTypeHTTP01, "http.example.com"},
		{acme.ChallengeTypeTLSALPN01, "alpn.example.com"},
		{acme.ChallengeTypeDNS01, "dns.example.com"},
		{acme.ChallengeTypeDNS01, "*.wild.example.com"},
		{acme.ChallengeTypeHTTP01, "127.0.0.1"},
		{acme.ChallengeTypeTLSALPN01, "127.0.0.1"},
		{acme.ChallengeTypeHTTP01, "localhost"},
	}
	for _, tt := range tests {
		t.Run(tt.typ+" "+tt.name, func(t *testing.T) {
			u := newUser(t, ca, tt.typ)
			leaf := verify(t, u.issue(t, tt.name), ca.Roots(), strings.Replace(tt.name, "*", "a", 1))
			if got := leaf.NotAfter.Sub(leaf.NotBefore); got != 90*24*time.Hour-time.Second {
				t.Errorf("lifetime is %v, want 90 days less a second", got)
			}
		})
	}
}

func TestD1_TwoTextRecordsOfOneName(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeDNS01)
	chain := u.issue(t, "example.com", "*.example.com")
	verify(t, chain, ca.Roots(), "example.com")
	verify(t, chain, ca.Roots(), "www.example.com")
	if left := ca.TXT("_acme-challenge.example.com"); len(left) != 0 {
		t.Errorf("TXT records %q are left", left)
	}
}

func TestP16_RestartForgetsAccountsAndRoots(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	before := u.issue(t, "example.com")
	directory, roots, rootPEM, api := ca.Directory(), ca.Roots(), ca.RootPEM(), ca.APIRootPEM()

	if err := ca.Restart(); err != nil {
		t.Fatal(err)
	}
	if ca.Directory() != directory || !bytes.Equal(ca.APIRootPEM(), api) {
		t.Error("the directory URL or the API's certificate changed")
	}
	if bytes.Equal(ca.RootPEM(), rootPEM) || ca.Roots().Equal(roots) {
		t.Error("the roots did not change")
	}
	_, err := u.order(t, nil, "example.com")
	var problem acme.Problem
	if !errors.As(err, &problem) || problem.Type != acme.ProblemTypeAccountDoesNotExist {
		t.Errorf("ordering with the old account: %v, want accountDoesNotExist", err)
	}
	if _, err := ca.Status(parseChain(t, before)[0].SerialNumber); !errors.Is(err, acmetest.ErrUnknownCertificate) {
		t.Errorf("status of the old certificate: %v", err)
	}
	u.account.Location = ""
	if u.account, err = u.client.NewAccount(t.Context(), u.account); err != nil {
		t.Fatal(err)
	}
	verify(t, u.issue(t, "example.com"), ca.Roots(), "example.com")
}

func TestCounts(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	u.issue(t, "a.example.com")
	u.issue(t, "a.example.com", "b.example.com")
	if got := ca.Orders(); got != 2 {
		t.Errorf("%d orders, want 2", got)
	}
	got := ca.Requests()
	want := map[string]int{
		acmetest.KindDirectory: 1, acmetest.KindNewAccount: 1, acmetest.KindNewOrder: 2,
		acmetest.KindChallenge: 3, acmetest.KindFinalize: 2, acmetest.KindCert: 2,
	}
	for kind, n := range want {
		if got[kind] != n {
			t.Errorf("%d requests of kind %q, want %d", got[kind], kind, n)
		}
	}
	for _, kind := range []string{acmetest.KindNewNonce, acmetest.KindAuthz, acmetest.KindOrder, acmetest.KindRenewalInfo} {
		if got[kind] == 0 {
			t.Errorf("no request of kind %q", kind)
		}
	}
	if got[acmetest.KindOther] != 0 {
		t.Errorf("%d requests of unknown kind", got[acmetest.KindOther])
	}
	ca.ResetCounts()
	if got := ca.Requests(); len(got) != 0 || ca.Orders() != 0 {
		t.Errorf("after a reset: %v and %d orders", got, ca.Orders())
	}
}

func TestMiddleware(t *testing.T) {
	var retryAfter atomic.Pointer[string]
	ca := acmetest.StartWith(t, acmetest.Options{
		RetryAfter: 400 * time.Millisecond,
		Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost && acmetest.Kind(r) == acmetest.KindKeyChange {
					w.Header().Set("Content-Type", "application/problem+json")
					w.WriteHeader(http.StatusTooManyRequests)
					_, _ = w.Write([]byte(`{"type":"` + acme.ProblemTypeRateLimited + `"}`))
					return
				}
				next.ServeHTTP(w, r)
				if acmetest.Kind(r) == acmetest.KindFinalize {
					value := w.Header().Get("Retry-After")
					retryAfter.Store(&value)
				}
			})
		},
	})
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	u.issue(t, "example.com")
	if value := retryAfter.Load(); value == nil || *value == "" {
		t.Error("no Retry-After header in the answer to finalize")
	}
	_, err := u.client.AccountKeyRollover(t.Context(), u.account, newKey(t))
	var problem acme.Problem
	if !errors.As(err, &problem) || problem.Type != acme.ProblemTypeRateLimited {
		t.Errorf("key change: %v, want the problem of the middleware", err)
	}
	if ca.Requests()[acmetest.KindKeyChange] == 0 {
		t.Error("a request that the middleware answered is not counted")
	}
}

func TestClose(t *testing.T) {
	entered := make(chan struct{})
	var left atomic.Bool
	ca, err := acmetest.New(acmetest.Options{Middleware: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			left.Store(true)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := ca.Client().Get(ca.Directory())
		answered <- err
	}()
	<-entered
	if err := ca.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if !left.Load() {
		t.Error("Close returned while a request was running")
	}
	if err := <-answered; err == nil {
		t.Error("a request that Close cut off got an answer")
	}
	if err := ca.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if err := ca.Restart(); err == nil {
		t.Error("a closed CA restarted")
	}
	if _, err := ca.Client().Get(ca.Directory()); err == nil {
		t.Error("a closed CA answers")
	}
	if _, err := ca.Resolver().LookupHost(context.Background(), "example.com"); err == nil {
		t.Error("the DNS server of a closed CA answers")
	}
}

func TestEnvironmentIsPutBack(t *testing.T) {
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "77")
	t.Setenv("PEBBLE_VA_NOSLEEP", "") // so that it is put back after the test
	if err := os.Unsetenv("PEBBLE_VA_NOSLEEP"); err != nil {
		t.Fatal(err)
	}
	acmetest.Start(t)
	if got := os.Getenv("PEBBLE_WFE_NONCEREJECT"); got != "77" {
		t.Errorf("a variable that was set is now %q", got)
	}
	if got, ok := os.LookupEnv("PEBBLE_VA_NOSLEEP"); ok {
		t.Errorf("a variable that was not set is now %q", got)
	}
}

func TestLog(t *testing.T) {
	var lines atomic.Int64
	ca, err := acmetest.New(acmetest.Options{Log: func(line string) {
		if strings.ContainsAny(line, "\r\n") {
			t.Errorf("line %q has a line break", line)
		}
		lines.Add(1)
	}})
	if err != nil {
		t.Fatal(err)
	}
	newUser(t, ca, acme.ChallengeTypeDNS01)
	if lines.Load() == 0 {
		t.Error("no line was logged")
	}
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
}

// fakeTB records what Start does with a test.
type fakeTB struct {
	fatal    string
	cleanups []func()
}

func (f *fakeTB) Helper()                           {}
func (f *fakeTB) Fatalf(format string, args ...any) { f.fatal = fmt.Sprintf(format, args...) }
func (f *fakeTB) Cleanup(fn func())                 { f.cleanups = append(f.cleanups, fn) }

func TestStartWith(t *testing.T) {
	bad := &fakeTB{}
	if ca := acmetest.StartWith(bad, acmetest.Options{BadNonces: 100}); ca != nil || !strings.Contains(bad.fatal, "BadNonces") {
		t.Errorf("Start with a bad option: %v, %q", ca, bad.fatal)
	}
	good := &fakeTB{}
	ca := acmetest.StartWith(good, acmetest.Options{})
	if good.fatal != "" || len(good.cleanups) != 1 {
		t.Fatalf("Start: %q, %d cleanups", good.fatal, len(good.cleanups))
	}
	good.cleanups[0]()
	if err := ca.Restart(); err == nil {
		t.Error("the cleanup did not close the CA")
	}
}
