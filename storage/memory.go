package storage

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync"
)

// Memory is a Storage and a Locker in the memory of one process, for tests
// and for programs that may lose everything when they end. Nothing in it is
// durable. It waits on channels only, so that it works in a testing/synctest
// bubble. It is safe for concurrent use. Its zero value is not usable: call
// NewMemory.
type Memory struct {
	mu     sync.Mutex // guards the fields below
	values map[string][]byte
	keys   []string                 // those of values, sorted: List is asked every half a minute
	locks  map[string]chan struct{} // by name; holds a value while the lock is held
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		values: make(map[string][]byte),
		locks:  make(map[string]chan struct{}),
	}
}

// Load implements Storage.
func (m *Memory) Load(ctx context.Context, key string) ([]byte, error) {
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
func (m *Memory) Store(ctx context.Context, key string, value []byte) error {
	if err := checkCall(ctx, "storing", key); err != nil {
		return err
	}
	value = append([]byte{}, value...)
	if err := LeaseErr(ctx); err != nil {
		return fmt.Errorf("storing key %q: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[key]; !ok {
		at, _ := slices.BinarySearch(m.keys, key)
		m.keys = slices.Insert(m.keys, at, key)
	}
	m.values[key] = value
	return nil
}

// Delete implements Storage. It is refused as a store is.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := checkCall(ctx, "deleting", key); err != nil {
		return err
	}
	if err := LeaseErr(ctx); err != nil {
		return fmt.Errorf("deleting key %q: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := slices.BinarySearch(m.keys, key); ok {
		m.keys = slices.Delete(m.keys, at, at+1)
	}
	delete(m.values, key)
	return nil
}

// List implements Storage.
func (m *Memory) List(ctx context.Context, prefix string) ([]string, error) {
	if err := checkList(ctx, prefix); err != nil {
		return nil, err
	}
	first := prefix
	if prefix != "" {
		first += "/"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	from, _ := slices.BinarySearch(m.keys, first)
	to := from
	for to < len(m.keys) && below(m.keys[to], prefix) {
		to++
	}
	return slices.Clone(m.keys[from:to]), nil
}

// Lock implements Locker. Waiters get the lock in the order in which they came.
func (m *Memory) Lock(ctx context.Context, name string) (Lease, error) {
	if err := checkCall(ctx, "locking", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	held := m.locks[name]
	if held == nil {
		held = make(chan struct{}, 1)
		m.locks[name] = held
	}
	m.mu.Unlock()
	select {
	case held <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("locking name %q: %w", name, endOf(ctx))
	}
	return NewLease(ctx, name, LeaseOptions{Release: func(context.Context) error {
		<-held
		return nil
	}}), nil
}
