package certwright_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

func TestCloseWhileTheCAHangs(t *testing.T) {
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

// The Manager is closed at each stage of an issue. The next one on the same storage
// goes on, with the same order where there is one.
func TestNextManagerGoesOnWithTheIssue(t *testing.T) {
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

// The new Manager starts before the old one is closed.
func TestNewManagerBesideTheOldOne(t *testing.T) {
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

// An order that was begun under another configuration is not gone on with: what
// it comes to is not what is asked for now.
func TestOrderOfAnotherConfigurationIsNotGoneOnWith(t *testing.T) {
	type settings struct {
		profile  string
		lifetime time.Duration
	}
	for _, tt := range []struct {
		name          string
		before, after settings
		kept          bool
	}{
		{"the same", settings{"short", 6 * day}, settings{"short", 6 * day}, true},
		{"another profile", settings{"short", 0}, settings{"", 0}, false},
		{"a lifetime", settings{}, settings{"", 6 * day}, false},
		{"no lifetime any more", settings{"", 6 * day}, settings{}, false},
		{"another lifetime", settings{"", 6 * day}, settings{"", 7 * day}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := storage.NewMemory()
				var resumed []bool
				run := func(s settings, fail bool) {
					iss := &aroundIssuer{fakeSigner: newFakeSigner(t)}
					iss.issue = func(ctx context.Context, req IssueRequest, next func() (Issued, error)) (Issued, error) {
						resumed = append(resumed, string(req.State) == "begun")
						if err := req.Save(ctx, []byte("begun")); err != nil || !fail {
							return next()
						}
						<-ctx.Done()
						return Issued{}, context.Cause(ctx)
					}
					m := offline(t, iss.fakeSigner, func(c *Config) { c.Issuers, c.Storage = []Issuer{iss}, store })
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					if err := m.Manage(ctx, Spec{Names: []string{"a.example.com"}, Profile: s.profile, Lifetime: s.lifetime}); err != nil && !fail {
						t.Fatal(err)
					}
					closeManager(t, m)
				}
				run(tt.before, true)
				run(tt.after, false)
				if len(resumed) != 2 || resumed[0] || resumed[1] != tt.kept {
					t.Errorf("gone on with: %v", resumed)
				}
			})
		})
	}
}
