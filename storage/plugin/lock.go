package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/guard"
	"github.com/certwright/certwright/storage"
)

// renewer is certmagic.LockLeaseRenewer. certmagic.TryLocker is not used: that of
// CertMagic's FileStorage takes a lock file whose writer died before it wrote for
// a held lock, each time anew and for ever; its Lock does not.
type renewer interface {
	RenewLockLease(ctx context.Context, name string, lease time.Duration) error
}

const (
	// leaseLife is what a plugin is asked to keep a lock for, and a third of it
	// how often.
	leaseLife = time.Minute

	// turnPatience is for how long nobody else in this Storage gets a lock while
	// the plugin does not return from a call about it that nobody waits for.
	turnPatience = time.Minute

	// unlockPatience bounds the release of a lock that came too late.
	unlockPatience = 10 * time.Second
)

// again is how long to wait before a lock that could not be had is tried anew.
// The plugin may have waited itself.
var again = backoff.Policy{First: 250 * time.Millisecond, Max: 2 * time.Second, Factor: 1.5}

// Lock implements storage.Locker. Within this Storage waiters get the lock in the
// order in which they came, so that the plugin sees one of them at a time. It is
// tried until ctx ends; the error then says what the plugin said last. A lock
// that the plugin grants after that is released at once; until the plugin has
// answered, and for a minute at most, nobody else in this Storage gets it.
func (s *Storage) Lock(ctx context.Context, name string) (storage.Lease, error) {
	if err := check(ctx, name); err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	pass, err := s.turns.Lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, ended(ctx))
	}
	answer := make(chan error, 1)
	var said atomic.Pointer[error] // by the plugin, last
	s.calls.Go(func() { answer <- s.acquire(ctx, name, &said) })
	select {
	case err = <-answer:
		if err == nil {
			return s.newLease(ctx, name, pass), nil
		}
		pass()
	case <-ctx.Done():
		s.calls.Go(func() {
			defer passSoon(pass)()
			if <-answer == nil {
				s.releaseLate(ctx, name)
			}
		})
	}
	err = ended(ctx)
	if last := said.Load(); last != nil {
		err = fmt.Errorf("%w; the plugin: %w", err, *last)
	}
	return nil, fmt.Errorf("locking name %q: %w", name, err)
}

// begin calls the plugin on a goroutine of its own and returns its answer.
func (s *Storage) begin(call func() error) <-chan error {
	return guard.Call(s.calls.Go, "the plugin", call)
}

// acquire asks the plugin for the lock until it has it or ctx ends. Whether an
// error says that the lock is held or that the plugin is in trouble cannot be
// told.
func (s *Storage) acquire(ctx context.Context, name string, said *atomic.Pointer[error]) error {
	for n := 1; ; n++ {
		err := <-s.begin(func() error { return s.plugin.Lock(ctx, pluginLock(name)) })
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			said.Store(&err)
		}
		t := time.NewTimer(again.Delay(n, rand.Float64()))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ended(ctx)
		}
	}
}

// release gives the plugin's lock back. A lock left behind costs more than a
// second call.
func (s *Storage) release(ctx context.Context, name string) error {
	unlock := func() error { return s.plugin.Unlock(ctx, pluginLock(name)) }
	err := <-s.begin(unlock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		err = <-s.begin(unlock)
	}
	return err
}

// passSoon hands a lock on within this Storage when the function that it returns
// is called, and without that after turnPatience. pass may be called twice.
func passSoon(pass func()) func() {
	late := time.AfterFunc(turnPatience, pass)
	return func() {
		late.Stop()
		pass()
	}
}

// releaseLate gives back a lock of which nobody is left to be told.
func (s *Storage) releaseLate(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockPatience)
	defer cancel()
	_ = s.release(ctx, name)
}

// newLease returns the lease on a lock that the plugin has granted, and renews it
// where the plugin can. pass hands the lock on within this Storage.
func (s *Storage) newLease(ctx context.Context, name string, pass func()) *storage.HeldLease {
	// The lock is held until it is unlocked, whatever becomes of ctx.
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	lease := storage.NewLease(ctx, name, storage.LeaseOptions{Release: func(ctx context.Context) error {
		s.calls.Add(1)
		defer s.calls.Done()
		stop()
		<-stopped
		defer passSoon(pass)()
		err := s.release(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the plugin holds no such lock any more: %w", storage.ErrLeaseLost)
		}
		return err
	}})
	r, ok := s.plugin.(renewer)
	if !ok {
		close(stopped)
		return lease
	}
	s.calls.Go(func() {
		defer close(stopped)
		until := s.renew(renewing, r, name)
		if renewing.Err() != nil || !lease.Lose() {
			return
		}
		defer passSoon(pass)()
		// As long as the plugin promised to keep the lock it is still this
		// holder's, and must not stay behind.
		if time.Now().Before(until) {
			s.releaseLate(renewing, name)
		}
	})
	return lease
}

// renew keeps the plugin's lock until ctx ends or a renewal fails or does not
// return. It returns when the lock runs out.
func (s *Storage) renew(ctx context.Context, r renewer, name string) time.Time {
	until := time.Now().Add(leaseLife)
	ticker := time.NewTicker(leaseLife / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return until
		}
		begun := time.Now()
		call, cancel := context.WithTimeout(ctx, leaseLife/3)
		var err error
		select {
		case err = <-s.begin(func() error { return r.RenewLockLease(call, pluginLock(name), leaseLife) }):
		case <-call.Done():
			err = call.Err()
		}
		cancel()
		if err != nil {
			return until
		}
		until = begun.Add(leaseLife)
	}
}
