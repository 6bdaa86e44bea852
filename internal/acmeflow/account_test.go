package acmeflow

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestP16_AccountLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		old := e.accounts.record(t)
		e.ca.ForgetAccounts()
		e.state = nil
		e.issue(t, "example.com")
		rec := e.accounts.record(t)
		if rec.Location == old.Location || rec.KeyPEM != old.KeyPEM {
			t.Errorf("account %s with the same key: %v", rec.Location, rec.KeyPEM == old.KeyPEM)
		}
		if n := e.ca.Accounts(); n != 1 {
			t.Errorf("%d accounts", n)
		}
	})
}

func TestP16_AccountLostWhileManyIssue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		for range 3 { // it is lost several times
			e.ca.ForgetAccounts()
			before := e.ca.Count("newAccount")
			var wg sync.WaitGroup
			for i := range 20 {
				req := e.request(t, name(i))
				req.State, req.Save = nil, nil
				wg.Go(func() {
					if _, err := e.client.Issue(t.Context(), req); err != nil {
						t.Errorf("Issue %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			if n := e.ca.Accounts(); n != 1 {
				t.Errorf("%d accounts", n)
			}
			if n := e.ca.Count("newAccount") - before; n != 2 {
				t.Errorf("%d newAccount requests, want one that looks and one that makes", n)
			}
		}
	})
}

// The account is lost at each step of an issue.
func TestP16_AccountLostAtEachStep(t *testing.T) {
	for _, endpoint := range []string{"newOrder", "authz", "challenge", "finalize", "order", "cert"} {
		t.Run(endpoint, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				var once sync.Once
				e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, When: func(*fakeca.Request) bool {
					once.Do(e.ca.ForgetAccounts)
					return true
				}, Problem: fakeca.NewProblem("accountDoesNotExist", 400, "no such account")})
				withOrderPoll(e.ca)
				e.issue(t, "example.com")
				if n := e.ca.Accounts(); n != 1 {
					t.Errorf("%d accounts", n)
				}
			})
		})
	}
}

// A CA that loses each account at once is not asked without end.
func TestP16_AccountLostAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("accountDoesNotExist", 400, "no such account")})
		if err := e.fail(t, "example.com"); problemType(err) != "accountDoesNotExist" {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "newOrder", 2)
	})
}

// A CA that finds the account says where it is now.
func TestP16_AccountMoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.issue(t, "example.com")
		rec := e.accounts.record(t)
		right := rec.Location
		rec.Location = "https://ca.test/account/999"
		if err := e.accounts.Store(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		e.restart(nil)
		e.state = nil
		e.issue(t, "example.com")
		if got := e.accounts.record(t).Location; got != right || e.ca.Accounts() != 1 {
			t.Errorf("account %s, want %s; %d accounts", got, right, e.ca.Accounts())
		}
	})
}

func TestP17_ForeignAccountIsNeverSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		solver := &fakeSolver{}
		prod := fakeca.New(fakeca.Options{BaseURL: "https://prod.test", Validate: solver.validate})
		stage := fakeca.New(fakeca.Options{BaseURL: "https://stage.test", Validate: solver.validate})
		e := newEnv(t, fakeca.Options{})
		e.solver = solver
		hc := &http.Client{Transport: fakeca.Network(prod, stage)}
		for _, ca := range []*fakeca.CA{prod, stage, prod} {
			e.ca = ca
			e.restart(func(o *Options) { o.HTTPClient = hc }) // the same record for both
			e.issue(t, "example.com")
		}
		// The directory is right and the account is another CA's.
		rec := e.accounts.record(t)
		rec.Location = "https://stage.test/account/1"
		if err := e.accounts.Store(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		e.restart(func(o *Options) { o.HTTPClient = hc })
		e.issue(t, "example.com")
		for ca, origin := range map[*fakeca.CA]string{prod: "https://prod.test/", stage: "https://stage.test/"} {
			for _, r := range ca.Requests("") {
				if r.Kid != "" && !strings.HasPrefix(r.Kid, origin) {
					t.Errorf("%s got the account %s", origin, r.Kid)
				}
			}
			if n := ca.Accounts(); n != 1 {
				t.Errorf("%d accounts at %s", n, origin)
			}
		}
	})
}

func TestP19_OneAccountForAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newAccount", Delay: 100 * time.Millisecond})
		clients := []*Client{e.client, New(e.options())} // two processes on one store
		var wg sync.WaitGroup
		for i := range 50 {
			req := e.request(t, name(i))
			req.State, req.Save = nil, nil
			wg.Go(func() {
				if _, err := clients[i%2].Issue(t.Context(), req); err != nil {
					t.Errorf("Issue %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		e.wantCount(t, "newAccount", 1)
	})
}

// The first caller leaves while it registers; those who wait go on.
func TestP19_FirstCallerLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newAccount", Delay: 10 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		first := e.request(t, "a.example.com")
		first.Save = nil
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := e.client.Issue(ctx, first); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("first: %v", err)
			}
		})
		time.Sleep(time.Second)
		second := e.request(t, "b.example.com")
		wg.Go(func() {
			if _, err := e.client.Issue(t.Context(), second); err != nil {
				t.Errorf("second: %v", err)
			}
		})
		wg.Wait()
		if n := e.ca.Accounts(); n != 1 {
			t.Errorf("%d accounts", n)
		}
	})
}

func withEAB(kid, mac string) func(*Options) {
	return func(o *Options) { o.EAB = &EAB{KeyID: kid, MACKey: mac} }
}

func TestP20_OneShotEAB(t *testing.T) {
	macA, macB := []byte("0123456789abcdef0123456789abcde?"), []byte("another key of the CA, also 32 b")
	a, b := base64.RawURLEncoding.EncodeToString(macA), base64.RawURLEncoding.EncodeToString(macB)
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{EAB: map[string][]byte{"kid-a": macA, "kid-b": macB}, OneShotEAB: true})
		e.restart(withEAB("kid-a", a))
		e.issue(t, "example.com")
		e.restart(withEAB("kid-a", a)) // memory is lost, the record is not
		e.state = nil
		e.issue(t, "example.com")
		e.wantCount(t, "newAccount", 1)

		// The account's URL was lost after the CA made it.
		rec := e.accounts.record(t)
		rec.Location = ""
		if err := e.accounts.Store(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		e.restart(withEAB("kid-a", a))
		e.state = nil
		e.issue(t, "example.com")
		if n := e.ca.Accounts(); n != 1 {
			t.Errorf("%d accounts, want 1", n)
		}

		e.restart(nil) // the binding is taken out of the configuration
		e.state = nil
		e.issue(t, "example.com")
		if n := e.ca.Accounts(); n != 1 {
			t.Errorf("%d accounts, want 1", n)
		}

		e.restart(withEAB("kid-b", b))
		e.state = nil
		e.issue(t, "example.com")
		if rec := e.accounts.record(t); e.ca.Accounts() != 2 || rec.EABKeyID != "kid-b" {
			t.Errorf("%d accounts, the record is for %q: the changed binding was ignored", e.ca.Accounts(), rec.EABKeyID)
		}
	})
}

// A CA that asks for a binding before it looks for the account.
func TestP20_BindingAskedForFirst(t *testing.T) {
	mac := []byte("0123456789abcdef0123456789abcdef")
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{EAB: map[string][]byte{"kid": mac}})
		key, err := certpem.GenerateKey(certpem.P256)
		if err != nil {
			t.Fatal(err)
		}
		keyPEM, err := certpem.EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		// A process ended between storing the key and registering it.
		rec := AccountRecord{Directory: e.ca.Directory(), KeyPEM: string(keyPEM), EABKeyID: "kid"}
		if err := e.accounts.Store(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		e.ca.On(fakeca.Rule{
			Endpoint: "newAccount",
			When:     func(r *fakeca.Request) bool { return strings.Contains(string(r.Payload), "onlyReturnExisting") },
			Problem:  fakeca.NewProblem("externalAccountRequired", 401, "bind it"),
		})
		e.restart(withEAB("kid", base64.StdEncoding.EncodeToString(mac)))
		e.issue(t, "example.com")
		if got := e.accounts.record(t); got.KeyPEM != rec.KeyPEM || e.ca.Accounts() != 1 {
			t.Errorf("%d accounts; the stored key was kept: %v", e.ca.Accounts(), got.KeyPEM == rec.KeyPEM)
		}
	})
}

func TestEAB_KeyForms(t *testing.T) {
	mac := []byte{0xfb, 0xef, 0xbe, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	for name, text := range map[string]string{
		"base64url":            base64.RawURLEncoding.EncodeToString(mac),
		"base64url, padded":    base64.URLEncoding.EncodeToString(mac),
		"base64":               base64.RawStdEncoding.EncodeToString(mac),
		"base64, padded":       base64.StdEncoding.EncodeToString(mac),
		"with space around it": " " + base64.URLEncoding.EncodeToString(mac) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{EAB: map[string][]byte{"kid": mac}})
				e.restart(withEAB("kid", text))
				e.issue(t, "example.com")
			})
		})
	}
	for _, text := range []string{"", "=", "not base64!", "äö"} {
		if _, err := ParseMACKey(text); err == nil || text != "" && text != "=" && strings.Contains(err.Error(), text) {
			t.Errorf("ParseMACKey(%q): %v", text, err)
		}
	}
}

func FuzzParseMACKey(f *testing.F) {
	f.Add("AAAA")
	f.Add("-_+/==")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := ParseMACKey(s)
		if (err == nil) != (len(key) > 0) {
			t.Errorf("ParseMACKey(%q) = %d bytes, %v", s, len(key), err)
		}
	})
}

func TestAccount_DamagedRecords(t *testing.T) {
	for name, damage := range map[string]func(*AccountRecord){
		"no URL":      func(r *AccountRecord) { r.Location = "" },
		"no key":      func(r *AccountRecord) { r.KeyPEM = "" },
		"junk key":    func(r *AccountRecord) { r.KeyPEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" },
		"junk URL":    func(r *AccountRecord) { r.Location = "%%%://" },
		"relative":    func(r *AccountRecord) { r.Location = "/account/1" },
		"no CA":       func(r *AccountRecord) { r.Directory = "" },
		"all is gone": func(r *AccountRecord) { *r = AccountRecord{} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				e.issue(t, "example.com")
				rec := e.accounts.record(t)
				damage(&rec)
				if err := e.accounts.Store(t.Context(), rec); err != nil {
					t.Fatal(err)
				}
				e.restart(nil)
				e.state = nil
				e.issue(t, "example.com")
				if got := e.accounts.record(t); got.Location == "" || got.Directory != e.ca.Directory() {
					t.Errorf("the record was not mended: %q %q", got.Location, got.Directory)
				}
			})
		})
	}
}

// An account is never made that could not be found again.
func TestAccount_KeyIsStoredFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.accounts.err = errors.New("disk full")
		if err := e.fail(t, "example.com"); err.Step != StepAccount || !errors.Is(err, e.accounts.err) {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "newAccount", 0)
		e.accounts.err = nil
		e.ca.On(fakeca.Rule{Endpoint: "newAccount", N: 1, Count: 3, HangUp: fakeca.After})
		e.fail(t, "example.com")
		e.restart(nil)
		e.issue(t, "example.com")
		if n := e.ca.Accounts(); n != 1 {
			t.Errorf("%d accounts", n)
		}
	})
}

func TestAccount_Deactivated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 401, "the account is deactivated")})
		if err := e.fail(t, "example.com"); problemType(err) != "unauthorized" {
			t.Errorf("error: %v", err)
		}
		e.wantCount(t, "newAccount", 1)
		e.wantCount(t, "newOrder", 1)
	})
}
