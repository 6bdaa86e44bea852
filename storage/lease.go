package storage

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/guard"
)

// ErrLeaseLost means that a lease ended before it was unlocked.
var ErrLeaseLost = errors.New("lease lost")

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
// Backends make theirs with [NewLease].
type Lease interface {
	// Context ends when the lease is lost or unlocked. Work under the lease
	// runs on this context, so that a holder that was paused or cut off does
	// not write over its successor. It carries the values and the end of the
	// context that Lock was called with.
	//
	// The storages of this module look for the lease in the context of a Store
	// or Delete and refuse it with ErrLeaseLost once the lease has ended, even
	// when the context was detached with context.WithoutCancel.
	Context() context.Context

	// Unlock releases the lease. It works although ctx has ended already: a
	// backend gives the release its own short time-out. Unlocking twice, or
	// after the lease was lost, frees nobody else's lock; a lost lease is
	// reported as ErrLeaseLost. The second Unlock of a lease that was not lost
	// does nothing and returns nil.
	Unlock(ctx context.Context) error
}

// LeaseOptions is what a backend has to say of a lease that it hands out. Its
// zero value is right for a lock that nothing but the HeldLease itself stands
// for.
type LeaseOptions struct {
	// Token is what the backend can fence a Store or Delete with: a number that
	// grows with each holder, a row's ID. LeaseTokens finds it. A type of the
	// backend's own tells it from those of others. nil means none.
	Token any

	// Verify asks the backend whether the lease is still held. It returns an
	// error that is ErrLeaseLost when it is not, and another error when that
	// cannot be told. LeaseErr calls it, from any goroutine. nil means that the
	// lease is held until Lose or Unlock.
	Verify func() error

	// Release gives the lock up at the backend. The first Unlock calls it, in a
	// goroutine of its own, unless the lease was lost. ctx is not ended when it
	// starts and ends after ten seconds. An error that is ErrLeaseLost says
	// that the lock was another's already. nil means that there is nothing to
	// give up.
	Release func(ctx context.Context) error
}

// HeldLease is a Lease as a backend makes it. It is safe for concurrent use. Its
// zero value is not usable: call NewLease.
type HeldLease struct {
	name    string
	options LeaseOptions
	ctx     context.Context
	cancel  context.CancelCauseFunc
	outer   *HeldLease   // the lease that Lock was called under, or nil
	state   atomic.Int32 // one of those below
}

// A lease moves away from held once, and from unlocked only when the release
// finds that the lock was lost before.
const (
	leaseHeld int32 = iota
	leaseUnlocked
	leaseLost
)

// releasePatience bounds the release of a lock by a backend that hangs.
const releasePatience = 10 * time.Second

// leaseKey is the context key of a *HeldLease.
type leaseKey struct{}

// NewLease returns a lease on the named lock, which the backend has got for the
// caller of Lock, whose context is ctx.
func NewLease(ctx context.Context, name string, options LeaseOptions) *HeldLease {
	l := &HeldLease{name: name, options: options}
	l.outer, _ = ctx.Value(leaseKey{}).(*HeldLease)
	l.ctx, l.cancel = context.WithCancelCause(context.WithValue(ctx, leaseKey{}, l))
	return l
}

// Context implements Lease.
func (l *HeldLease) Context() context.Context { return l.ctx }

// Lose ends the lease as lost. The backend calls it when the lock is another's,
// or cannot be kept. It reports whether this call ended the lease.
func (l *HeldLease) Lose() bool { return l.end(leaseLost) }

// Held reports whether the lease has neither been lost nor unlocked, as far as
// is known without asking the backend.
func (l *HeldLease) Held() bool { return l.state.Load() == leaseHeld }

// Unlock implements Lease. It returns within ten seconds, whatever becomes of
// ctx and whatever Release does.
func (l *HeldLease) Unlock(ctx context.Context) error {
	if !l.end(leaseUnlocked) {
		if l.state.Load() == leaseLost {
			return l.lostError()
		}
		return nil
	}
	if l.options.Release == nil {
		return nil
	}
	err := inTime(context.WithoutCancel(ctx), releasePatience, l.options.Release)
	if errors.Is(err, ErrLeaseLost) {
		l.state.Store(leaseLost)
	}
	if err != nil {
		return fmt.Errorf("unlocking name %q: %w", l.name, err)
	}
	return nil
}

// inTime returns what do returns, or an error when that takes longer than patience.
// A panic is an error too.
func inTime(ctx context.Context, patience time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case err := <-guard.Call(nil, "it", func() error { return do(ctx) }):
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer for %v: %w", patience, ctx.Err())
	}
}

// end moves the lease out of held and ends its context. It reports whether this
// call did it.
func (l *HeldLease) end(to int32) bool {
	if !l.state.CompareAndSwap(leaseHeld, to) {
		return false
	}
	var cause error
	if to == leaseLost {
		cause = l.lostError()
	}
	l.cancel(cause)
	return true
}

func (l *HeldLease) lostError() error {
	return fmt.Errorf("holding lock %q: %w", l.name, ErrLeaseLost)
}

// LeaseErr returns nil when every lease that ctx runs under is still held, and
// otherwise an error that is ErrLeaseLost, or another when a backend could not
// tell. It finds the leases made with [NewLease], in a context detached with
// context.WithoutCancel too. A backend calls it right before it makes a store
// visible or deletes.
func LeaseErr(ctx context.Context) error {
	l, _ := ctx.Value(leaseKey{}).(*HeldLease)
	for ; l != nil; l = l.outer {
		if !l.Held() {
			return l.lostError()
		}
		if l.options.Verify == nil {
			continue
		}
		if err := l.options.Verify(); err != nil {
			return err
		}
	}
	return nil
}

// LeaseToken is the fencing token of one lease.
type LeaseToken struct {
	Name  string // of the lock
	Value any    // the Token of its LeaseOptions
}

// LeaseTokens returns the tokens of the leases that ctx runs under, the
// innermost first. Those of other backends are among them; leases without a
// token are not. A backend that can compare a token in the same step in which
// it stores or deletes excludes a late holder for certain.
func LeaseTokens(ctx context.Context) []LeaseToken {
	var tokens []LeaseToken
	l, _ := ctx.Value(leaseKey{}).(*HeldLease)
	for ; l != nil; l = l.outer {
		if l.options.Token != nil {
			tokens = append(tokens, LeaseToken{Name: l.name, Value: l.options.Token})
		}
	}
	return tokens
}
