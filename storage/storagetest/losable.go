package storagetest

import (
	"context"
	"sync"

	"github.com/certwright/certwright/storage"
)

// LosableLocker is a Locker around another one, whose leases a test can have
// lost. It is safe for concurrent use. Its zero value is not usable: set Locker.
type LosableLocker struct {
	Locker storage.Locker

	mu   sync.Mutex         // guards held
	held map[string]losable // by name of the lock
}

// losable is a lease within the one that its holder has.
type losable struct {
	outer *storage.HeldLease
	inner storage.Lease
}

// Lock implements storage.Locker.
func (l *LosableLocker) Lock(ctx context.Context, name string) (storage.Lease, error) {
	inner, err := l.Locker.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	outer := storage.NewLease(inner.Context(), name, storage.LeaseOptions{Release: func(ctx context.Context) error {
		l.mu.Lock()
		delete(l.held, name)
		l.mu.Unlock()
		return inner.Unlock(ctx)
	}})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[string]losable)
	}
	l.held[name] = losable{outer, inner}
	return outer, nil
}

// Lose makes whoever holds the named lock lose it, as a pause or a cut network
// does: its context ends, its stores are refused, its Unlock returns
// storage.ErrLeaseLost, and the lock goes to the next in line. It reports whether
// the lock was held.
func (l *LosableLocker) Lose(name string) bool {
	l.mu.Lock()
	h, ok := l.held[name]
	delete(l.held, name)
	l.mu.Unlock()
	if !ok || !h.outer.Lose() {
		return false
	}
	_ = h.inner.Unlock(context.Background()) // the next in line waits for it
	return true
}
