package certwright_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

func TestStatusSaysWhatIsNextAndWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		conf.DisableRenewalInfo = true
		m := start(t, conf)
		manage(t, m, "good.example.com")
		ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("rejectedIdentifier", 403, "")})
		if err := m.ManageSync(t.Context(), []string{"bad.example.com"}); err == nil {
			t.Fatal("issued although the CA refuses")
		}
		synctest.Wait()
		if s := statusFor(t, m, "good.example.com"); s.NextAction != ActionRenew || !s.NextAt.Equal(s.RenewAt) || s.RenewAt.IsZero() {
			t.Errorf("next is %q at %v; want %q at %v", s.NextAction, s.NextAt, ActionRenew, s.RenewAt)
		}
		if s := statusFor(t, m, "bad.example.com"); s.NextAction != ActionRetry || !s.NextAt.After(time.Now()) {
			t.Errorf("next is %q at %v", s.NextAction, s.NextAt)
		}
	})
}

// While an attempt is under way, Status says what is done, since when, and what is
// known so far; once it has succeeded nothing of that is left. (F82)
func TestStatusSaysWhatIsBeingDone(t *testing.T) {
	const name = "a.example.com"
	atCA := func(r fakeca.Rule) func(t *testing.T, ca *fakeca.CA, conf *Config) (end func()) {
		return func(_ *testing.T, ca *fakeca.CA, _ *Config) func() { return ca.On(r) }
	}
	breaks := func(hook string) func(t *testing.T, ca *fakeca.CA, conf *Config) (end func()) {
		return func(_ *testing.T, _ *fakeca.CA, conf *Config) func() {
			end := make(chan struct{})
			b := &breaking{hook: hook, how: func(ctx context.Context) error {
				select {
				case <-end:
				case <-ctx.Done():
				}
				return context.Cause(ctx)
			}}
			b.name = name
			mem := conf.Storage.(*storage.Memory)
			conf.Storage, conf.Locker = breakingStorage{mem, b}, breakingLocker{mem, b}
			iss := *conf.Issuers[0].(*ACME)
			iss.Solvers, iss.DisableTLSALPN01 = map[string]Solver{"http-01": breakingSolver{b}}, true
			conf.Issuers = []Issuer{&iss}
			return func() { close(end) }
		}
	}
	for doing, begin := range map[string]func(t *testing.T, ca *fakeca.CA, conf *Config) (end func()){
		"load":            breaks("Load"),
		"issue: lease":    breaks("Lock"),
		"issue: present":  breaks("Present"),
		"issue: account":  atCA(fakeca.Rule{Endpoint: "newAccount", Hang: true}),
		"issue: order":    atCA(fakeca.Rule{Endpoint: "newOrder", Hang: true}),
		"issue: finalize": atCA(fakeca.Rule{Endpoint: "finalize", Hang: true}),
		"issue: download": atCA(fakeca.Rule{Endpoint: "cert", Hang: true}),
		"renewal info":    atCA(fakeca.Rule{Endpoint: "renewalInfo", Hang: true}),
	} {
		t.Run(doing, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				end := begin(t, ca, &conf)
				m := startAlone(t, conf)
				began := time.Now()
				if err := m.ManageAsync([]string{name}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				s := statusFor(t, m, name)
				if !strings.HasPrefix(s.Doing, doing) || s.DoingSince.Sub(began) > time.Second || s.LastError != "" {
					t.Errorf("Status says %+v", s)
				}
				if !s.NextAt.IsZero() && s.NextAt.Before(time.Now()) {
					t.Errorf("what is next was due %v ago", time.Since(s.NextAt))
				}
				end()
				time.Sleep(3 * time.Hour)
				if s := statusFor(t, m, name); s.Doing != "" || s.State != StateValid || s.LastError != "" || s.Degraded != "" || m.Health().Failing != 0 {
					t.Errorf("in the end Status says %+v", s)
				}
			})
		})
	}
}

// What could not be stored once, and is stored since, is not said to fail any
// more: not of the name, and not by Health. (F82)
func TestDegradedEndsWhenItIsKeptAgain(t *testing.T) {
	for _, prefix := range []string{keyInfos, keyStaples, keyOrders} {
		t.Run(prefix, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{OCSPURL: ocspURL})
				store := &failingStore{Memory: storage.NewMemory()}
				conf.Storage = store
				store.fail(prefix, 1)
				m := start(t, conf)
				UseResponder(m, slowResponder{ca, &stapledIssuer{}})
				if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if s := statusFor(t, m, "a.example.com"); prefix != keyOrders && (s.Degraded == "" || m.Health().Degraded == "") {
					t.Errorf("Status says %+v", s)
				}
				time.Sleep(8 * day)
				if s, h := statusFor(t, m, "a.example.com"), m.Health(); s.Degraded != "" || h.Degraded != "" || s.State != StateValid {
					t.Errorf("Status says %+v, Health %+v", s, h)
				}
			})
		})
	}
}
