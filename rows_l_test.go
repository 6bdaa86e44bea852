package certwright

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

func TestL2_CloseDuringHangingCA(t *testing.T) {
	for _, endpoint := range allEndpoints {
		t.Run(endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{PollsProcessing: 1})
				ca.On(fakeca.Rule{Endpoint: endpoint, Hang: true})
				m := start(t, conf)
				var told error
				if endpoint == "renewalInfo" { // asked for once there is a certificate
					manage(t, m, "a.example.com")
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					told = m.ManageSync(context.Background(), []string{"a.example.com", "b.example.com"})
				}()
				time.Sleep(5 * time.Second)
				if ca.Count(endpoint) == 0 {
					t.Fatalf("%s was never asked", endpoint)
				}
				began := time.Now()
				closeManager(t, m)
				<-done
				if d := time.Since(began); d >= time.Second {
					t.Errorf("Close took %v", d)
				}
				if endpoint != "renewalInfo" && !errors.Is(told, ErrClosed) {
					t.Errorf("ManageSync = %v; want ErrClosed", told)
				}
				if err := m.ManageSync(t.Context(), []string{"c.example.com"}); !errors.Is(err, ErrClosed) {
					t.Errorf("ManageSync after Close = %v; want ErrClosed", err)
				}
			})
		})
	}
}

// TestL3_SwapDuringIssue closes the Manager at each stage of an issue. The next
// one on the same storage goes on, with the same order where there is one.
func TestL3_SwapDuringIssue(t *testing.T) {
	for _, tt := range []struct {
		stage  string
		rule   fakeca.Rule
		orders int
	}{
		{"before the account", fakeca.Rule{Endpoint: "newAccount", Hang: true}, 1},
		{"account lost", fakeca.Rule{Endpoint: "newAccount", Hang: true, Run: true}, 1},
		{"before the order", fakeca.Rule{Endpoint: "newOrder", Hang: true}, 1},
		{"order lost", fakeca.Rule{Endpoint: "newOrder", Hang: true, Run: true}, 2}, // its URL was never known
		{"pending", fakeca.Rule{Endpoint: "authz", Hang: true}, 1},
		{"before validating", fakeca.Rule{Endpoint: "challenge", Hang: true}, 1},
		{"validating", fakeca.Rule{Endpoint: "challenge", Hang: true, Run: true}, 1},
		{"before finalize", fakeca.Rule{Endpoint: "finalize", Hang: true}, 1},
		{"finalize lost", fakeca.Rule{Endpoint: "finalize", Hang: true, Run: true}, 1},
		{"processing", fakeca.Rule{Endpoint: "order", Hang: true}, 1},
		{"valid", fakeca.Rule{Endpoint: "cert", Hang: true}, 1},
	} {
		t.Run(tt.stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{PollsProcessing: 1})
				remove := ca.On(tt.rule)
				first := start(t, conf)
				if err := first.ManageAsync([]string{"a.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				if n := ca.Count(tt.rule.Endpoint); n == 0 {
					t.Fatalf("%s was never asked", tt.rule.Endpoint)
				}
				closeManager(t, first)
				remove()
				second := start(t, conf)
				began := time.Now()
				manage(t, second, "a.example.com")
				if d := time.Since(began); d > time.Minute {
					t.Errorf("the certificate took %v after the swap", d)
				}
				if n := len(ca.Orders()); n != tt.orders {
					t.Errorf("%d orders; want %d", n, tt.orders)
				}
				if n := len(ca.Certificates()); n != 1 {
					t.Errorf("%d certificates were issued; want 1", n)
				}
				if n := ca.Accounts(); n != 1 {
					t.Errorf("%d accounts; want 1", n)
				}
			})
		})
	}
}

// TestL3_NewManagerBesideOld starts the new Manager before the old one is closed.
func TestL3_NewManagerBesideOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		remove := ca.On(fakeca.Rule{Endpoint: "finalize", Hang: true})
		old := start(t, conf)
		if err := old.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		fresh := start(t, conf)
		if err := fresh.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		remove()
		closeManager(t, old)
		if err := fresh.Wait(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		if n := len(ca.Orders()); n != 1 {
			t.Errorf("%d orders; want 1", n)
		}
	})
}

func TestL5_Unmanage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		manage(t, m, "a.example.com", "b.example.com")
		if err := m.Unmanage("A.Example.com."); err != nil {
			t.Fatal(err)
		}
		if leafOf(m, "a.example.com") != nil {
			t.Error("a name that is not managed any more is served")
		}
		if err := m.Unmanage("a.example.com"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("a second Unmanage = %v; want ErrNotManaged", err)
		}
		if err := m.Renew(t.Context(), "a.example.com"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("Renew = %v; want ErrNotManaged", err)
		}
		time.Sleep(90 * day)
		for _, o := range ca.Orders()[2:] {
			if o.Identifiers[0].Value == "a.example.com" {
				t.Errorf("an order at %v for a name that is not managed", o.Created)
			}
		}
		if n := ca.Count("newOrder"); n != 3 {
			t.Errorf("%d orders; want 3: two at first, and one renewal", n)
		}
	})
}

// TestL5_UnmanageDuringIssue drops a name whose order hangs, and one that waits
// out a back-off.
func TestL5_UnmanageDuringIssue(t *testing.T) {
	for name, rule := range map[string]fakeca.Rule{
		"hanging":   {Endpoint: "newOrder", Hang: true},
		"backedOff": {Endpoint: "newOrder", Problem: fakeca.RateLimited(time.Hour, "slow down")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				ca.On(rule)
				m := start(t, conf)
				told := make(chan error, 1)
				go func() { told <- m.ManageSync(t.Context(), []string{"a.example.com"}) }()
				time.Sleep(5 * time.Second)
				began := time.Now()
				if err := m.Unmanage("a.example.com"); err != nil {
					t.Fatal(err)
				}
				err := <-told
				if name == "hanging" && !errors.Is(err, ErrNotManaged) {
					t.Errorf("ManageSync = %v; want ErrNotManaged", err)
				}
				if d := time.Since(began); d >= time.Second {
					t.Errorf("Unmanage took %v", d)
				}
				time.Sleep(90 * day)
				if n := ca.Count("newOrder"); n != 1 {
					t.Errorf("%d orders", n)
				}
				if n := len(m.Status()); n != 0 {
					t.Errorf("%d names in the status", n)
				}
			})
		})
	}
}

// fakeIssuer is an Issuer in the caller's hand.
type fakeIssuer struct {
	*acmeIssuer
	inform func(context.Context, *x509.Certificate) (RenewalInfo, error)               // instead of RenewalInfo
	issue  func(context.Context, IssueRequest, func() (Issued, error)) (Issued, error) // around Issue
}

// newFakeIssuer returns one that hands on to ca.
func newFakeIssuer(t testing.TB, ca *fakeca.CA, conf Config) *fakeIssuer {
	t.Helper()
	locker, _ := conf.Storage.(Locker)
	a := issuerAt(ca)
	a.Solvers = map[string]Solver{"http-01": fakeSolver{}}
	b, err := a.bind(&issuerEnv{storage: conf.Storage, locker: locker, log: slog.New(slog.DiscardHandler), agreeToTerms: true})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeIssuer{acmeIssuer: b}
}

type fakeSolver struct{}

func (fakeSolver) Present(context.Context, Challenge) error { return nil }
func (fakeSolver) CleanUp(context.Context, Challenge) error { return nil }

func (f *fakeIssuer) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	if f.issue != nil {
		return f.issue(ctx, req, func() (Issued, error) { return f.acmeIssuer.Issue(ctx, req) })
	}
	return f.acmeIssuer.Issue(ctx, req)
}

func (f *fakeIssuer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	if f.inform != nil {
		return f.inform(ctx, leaf)
	}
	return f.acmeIssuer.RenewalInfo(ctx, leaf)
}

func TestL6_PanicInIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		iss := newFakeIssuer(t, ca, conf)
		var broken atomic.Bool
		broken.Store(true)
		iss.issue = func(_ context.Context, _ IssueRequest, next func() (Issued, error)) (Issued, error) {
			if broken.Load() {
				panic("not today")
			}
			return next()
		}
		conf.Issuers = []Issuer{iss}
		m := start(t, conf)
		err := m.ManageSync(t.Context(), []string{"a.example.com"})
		if err == nil || !strings.Contains(err.Error(), "not today") {
			t.Fatalf("ManageSync = %v; want the panic", err)
		}
		if h := m.Health(); h.Failing != 1 {
			t.Errorf("health = %+v; want 1 failing", h)
		}
		broken.Store(false)
		time.Sleep(time.Minute)
		manage(t, m, "a.example.com")
		if h := m.Health(); h.Failing != 0 {
			t.Errorf("health = %+v; want none failing", h)
		}
	})
}

// TestL6_PanicInMaintenance breaks what comes after the certificate: it is
// served, the panic is seen, and the renewal comes in time.
func TestL6_PanicInMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		iss := newFakeIssuer(t, ca, conf)
		iss.inform = func(context.Context, *x509.Certificate) (RenewalInfo, error) { panic("not today") }
		conf.Issuers = []Issuer{iss}
		m := start(t, conf)
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		synctest.Wait()
		if h := m.Health(); h.Panics == 0 {
			t.Errorf("health = %+v; want a panic", h)
		}
		manage(t, m, "a.example.com") // still answers
		time.Sleep(70 * day)
		if mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Error("the certificate was not renewed")
		}
		if p := m.Health().Panics; p > 500 {
			t.Errorf("%d panics in 70 days; want a back-off", p)
		}
	})
}

// TestL6_BlockedIssuer has an issuer ignore its context: Health shows the worker
// that is stuck, others go on, and once it lets go all is well.
func TestL6_BlockedIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		iss := newFakeIssuer(t, ca, conf)
		stuck := make(chan struct{})
		iss.issue = func(_ context.Context, req IssueRequest, next func() (Issued, error)) (Issued, error) {
			if req.Names[0] == "a.example.com" {
				<-stuck
			}
			return next()
		}
		conf.Issuers = []Issuer{iss}
		m := start(t, conf)
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(29 * time.Hour)
		manage(t, m, "b.example.com")
		synctest.Wait()
		h := m.Health()
		if h.Running != 1 || h.Oldest < 29*time.Hour {
			t.Errorf("health = %+v; want one worker busy for 29 h", h)
		}
		if d := time.Since(h.LastWake); d > time.Minute {
			t.Errorf("the schedule looked for work %v ago", d)
		}
		close(stuck)
		manage(t, m, "a.example.com")
		mustLeaf(t, m, "a.example.com")
		synctest.Wait()
		if h := m.Health(); h.Running != 0 || h.Oldest != 0 {
			t.Errorf("health = %+v; want no worker busy", h)
		}
	})
}

// TestL6_ManageSyncRenewsWhatHasExpired stops the schedule for a name and has
// ManageSync look again: it does not return early because it knows the name.
func TestL6_ManageSyncRenewsWhatHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		manage(t, m, "a.example.com")
		synctest.Wait()
		m.queue.Remove(m.entry("a.example.com"))
		time.Sleep(91 * day)
		if s := statusFor(t, m, "a.example.com"); s.State != StateExpired {
			t.Errorf("status says %q; want expired", s.State)
		}
		manage(t, m, "a.example.com")
		if leaf := mustLeaf(t, m, "a.example.com"); time.Until(leaf.NotAfter) < 89*day {
			t.Errorf("served until %v", leaf.NotAfter)
		}
		if n := ca.Count("newOrder"); n != 2 {
			t.Errorf("%d orders", n)
		}
	})
}
