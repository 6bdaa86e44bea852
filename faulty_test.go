package certwright_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/storage"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage/storagetest"
)

// call is one call of a storage.
type call struct {
	n   int    // counted from 1 since the hook was set
	op  string // load, store, delete, list
	key string // or prefix
}

// fault is what becomes of a call; the zero fault is none.
type fault struct {
	delay time.Duration
	err   error
	late  bool                    // err comes after the call was carried out
	torn  bool                    // a store that fails leaves half of the value, a load returns half
	stale bool                    // a load returns the value before the last store
	list  func([]string) []string // edits a list
}

// faulty is a storage whose calls can fail.
type faulty struct {
	*storage.Memory
	locks *storagetest.LosableLocker

	mu    sync.Mutex // guards what follows
	hook  func(call) fault
	calls []call
	old   map[string][]byte
}

func newFaulty(m *storage.Memory) *faulty {
	return &faulty{Memory: m, locks: &storagetest.LosableLocker{Locker: m}, old: map[string][]byte{}}
}

// set has hook asked about each call from now on, with mu held, and forgets the
// calls so far.
func (f *faulty) set(hook func(call) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook, f.calls = hook, nil
}

// seen returns the calls since set.
func (f *faulty) seen() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *faulty) begin(ctx context.Context, op, key string) fault {
	f.mu.Lock()
	c := call{n: len(f.calls) + 1, op: op, key: key}
	f.calls = append(f.calls, c)
	var fl fault
	if f.hook != nil {
		fl = f.hook(c)
	}
	f.mu.Unlock()
	if fl.delay > 0 && waitFor(ctx, fl.delay) != nil {
		fl.err, fl.late = ctx.Err(), false
	}
	return fl
}

// Lock implements Locker.
func (f *faulty) Lock(ctx context.Context, name string) (Lease, error) {
	return f.locks.Lock(ctx, name)
}

func (f *faulty) Load(ctx context.Context, key string) ([]byte, error) {
	fl := f.begin(ctx, "load", key)
	if fl.err != nil && !fl.torn {
		return nil, fl.err
	}
	value, err := f.Memory.Load(ctx, key)
	if fl.torn {
		return value[:len(value)/2], err
	}
	if fl.stale {
		f.mu.Lock()
		old, ok := f.old[key]
		f.mu.Unlock()
		if ok && old != nil {
			return old, nil
		}
		if ok {
			return f.Memory.Load(ctx, "nothing/here")
		}
	}
	return value, err
}

func (f *faulty) Store(ctx context.Context, key string, value []byte) error {
	fl := f.begin(ctx, "store", key)
	if fl.err != nil && !fl.late && !fl.torn {
		return fl.err
	}
	if fl.torn {
		value = value[:len(value)/2]
	}
	old, err := f.Memory.Load(ctx, key)
	if err != nil {
		old = nil
	}
	if err := f.Memory.Store(ctx, key, value); err != nil {
		return err
	}
	f.mu.Lock()
	f.old[key] = old
	f.mu.Unlock()
	return fl.err
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	fl := f.begin(ctx, "delete", key)
	if fl.err != nil && !fl.late {
		return fl.err
	}
	if err := f.Memory.Delete(ctx, key); err != nil {
		return err
	}
	return fl.err
}

func (f *faulty) List(ctx context.Context, prefix string) ([]string, error) {
	fl := f.begin(ctx, "list", prefix)
	if fl.err != nil && fl.list == nil {
		return nil, fl.err
	}
	keys, err := f.Memory.List(ctx, prefix)
	if fl.list != nil {
		keys = fl.list(keys)
	}
	return keys, err
}

// wrongList is what a backend answers that does not keep the contract: keys of
// other prefixes, keys that are not there, folders, twice the same.
func wrongList(keys []string) []string {
	wrong := []string{"v1/state", "v1/accounts/ca/account", "v1/certs/x", "v1/state/nobody.test", "/", "", "v1/stat", "v2/state/a.test"}
	return append(append(wrong, keys...), keys...)
}

// waitFor waits for d, or until ctx ends.
func waitFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
