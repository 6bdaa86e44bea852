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
// answered, nobody else in this Storage gets it.
func (s *Storage) Lock(ctx context.Context, name string) (storage.Lease, error) {
	if err := check(ctx, name); err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	pass, err := s.turns.Lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, ended(ctx))
	}
	answer := make(chan error)
	left := make(chan struct{})
	var said atomic.Pointer[error] // by the plugin, last
	s.calls.Go(func() {
		err := s.acquire(ctx, name, &said)
		select {
		case answer <- err:
			return
		case <-left:
		}
		if err == nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockPatience)
			defer cancel()
			_ = s.release(ctx, name) // nobody is left to be told
		}
		pass()
	})
	select {
	case err := <-answer:
		if err == nil {
			return s.newLease(ctx, name, pass), nil
		}
		pass()
	case <-ctx.Done():
		close(left)
	}
	if err := said.Load(); err != nil {
		return nil, fmt.Errorf("locking name %q: %w; the plugin: %w", name, ended(ctx), *err)
	}
	return nil, fmt.Errorf("locking name %q: %w", name, ended(ctx))
}

// acquire asks the plugin for the lock until it has it or ctx ends. Whether an
// error says that the lock is held or that the plugin is in trouble cannot be
// told.
func (s *Storage) acquire(ctx context.Context, name string, said *atomic.Pointer[error]) error {
	for n := 1; ; n++ {
		err := s.plugin.Lock(ctx, pluginLock(name))
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
	err := s.plugin.Unlock(ctx, pluginLock(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		err = s.plugin.Unlock(ctx, pluginLock(name))
	}
	return err
}

// newLease returns the lease on a lock that the plugin has granted, and renews it
// where the plugin can. pass hands the lock on within this Storage.
func (s *Storage) newLease(ctx context.Context, name string, pass func()) *storage.HeldLease {
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	lease := storage.NewLease(ctx, name, storage.LeaseOptions{Release: func(ctx context.Context) error {
		s.calls.Add(1)
		defer s.calls.Done()
		stop()
		<-stopped
		defer pass()
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
		left, lost := renew(renewing, r, name)
		if !lost || !lease.Lose() {
			return
		}
		defer pass()
		// As long as the plugin promised to keep the lock it is still this
		// holder's, and must not stay behind.
		if left > 0 {
			ctx, cancel := context.WithTimeout(renewing, unlockPatience)
			defer cancel()
			_ = s.release(ctx, name) // the lease is reported as lost
		}
	})
	return lease
}

// renew keeps the plugin's lock until ctx ends. It goes on when the lease's own
// context ends by its parent: the lock is held until it is unlocked. lost says
// that a renewal has failed, and left how long the lock has still to live.
func renew(ctx context.Context, r renewer, name string) (left time.Duration, lost bool) {
	renewed := time.Now()
	ticker := time.NewTicker(leaseLife / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, false
		}
		call, cancel := context.WithTimeout(ctx, leaseLife/3)
		began := time.Now()
		err := r.RenewLockLease(call, pluginLock(name), leaseLife)
		cancel()
		switch {
		case ctx.Err() != nil:
			return 0, false
		case err != nil:
			return leaseLife - time.Since(renewed), true
		}
		renewed = began
	}
}
