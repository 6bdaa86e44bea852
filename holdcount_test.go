package certwright_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
)

// A name that cannot be validated is asked for every minute: five failed
// validations an hour are what public CAs allow. (F22)
func TestFailedValidationsAreBoundedWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.err = &StepError{Issuer: "fake", Step: "challenge", Name: "a.example.com", Err: errors.New("no answer")}
		m := offline(t, f)
		for range 59 {
			if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
				t.Fatal("there is a certificate")
			}
			time.Sleep(time.Minute)
		}
		if n := f.count(); n > 4 {
			t.Errorf("%d failed validations within an hour", n)
		}
		time.Sleep(3 * time.Hour)
		if n := f.count(); n < 5 {
			t.Errorf("%d calls in four hours: it was given up", n)
		}
	})
}

// A certificate for two names has back-off of its own for one of them and then the
// CA's word against all of it: whoever waits passes the first, not the second.
func TestOwnBackOffDoesNotHideTheCAsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.err = &StepError{Issuer: "fake", Step: "challenge", Name: "a.example.com", Err: errors.New("no answer")}
		m := offline(t, f)
		try := func() error {
			return m.Manage(t.Context(), Spec{Names: []string{"a.example.com", "b.example.com"}})
		}
		for f.count() < 8 { // now the back-off is of hours
			if try() == nil {
				t.Fatal("there is a certificate")
			}
			time.Sleep(20 * time.Minute)
		}
		f.set(func() {
			f.err = &StepError{Issuer: "fake", Step: "order", Err: later(2 * time.Hour)}
		})
		n := f.count()
		for f.count() == n {
			_ = try()
			time.Sleep(20 * time.Minute)
		}
		if k := f.count(); k != n+1 {
			t.Errorf("it was asked %d times at once", k-n)
		}
		n = f.count()
		for range 4 {
			_ = try()
			time.Sleep(20 * time.Minute)
		}
		if k := f.count(); k != n {
			t.Errorf("it was asked %d times within the two hours that it asked for", k-n)
		}
	})
}
