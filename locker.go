package certwright

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Locker hands out leases: locks by name that only one holder has at a time,
// among all goroutines, processes and hosts that share the Locker. It is safe
// for concurrent use. A name follows the rules of a storage key.
//
// storagetest.RunLocker checks that a Locker keeps this contract.
type Locker interface {
	// Lock waits until the named lock is free or ctx ends. It is not
	// re-entrant. Whoever gets the lease must look again at what it protects:
	// the holder before may have done the work.
	Lock(ctx context.Context, name string) (Lease, error)
}

// Lease is a held lock that can be lost. It is safe for concurrent use.
type Lease interface {
	// Context ends when the lease is lost or unlocked. Work under the lease
	// runs on this context, so that a holder that was paused or cut off does
	// not write over its successor. It carries the values and the end of the
	// context that Lock was called with.
	//
	// The storages of this package look for the lease in the context of a
	// Store and refuse the store with ErrLeaseLost once the lease has ended,
	// even when the context was detached with context.WithoutCancel.
	Context() context.Context

	// Unlock releases the lease. It works although ctx has ended already: a
	// backend gives the release its own short time-out. Unlocking twice, or
	// after the lease was lost, frees nobody else's lock; a lost lease is
	// reported as ErrLeaseLost. The second Unlock of a lease that was not lost
	// does nothing and returns nil.
	Unlock(ctx context.Context) error
}

// leaseState is where a lease is in its life. It only moves away from held.
type leaseState int

const (
	leaseHeld leaseState = iota
	leaseUnlocked
	leaseLost
)

// leaseCore is what the leases of this package have in common. It lives in the
// context that the lease hands out, where Store finds it.
type leaseCore struct {
	name   string
	ctx    context.Context
	cancel context.CancelCauseFunc
	outer  *leaseCore   // the lease that Lock was called under, or nil
	verify func() error // asks the backend whether the lease is still held; may be nil

	mu    sync.Mutex // guards state
	state leaseState
}

// leaseKey is the context key of a *leaseCore.
type leaseKey struct{}

// newLeaseCore starts a lease on name whose context comes from ctx.
func newLeaseCore(ctx context.Context, name string, verify func() error) *leaseCore {
	l := &leaseCore{name: name, verify: verify}
	l.outer, _ = ctx.Value(leaseKey{}).(*leaseCore)
	l.ctx, l.cancel = context.WithCancelCause(context.WithValue(ctx, leaseKey{}, l))
	return l
}

// Context implements Lease.
func (l *leaseCore) Context() context.Context { return l.ctx }

// end moves the lease out of held and ends its context. It reports whether this
// call did it.
func (l *leaseCore) end(to leaseState) bool {
	l.mu.Lock()
	first := l.state == leaseHeld
	if first {
		l.state = to
	}
	l.mu.Unlock()
	if !first {
		return false
	}
	if to == leaseLost {
		l.cancel(l.lostError())
	} else {
		l.cancel(nil)
	}
	return true
}

// now returns the state of the lease.
func (l *leaseCore) now() leaseState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *leaseCore) lostError() error {
	return fmt.Errorf("holding lock %q: %w", l.name, ErrLeaseLost)
}

// ended is what the Unlock of a lease that is no longer held returns.
func (l *leaseCore) ended() error {
	if l.now() == leaseLost {
		return l.lostError()
	}
	return nil
}

// checkLeases returns an error that is ErrLeaseLost when a lease that ctx runs
// under has ended. A backend calls it right before it makes a store visible.
func checkLeases(ctx context.Context) error {
	l, _ := ctx.Value(leaseKey{}).(*leaseCore)
	for ; l != nil; l = l.outer {
		if l.now() != leaseHeld {
			return l.lostError()
		}
		if l.verify == nil {
			continue
		}
		if err := l.verify(); err != nil {
			return err
		}
	}
	return nil
}

// turns hands out one turn a name at a time, first come, first served, within
// this process. Its zero value is ready. Waiting is on a channel only.
type turns struct {
	mu    sync.Mutex // guards queue
	queue map[string][]chan struct{}
}

// take waits for the turn on name until ctx ends.
func (t *turns) take(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return endOf(ctx)
	}
	t.mu.Lock()
	waiters, taken := t.queue[name]
	if !taken {
		if t.queue == nil {
			t.queue = make(map[string][]chan struct{})
		}
		t.queue[name] = nil
		t.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	t.queue[name] = append(waiters, ready)
	t.mu.Unlock()

	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		if !t.leave(name, ready) {
			// The turn came at the same moment: pass it on.
			t.give(name)
		}
		return endOf(ctx)
	}
}

// leave takes a waiter out of the queue. It reports false when the waiter has
// been given its turn already.
func (t *turns) leave(name string, ready chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.queue[name], ready)
	if i < 0 {
		return false
	}
	t.queue[name] = slices.Delete(t.queue[name], i, i+1)
	return true
}

// give ends the turn on name and hands it to the one who waits longest.
func (t *turns) give(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiters := t.queue[name]
	if len(waiters) == 0 {
		delete(t.queue, name)
		return
	}
	t.queue[name] = waiters[1:]
	close(waiters[0])
}
