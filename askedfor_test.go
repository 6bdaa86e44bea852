package certwright_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
)

// later is an error that asks not to come back for a time.
type later time.Duration

func (l later) Error() string             { return "later" }
func (l later) RetryAfter() time.Duration { return time.Duration(l) }

// What asks for longer than any wait that is kept is not taken for no wait.
func TestIssuerThatAsksForAYearIsNotAskedInALoop(t *testing.T) {
	for _, step := range []string{"order", "directory"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				f.err = &StepError{Issuer: "fake", Step: step, Err: later(365 * day)}
				f.atMost(mostOrders)
				m := offline(t, f)
				if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
					t.Error("there is a certificate")
				}
				time.Sleep(6 * day)
				if n := f.count(); n > 2 {
					t.Errorf("%d calls in six days", n)
				}
			})
		})
	}
}

// A CA that once sends a chain of no use does not cost a short-lived certificate
// its renewal.
func TestRefusedChainLeavesTimeToRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &aroundIssuer{fakeSigner: newFakeSigner(t)}
		f.validity = func() (from, to time.Time) { return time.Now().Add(-time.Second), time.Now().Add(day) }
		n := 0
		f.issue = func(_ context.Context, _ IssueRequest, next func() (Issued, error)) (Issued, error) {
			if n++; n == 2 {
				return Issued{Chain: []byte("not today")}, nil
			}
			return next()
		}
		m := offline(t, f.fakeSigner, func(c *Config) { c.Issuers = []Issuer{f} })
		manage(t, m, "a.example.com")
		for range 48 {
			time.Sleep(time.Hour)
			if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
				t.Fatalf("expired: %+v", statusFor(t, m, "a.example.com"))
			}
		}
		if n > 6 {
			t.Errorf("%d orders in two days", n)
		}
	})
}
