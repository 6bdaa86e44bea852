package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// pluginRenewer is certmagic.LockLeaseRenewer. certmagic.TryLocker is not used:
// that of CertMagic's FileStorage takes a lock file whose writer died before it
// wrote for a held lock, each time anew and for ever; its Lock does not.
type pluginRenewer interface {
	RenewLockLease(ctx context.Context, name string, lease time.Duration) error
}

const (
	// pluginLease is what a plugin is asked to keep a lock for, and a third of
	// it how often.
	pluginLease = time.Minute

	// pluginUnlock bounds the release of a lock.
	pluginUnlock = 10 * time.Second
)

// Lock implements [Locker]. Within this process waiters get the lock in the
// order in which they came, so that the plugin sees one of them at a time. A
// lock that the plugin grants after ctx has ended is released at once; until
// the plugin has answered, nobody else in this process gets it.
func (a *CertMagicAdapter) Lock(ctx context.Context, name string) (Lease, error) {
	if err := checkCall(ctx, "locking", name); err != nil {
		return nil, err
	}
	if err := a.turns.take(ctx, name); err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	answer := make(chan error)
	left := make(chan struct{})
	a.work.Go(func() {
		err := a.plugin.Lock(ctx, pluginLock(name))
		select {
		case answer <- err:
			return
		case <-left:
		}
		if err == nil {
			_ = a.release(ctx, name) // nobody is left to be told
		}
		a.turns.give(name)
	})
	select {
	case err := <-answer:
		if err != nil {
			a.turns.give(name)
			return nil, fmt.Errorf("locking name %q: %w", name, err)
		}
		return a.newLease(ctx, name), nil
	case <-ctx.Done():
		close(left)
		return nil, fmt.Errorf("locking name %q: %w", name, endOf(ctx))
	}
}

// release gives the plugin's lock back although ctx may have ended.
func (a *CertMagicAdapter) release(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pluginUnlock)
	defer cancel()
	err := a.plugin.Unlock(ctx, pluginLock(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		err = a.plugin.Unlock(ctx, pluginLock(name)) // a lock left behind costs more than a second call
	}
	return err
}

// pluginLeaseHeld is a Lease of a CertMagicAdapter.
type pluginLeaseHeld struct {
	*leaseCore
	adapter *CertMagicAdapter
	stop    context.CancelFunc // ends the renewing
	renewed time.Time          // last, or when the lock was got
	done    chan struct{}      // closed when the renewing has ended
}

func (a *CertMagicAdapter) newLease(ctx context.Context, name string) *pluginLeaseHeld {
	l := &pluginLeaseHeld{leaseCore: newLeaseCore(ctx, name, nil), adapter: a, renewed: time.Now(), done: make(chan struct{})}
	r, ok := a.plugin.(pluginRenewer)
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	if !ok {
		close(l.done)
		return l
	}
	a.work.Go(func() { l.renew(renewing, r) })
	return l
}

// renew keeps the plugin's lock until ctx ends, and ends the lease when that
// fails. It goes on when the lease's own context ends by its parent: the lock is
// held until it is unlocked.
func (l *pluginLeaseHeld) renew(ctx context.Context, r pluginRenewer) {
	defer close(l.done)
	ticker := time.NewTicker(pluginLease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		call, cancel := context.WithTimeout(ctx, pluginLease/3)
		began := time.Now()
		err := r.RenewLockLease(call, pluginLock(l.name), pluginLease)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			l.renewed = began
		case l.end(leaseLost):
			l.abandon(ctx)
			return
		default:
			return
		}
	}
}

// abandon lets go of a lock that could not be renewed: as long as the plugin
// promised to keep it, it is still this holder's and must not stay behind.
func (l *pluginLeaseHeld) abandon(ctx context.Context) {
	if time.Since(l.renewed) < pluginLease {
		_ = l.adapter.release(ctx, l.name) // the lease is reported as lost
	}
	l.adapter.turns.give(l.name)
}

// Unlock implements [Lease].
func (l *pluginLeaseHeld) Unlock(ctx context.Context) error {
	if !l.end(leaseUnlocked) {
		return l.ended()
	}
	l.stop()
	answer := make(chan error, 1)
	l.adapter.work.Go(func() {
		<-l.done
		err := l.adapter.release(ctx, l.name)
		l.adapter.turns.give(l.name)
		answer <- err
	})
	timer := time.NewTimer(pluginUnlock)
	defer timer.Stop()
	select {
	case err := <-answer:
		if errors.Is(err, fs.ErrNotExist) {
			return l.lostError() // it ran out, or was taken over
		}
		if err != nil {
			return fmt.Errorf("unlocking name %q: %w", l.name, err)
		}
		return nil
	case <-timer.C:
		return fmt.Errorf("unlocking name %q: the plugin has not returned within %v", l.name, pluginUnlock)
	}
}
