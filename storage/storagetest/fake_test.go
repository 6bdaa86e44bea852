package storagetest

import (
	"context"
	"testing"

	"github.com/certwright/certwright/storage"
)

// fakeStorage is a sound storage whose calls can be spoilt one by one.
type fakeStorage struct {
	*storage.Memory
	locks  *LosableLocker
	load   func(ctx context.Context, key string) ([]byte, error)
	store  func(ctx context.Context, key string, value []byte) error
	delete func(ctx context.Context, key string) error
	list   func(ctx context.Context, prefix string) ([]string, error)
	lock   func(ctx context.Context, name string) (storage.Lease, error)
}

func (f *fakeStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if f.load != nil {
		return f.load(ctx, key)
	}
	return f.Memory.Load(ctx, key)
}

func (f *fakeStorage) Store(ctx context.Context, key string, value []byte) error {
	if f.store != nil {
		return f.store(ctx, key, value)
	}
	return f.Memory.Store(ctx, key, value)
}

func (f *fakeStorage) Delete(ctx context.Context, key string) error {
	if f.delete != nil {
		return f.delete(ctx, key)
	}
	return f.Memory.Delete(ctx, key)
}

func (f *fakeStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if f.list != nil {
		return f.list(ctx, prefix)
	}
	return f.Memory.List(ctx, prefix)
}

func (f *fakeStorage) Lock(ctx context.Context, name string) (storage.Lease, error) {
	if f.lock != nil {
		return f.lock(ctx, name)
	}
	return f.locks.Lock(ctx, name)
}

// spoilt returns a backend whose storages have a fault each.
func spoilt(spoil func(f *fakeStorage, m *storage.Memory)) Backend {
	return Backend{Open: func(testing.TB) storage.Storage {
		m := storage.NewMemory()
		f := &fakeStorage{Memory: m, locks: &LosableLocker{Locker: m}}
		spoil(f, f.Memory)
		return f
	}}
}

// renamed makes a storage take key for another one.
func renamed(to func(string) string) Backend {
	return spoilt(func(f *fakeStorage, m *storage.Memory) {
		f.load = func(ctx context.Context, key string) ([]byte, error) { return m.Load(ctx, to(key)) }
		f.store = func(ctx context.Context, key string, value []byte) error { return m.Store(ctx, to(key), value) }
		f.delete = func(ctx context.Context, key string) error { return m.Delete(ctx, to(key)) }
	})
}

// relisted spoils the result of List.
func relisted(change func(m *storage.Memory, prefix string, keys []string) []string) Backend {
	return spoilt(func(f *fakeStorage, m *storage.Memory) {
		f.list = func(ctx context.Context, prefix string) ([]string, error) {
			keys, err := m.List(ctx, prefix)
			return change(m, prefix, keys), err
		}
	})
}

// fakeLease is a lease whose calls can be spoilt.
type fakeLease struct {
	storage.Lease
	ctx    context.Context
	unlock func(ctx context.Context) error
}

func (l *fakeLease) Context() context.Context {
	if l.ctx != nil {
		return l.ctx
	}
	return l.Lease.Context()
}

func (l *fakeLease) Unlock(ctx context.Context) error {
	if l.unlock != nil {
		return l.unlock(ctx)
	}
	return l.Lease.Unlock(ctx)
}

// spoiltLease returns a backend whose leases have a fault each.
func spoiltLease(spoil func(l *fakeLease, ctx context.Context)) Backend {
	b := spoilt(func(f *fakeStorage, _ *storage.Memory) {
		f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
			inner, err := f.locks.Lock(ctx, name)
			if err != nil {
				return nil, err
			}
			l := &fakeLease{Lease: inner}
			spoil(l, ctx)
			return l, nil
		}
	})
	b.Fences = true
	b.LoseLease = func(_ testing.TB, s storage.Storage, name string) { s.(*fakeStorage).locks.Lose(name) }
	return b
}

// freeAnyone makes Unlock end the lease of whoever holds the lock.
func freeAnyone(f *fakeStorage, _ *storage.Memory) {
	f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
		l, err := f.locks.Lock(ctx, name)
		if err != nil {
			return nil, err
		}
		return &fakeLease{Lease: l, unlock: func(context.Context) error { f.locks.Lose(name); return nil }}, nil
	}
}
