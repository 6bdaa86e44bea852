package managertest_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

// acceptedAccounts counts the accounts that a CA made.
type acceptedAccounts struct{ n atomic.Int32 }

func (a *acceptedAccounts) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(s, r)
		if acmetest.Kind(r) == acmetest.KindNewAccount && s.status == http.StatusCreated {
			a.n.Add(1)
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// storedAccount returns the key in the only stored account and the account's URL.
func storedAccount(t *testing.T, s Storage) (key, location string) {
	t.Helper()
	_, body, _ := strings.Cut(onlyRecord(t, s, "accounts"), "\n")
	var account struct{ Key, Location string }
	if err := json.Unmarshal([]byte(body), &account); err != nil {
		t.Fatal(err)
	}
	return account.Key, account.Location
}

// The CA loses its state: the account is registered again with the same key,
// once, however many names want it, and nobody has to delete a file (P16).
func TestRegistersTheAccountAgainWhenTheCAHasLostIt(t *testing.T) {
	var accounts acceptedAccounts
	ca := acmetest.StartWith(t, acmetest.Options{Middleware: accounts.wrap})
	conf := standalone(t, ca)
	m := start(t, conf)
	names := numbered(20)
	manage(t, m, names...)
	if n := accounts.n.Load(); n != 1 {
		t.Fatalf("%d accounts for 20 names, want 1", n)
	}
	key, location := storedAccount(t, conf.Storage)
	accounts.n.Store(0)
	if err := ca.Restart(); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for _, n := range names {
		go func() { errs <- m.Renew(testContext(t), n) }()
	}
	for range names {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := accounts.n.Load(); n != 1 {
		t.Errorf("%d accounts after the loss, want exactly 1", n)
	}
	newKey, newLocation := storedAccount(t, conf.Storage)
	if newKey != key || newLocation == location {
		t.Errorf("same key: %v, same account URL: %v; want the key kept and another URL", newKey == key, newLocation == location)
	}
	serveTLS(t, listenPort(t, ca.TLSPort()), m.TLS(nil))
	mustDial(t, ca.TLSPort(), names[19], ca.Roots())
}

func TestPassesBadNonces(t *testing.T) {
	for _, percent := range []int{5, 90} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			if percent > 50 && testing.Short() {
				t.Skip("takes long")
			}
			ca := acmetest.StartWith(t, acmetest.Options{BadNonces: percent})
			m := start(t, standalone(t, ca))
			names := numbered(6 - percent/20)
			manage(t, m, names...)
			if err := m.Renew(testContext(t), names[0]); err != nil {
				t.Fatal(err)
			}
			if ca.Orders() != len(names)+1 {
				t.Errorf("%d orders for %d names and a renewal", ca.Orders(), len(names))
			}
		})
	}
}

// An authorization that is valid already costs no challenge (P10).
func TestReusesValidAuthorizations(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{ReuseAuthorizations: 100})
	m := start(t, standalone(t, ca))
	names := numbered(3)
	if err := m.Manage(testContext(t), Spec{Names: names}); err != nil {
		t.Fatal(err)
	}
	before := ca.Requests()[acmetest.KindChallenge]
	if before != len(names) {
		t.Errorf("%d challenges for %d names", before, len(names))
	}
	if err := m.Renew(testContext(t), names[0]); err != nil {
		t.Fatal(err)
	}
	if after := ca.Requests()[acmetest.KindChallenge]; after != before {
		t.Errorf("%d challenges answered in a renewal, want none", after-before)
	}
}

// A restart finds everything in storage.
func TestRestartsWithoutANewOrder(t *testing.T) {
	ca := acmetest.Start(t)
	dir := t.TempDir()
	names := []string{"a.example.com", "b.example.com"}
	run := func() []string {
		d, err := storage.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}()
		conf := standalone(t, ca)
		conf.Storage = d
		m, err := New(conf)
		if err != nil {
			t.Fatal(err)
		}
		defer closeManager(t, m)
		manage(t, m, names...)
		for _, s := range m.Status() {
			if s.State != StateValid || s.Issuer == "" || s.NotAfter.IsZero() || s.NextAt.IsZero() {
				t.Errorf("status %+v", s)
			}
		}
		return serials(m)
	}
	first := run()
	ca.ResetCounts()
	if second := run(); !slices.Equal(first, second) {
		t.Errorf("serials %v, then %v", first, second)
	}
	for _, kind := range []string{acmetest.KindNewOrder, acmetest.KindNewAccount, acmetest.KindAccount} {
		if n := ca.Requests()[kind]; n != 0 {
			t.Errorf("%d requests of kind %q after a restart", n, kind)
		}
	}
}

func TestBindsAnExternalAccount(t *testing.T) {
	const kid = "kid-1"
	mac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	ca := acmetest.StartWith(t, acmetest.Options{EAB: map[string]string{kid: mac}})
	for _, tc := range []struct {
		name string
		eab  *EAB
		want string // in the error; empty: issued
	}{
		{"good", &EAB{KeyID: kid, MACKey: mac}, ""},
		{"good with another encoding", &EAB{KeyID: kid, MACKey: base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))}, ""},
		{"none", nil, "externalAccountRequired"},
		{"unknown key ID", &EAB{KeyID: "kid-2", MACKey: mac}, "account"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := start(t, standalone(t, ca, func(a *ACME) { a.EAB = tc.eab }))
			err := m.ManageSync(testContext(t), []string{"eab.example.com"})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want one with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), mac) {
				t.Error("the error tells the MAC key")
			}
			var step *StepError
			if !errors.As(err, &step) || step.Step != "account" {
				t.Errorf("step %+v, want account", step)
			}
		})
	}
}

func TestAsksForAProfileAndRenewsWithIt(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{Profiles: map[string]acmetest.Profile{
		"short": {Lifetime: 6 * 24 * time.Hour}, "long": {Lifetime: 90 * 24 * time.Hour},
	}})
	conf := standalone(t, ca)
	conf.Profile = "long"
	m := start(t, conf)
	err := m.Manage(testContext(t), Spec{Names: []string{"long.example.com"}}, Spec{Names: []string{"short.example.com"}, Profile: "short"})
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for _, s := range m.Status() {
			days, want := s.NotAfter.Sub(s.NotBefore).Hours()/24, 90.
			if s.Name == "short.example.com" {
				want = 6
			}
			if days < want-.1 || days > want+.1 {
				t.Errorf("%s lives %.1f days, want %v", s.Name, days, want)
			}
		}
	}
	check()
	if err := m.Renew(testContext(t), "short.example.com"); err != nil { // P23: with the same profile
		t.Fatal(err)
	}
	check()
	err = m.Manage(testContext(t), Spec{Names: []string{"odd.example.com"}, Profile: "odd"})
	if err == nil || !strings.Contains(err.Error(), "odd") || !strings.Contains(err.Error(), "profile") {
		t.Errorf("error %v, want one that names the profile", err)
	}
}
