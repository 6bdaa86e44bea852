package certwright_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
)

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("n%03d.example.com", i))
	}
	return names
}

func served(m *Manager, names []string) (n int) {
	for _, name := range names {
		if leafOf(m, name) != nil {
			n++
		}
	}
	return n
}

// All calls that may run at once ignore the end of their context: who comes
// behind them goes to the next issuer.
func TestIssuerWhoseCallsNeverReturnHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newOther(t, "a"), newOther(t, "b")
		back := make(chan struct{})
		a.issue = func(context.Context, IssueRequest, func() (Issued, error)) (Issued, error) {
			<-back
			return Issued{}, errors.New("late")
		}
		m := offline(t, a.fakeSigner, func(c *Config) { c.Issuers = []Issuer{a, b} })
		names := manyNames(300)
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := served(m, names); n != len(names) {
			t.Errorf("%d of %d names have a certificate after an hour", n, len(names))
		}
		close(back)
		synctest.Wait()
	})
}

// A CA is found to be down while many names are queued for it: they go to the next
// one, however long the first asks to be left alone.
func TestNamesQueuedForADownIssuerGoToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newOther(t, "a"), newOther(t, "b")
		a.issue = func(context.Context, IssueRequest, func() (Issued, error)) (Issued, error) {
			time.Sleep(time.Second)
			return Issued{}, &StepError{Issuer: "a", Step: "directory", Err: later(24 * time.Hour)}
		}
		m := offline(t, a.fakeSigner, func(c *Config) { c.Issuers = []Issuer{a, b} })
		names := manyNames(60)
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if n := served(m, names); n != len(names) {
			t.Errorf("%d of %d names have a certificate after five minutes", n, len(names))
		}
	})
}

// The first name that a CA is asked for after an outage hangs there: the others have
// their certificates within minutes. (F5)
func TestNameThatHangsAfterAnOutageHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &aroundIssuer{fakeSigner: newFakeSigner(t)}
		var calls atomic.Int32
		began := time.Now()
		f.issue = func(ctx context.Context, _ IssueRequest, issue func() (Issued, error)) (Issued, error) {
			switch {
			case time.Since(began) < time.Minute:
				return Issued{}, &StepError{Issuer: "fake", Step: "directory", Err: later(time.Hour)}
			case calls.Add(1) == 1:
				<-ctx.Done()
				return Issued{}, ctx.Err()
			}
			return issue()
		}
		m := offline(t, f.fakeSigner, func(c *Config) { c.Issuers = []Issuer{f} })
		names := manyNames(60)
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		time.Sleep(65 * time.Minute)
		if n := served(m, names); n != len(names)-1 {
			t.Errorf("%d of %d names have a certificate five minutes after the outage", n, len(names))
		}
	})
}

// otherSigner is a signer of another ID.
type otherSigner struct {
	*aroundIssuer
	id string
}

func (o otherSigner) ID() string { return o.id }

func newOther(t *testing.T, id string) otherSigner {
	return otherSigner{&aroundIssuer{fakeSigner: newFakeSigner(t)}, id}
}
