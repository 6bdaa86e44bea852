package certwright

import "context"

// Locker hands out leases: locks by name that only one holder has at a time,
// among all goroutines, processes and hosts that share the Locker. It is safe
// for concurrent use. A name follows the rules of a storage key.
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
	Context() context.Context

	// Unlock releases the lease. It works although ctx has ended already: a
	// backend gives the release its own short time-out. Unlocking twice, or
	// after the lease was lost, frees nobody else's lock; a lost lease is
	// reported as ErrLeaseLost.
	Unlock(ctx context.Context) error
}
