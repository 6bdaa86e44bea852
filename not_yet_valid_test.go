package certwright_test

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// TestLastGoodPairStaysUntilItsSuccessorIsValid renews with a certificate whose
// NotBefore lies two hours ahead: the old one is served until then, after a
// restart too, nothing else is ordered, and then the new one is served. (F8)
func TestLastGoodPairStaysUntilItsSuccessorIsValid(t *testing.T) {
	const name = "a.example.com"
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeSigner(t)
			mem := storage.NewMemory()
			on := func(c *Config) { c.Storage = mem }
			m := offline(t, f, on)
			manage(t, m, name)
			first := mustLeaf(t, m, name)
			time.Sleep(10 * day)
			ahead := time.Now().Add(2 * time.Hour)
			f.set(func() { f.validity = func() (time.Time, time.Time) { return ahead, ahead.Add(90 * day) } })
			if err := m.Renew(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if restart {
				closeManager(t, m)
				m = offline(t, f, on)
				manage(t, m, name)
			}
			for time.Now().Before(ahead) {
				if !mustLeaf(t, m, name).Equal(first) {
					t.Fatalf("restart=%v: the new one is served %v before it is valid", restart, time.Until(ahead))
				}
				s := statusFor(t, m, name)
				if s.State != StateValid || s.NextAction != ActionServe || !s.NextAt.Equal(ahead.UTC()) {
					t.Errorf("restart=%v: Status is %+v", restart, s)
				}
				time.Sleep(10 * time.Minute)
			}
			time.Sleep(time.Second)
			if leaf := mustLeaf(t, m, name); leaf.Equal(first) || f.count() != 2 {
				t.Errorf("restart=%v: the first is still served: %v; %d orders", restart, leaf.Equal(first), f.count())
			}
			closeManager(t, m)
			m = offline(t, f, on)
			manage(t, m, name)
			if leaf := mustLeaf(t, m, name); leaf.Equal(first) || f.count() != 2 {
				t.Errorf("restart=%v: after another start the first is served: %v; %d orders", restart, leaf.Equal(first), f.count())
			}
		})
	}
}

// TestFirstCertificateIsServedOnceItIsValid has a name below a managed wildcard
// get a first certificate that is not valid for an hour. (F8)
func TestFirstCertificateIsServedOnceItIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		m := offline(t, f)
		manage(t, m, "*.example.com")
		wild := mustLeaf(t, m, "a.example.com")
		ahead := time.Now().Add(time.Hour)
		f.set(func() { f.validity = func() (time.Time, time.Time) { return ahead, ahead.Add(90 * day) } })
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !mustLeaf(t, m, "a.example.com").Equal(wild) {
			t.Error("the wildcard's certificate is not served meanwhile")
		}
		time.Sleep(time.Hour)
		if leaf := mustLeaf(t, m, "a.example.com"); leaf.Equal(wild) {
			t.Error("the name's own certificate is valid and not served")
		}
		if s := statusFor(t, m, "a.example.com"); s.State != StateValid || f.count() != 2 {
			t.Errorf("Status is %+v, %d orders", s, f.count())
		}
	})
}

// TestWaitEndsWhenTheFirstCertificateBecomesValid waits for a name whose first
// certificate is not valid yet. (F8)
func TestWaitEndsWhenTheFirstCertificateBecomesValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		ahead := time.Now().Add(time.Hour)
		f.validity = func() (time.Time, time.Time) { return ahead, ahead.Add(90 * day) }
		m := offline(t, f)
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		if err := m.Wait(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		if now := time.Now(); now.Before(ahead) || now.After(ahead.Add(time.Second)) {
			t.Errorf("the wait ended %v after the certificate became valid", now.Sub(ahead))
		}
		if f.count() != 1 {
			t.Errorf("%d orders", f.count())
		}
	})
}
