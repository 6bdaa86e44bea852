package certwright_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// A call that ignores its context is given up: then other certificates of its name
// are ordered, and the name itself is tried again. (F5, F22)
func TestCallThatDoesNotReturnHoldsUpNoOtherOfItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := newFakeSigner(t), make(chan struct{})
		var calls atomic.Int32
		f.hook = func(context.Context) error {
			if calls.Add(1) == 1 {
				<-end
			}
			return nil
		}
		m := offline(t, f)
		t.Cleanup(func() { close(end) })
		both := Spec{Names: []string{"a.example.com"}, KeyTypes: []KeyType{P256, P384}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.Manage(ctx, both, Spec{Names: []string{"b.example.com", "a.example.com"}}); err == nil {
			t.Error("the call has returned")
		}
		if n := f.count(); n != 2 {
			t.Errorf("%d certificates beside the call that does not return; want 2", n)
		}
		time.Sleep(2 * time.Hour)
		if n := f.count(); n != 3 {
			t.Errorf("%d certificates two hours later; want 3", n)
		}
	})
}

// leaseCounter counts the leases of certificates that are held.
type leaseCounter struct {
	Locker
	held atomic.Int32
}

type countedLease struct {
	Lease
	free func()
}

func (l *leaseCounter) Lock(ctx context.Context, name string) (Lease, error) {
	lease, err := l.Locker.Lock(ctx, name)
	if err != nil || !strings.Contains(name, "example.com") {
		return lease, err
	}
	l.held.Add(1)
	return countedLease{lease, sync.OnceFunc(func() { l.held.Add(-1) })}, nil
}

func (l countedLease) Unlock(ctx context.Context) error {
	defer l.free()
	return l.Lease.Unlock(ctx)
}

// Certificates of one name are ordered one after the other; who waits for that
// holds neither a lease nor a slot. (F5, F22)
func TestWaitingForAnotherCertificateOfTheNameHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, mem := newFakeSigner(t), storage.NewMemory()
		locker := &leaseCounter{Locker: mem}
		f.hook = func(ctx context.Context) error { return waitFor(ctx, time.Minute) }
		m := offline(t, f, func(c *Config) { c.Storage, c.Locker, c.Workers = mem, locker, 1 })
		done := make(chan error)
		go func() {
			done <- m.Manage(t.Context(), Spec{Names: []string{"a.example.com"}, KeyTypes: []KeyType{P256, P384, RSA2048}})
		}()
		time.Sleep(5 * time.Second)
		if n := locker.held.Load(); n != 1 {
			t.Errorf("%d leases are held; want 1", n)
		}
		began := time.Now()
		if err := m.ManageSync(t.Context(), []string{"other.example.com"}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 65*time.Second {
			t.Errorf("another name took %v", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Who waits for another certificate of the name, and then for an issuer that is
// down, is told when that is known. (F6)
func TestWhoHasWaitedForAnotherIsToldThatTheIssuerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.err = &StepError{Issuer: "fake", Step: "directory", Err: later(2 * time.Hour)}
		f.hook = func(ctx context.Context) error { return waitFor(ctx, 20*time.Second) }
		m := offline(t, f)
		began := time.Now()
		err := m.Manage(t.Context(), Spec{Names: []string{"a.example.com"}, KeyTypes: []KeyType{P256, P384}})
		if err == nil {
			t.Error("there are certificates")
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("told after %v", took)
		}
	})
}

// What has failed to be validated too often within the hour is not tried by a
// process that has just been started: it says why, and when. (F22, F81)
func TestFailedValidationsAreToldOfAfterAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, mem := newFakeSigner(t), storage.NewMemory()
		f.err = &StepError{Issuer: "fake", Step: "challenge", Name: "a.example.com", Err: errors.New("no answer")}
		try := func() error {
			m, err := New(Config{Storage: mem, Issuers: []Issuer{f}, HTTPPort: -1, TLSPort: -1, DisableStapling: true})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close(context.Background())
			return m.ManageSync(t.Context(), []string{"a.example.com"})
		}
		for f.count() < 4 {
			if try() == nil {
				t.Fatal("there is a certificate")
			}
			time.Sleep(301 * time.Second)
		}
		for range 8 {
			err := try()
			var e *IssueError
			if !errors.As(err, &e) || !strings.Contains(err.Error(), "no answer") || !e.RetryAt.After(time.Now()) {
				t.Errorf("after %d calls: %v", f.count(), err)
			}
			time.Sleep(5 * time.Minute)
		}
	})
}

// A lease that another instance holds holds up no other certificate of the name for
// long. (F5, F22)
func TestLeaseHeldElsewhereHoldsUpNoOtherOfItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, mem := newFakeSigner(t), storage.NewMemory()
		lease, err := mem.Lock(t.Context(), records.IssueLock(records.ID([]string{"a.example.com"}, P256)))
		if err != nil {
			t.Fatal(err)
		}
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		began := time.Now()
		go m.Manage(t.Context(), Spec{Names: []string{"a.example.com"}, KeyTypes: []KeyType{P256, P384}}, Spec{Names: []string{"b.example.com", "a.example.com"}}) //nolint:errcheck // Close ends it
		for f.count() < 2 {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("the others took %v", took)
		}
		if err := lease.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		if n := f.count(); n != 3 {
			t.Errorf("%d certificates; want 3", n)
		}
	})
}
