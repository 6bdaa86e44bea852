package certwright_test

import (
	"context"
	"crypto/x509"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestIssuerThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		iss := &aroundIssuer{fakeSigner: newFakeSigner(t)}
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

// The certificate is served, the panic is seen, and the renewal comes in time.
func TestRenewalInfoThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		iss := &aroundIssuer{fakeSigner: newFakeSigner(t)}
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

// An issuer ignores its context: Health shows what is stuck, others go on, and once
// it lets go all is well.
func TestIssuerThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		iss := &aroundIssuer{fakeSigner: newFakeSigner(t)}
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
		if h.Running < 1 || h.Running > 4 || h.Oldest < 29*time.Hour {
			t.Errorf("health = %+v; want few calls, one of them busy for 29 h", h)
		}
		if d := time.Since(h.LastWake); d > time.Minute {
			t.Errorf("the schedule looked for work %v ago", d)
		}
		close(stuck)
		synctest.Wait()
		manage(t, m, "a.example.com")
		mustLeaf(t, m, "a.example.com")
		synctest.Wait()
		if h := m.Health(); h.Running != 0 || h.Oldest != 0 {
			t.Errorf("health = %+v; want no worker busy", h)
		}
	})
}
