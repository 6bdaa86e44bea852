package certwright_test

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
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
