package certwright

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// MemStorage is a Storage and a Locker in the memory of one process, for tests
// and for programs that may lose everything when they end. Nothing in it is
// durable. It starts no goroutine and waits on channels only, so that it works
// in a testing/synctest bubble. It is safe for concurrent use. Its zero value
// is not usable: call NewMemStorage.
type MemStorage struct {
	turns turns

	mu     sync.Mutex // guards values, leases
	values map[string][]byte
	leases map[string]*memLease // by name of the lock, while held
}

// NewMemStorage returns an empty MemStorage.
func NewMemStorage() *MemStorage {
	return &MemStorage{
		values: make(map[string][]byte),
		leases: make(map[string]*memLease),
	}
}

// Load implements Storage.
func (m *MemStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := checkCall(ctx, "loading", key); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.values[key]
	if !ok {
		return nil, fmt.Errorf("loading key %q: %w", key, fs.ErrNotExist)
	}
	return bytes.Clone(value), nil
}

// Store implements Storage. A store under a lease that has ended is refused
// with ErrLeaseLost.
func (m *MemStorage) Store(ctx context.Context, key string, value []byte) error {
	if err := checkCall(ctx, "storing", key); err != nil {
		return err
	}
	value = append([]byte{}, value...)
	if err := checkLeases(ctx); err != nil {
		return fmt.Errorf("storing key %q: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = value
	return nil
}

// Delete implements Storage.
func (m *MemStorage) Delete(ctx context.Context, key string) error {
	if err := checkCall(ctx, "deleting", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

// List implements Storage.
func (m *MemStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := checkList(ctx, prefix); err != nil {
		return nil, err
	}
	m.mu.Lock()
	keys := slices.Collect(maps.Keys(m.values))
	m.mu.Unlock()
	keys = slices.DeleteFunc(keys, func(key string) bool { return !below(key, prefix) })
	slices.Sort(keys)
	return keys, nil
}

// Lock implements Locker. Waiters get the lock in the order in which they came.
func (m *MemStorage) Lock(ctx context.Context, name string) (Lease, error) {
	if err := checkCall(ctx, "locking", name); err != nil {
		return nil, err
	}
	if err := m.turns.take(ctx, name); err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	l := &memLease{leaseCore: newLeaseCore(ctx, name, nil), storage: m}
	m.mu.Lock()
	m.leases[name] = l
	m.mu.Unlock()
	return l, nil
}

// LoseLease makes whoever holds the named lock lose it, as a pause or a cut
// network does with other backends: its context ends, its stores are refused,
// its Unlock returns ErrLeaseLost, and the lock goes to the next in line. It
// reports whether the lock was held.
func (m *MemStorage) LoseLease(name string) bool {
	m.mu.Lock()
	l := m.leases[name]
	m.mu.Unlock()
	return l != nil && l.release(leaseLost)
}

// memLease is a Lease of a MemStorage.
type memLease struct {
	*leaseCore
	storage *MemStorage
}

// Unlock implements Lease.
func (l *memLease) Unlock(context.Context) error {
	if l.release(leaseUnlocked) {
		return nil
	}
	return l.ended()
}

// release ends the lease and hands on its lock. It reports whether this call
// did it.
func (l *memLease) release(to leaseState) bool {
	if !l.end(to) {
		return false
	}
	m := l.storage
	m.mu.Lock()
	delete(m.leases, l.name)
	m.mu.Unlock()
	m.turns.give(l.name)
	return true
}
