package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright"
)

// recorder is a testing.TB that takes down a check's failure instead of failing.
type recorder struct {
	testing.TB
	wait time.Duration // how long it waits for what must happen

	mu       sync.Mutex // guards failures, skipped, cleanups
	failures []string
	skipped  bool
	cleanups []func()
}

func (r *recorder) patience() time.Duration { return r.wait }

func (r *recorder) Helper()             {}
func (r *recorder) Log(...any)          {}
func (r *recorder) Logf(string, ...any) {}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatal(args ...any) {
	r.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(...any) {
	r.skipped = true
	runtime.Goexit()
}

// record runs one check and returns what it found wrong.
func record(t *testing.T, checks []check, name string, b Backend) []string {
	t.Helper()
	return recordFor(t, patience, find(t, checks, name), b)
}

func find(t *testing.T, checks []check, name string) check {
	t.Helper()
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no check %q", name)
	}
	return checks[i]
}

func recordFor(t *testing.T, wait time.Duration, c check, b Backend) []string {
	t.Helper()
	r := &recorder{TB: t, wait: wait}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(r, b)
	}()
	<-done
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
	if r.skipped {
		t.Fatalf("the check %q was skipped", c.name)
	}
	return r.failures
}

// wantCaught checks that the named check of the kit fails on b, and says why in
// words that contain about.
func wantCaught(t *testing.T, checks []check, name string, b Backend, about string) {
	t.Helper()
	failures := recordFor(t, 2*time.Second, find(t, checks, name), b)
	if len(failures) == 0 {
		t.Errorf("the check %q finds nothing wrong", name)
	} else if !strings.Contains(strings.Join(failures, "\n"), about) {
		t.Errorf("the check %q says nothing of %q:\n%s", name, about, strings.Join(failures, "\n"))
	}
}

// fakeStorage is a sound storage whose calls can be spoilt one by one.
type fakeStorage struct {
	*certwright.MemStorage
	load   func(ctx context.Context, key string) ([]byte, error)
	store  func(ctx context.Context, key string, value []byte) error
	delete func(ctx context.Context, key string) error
	list   func(ctx context.Context, prefix string) ([]string, error)
	lock   func(ctx context.Context, name string) (certwright.Lease, error)
}

func (f *fakeStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if f.load != nil {
		return f.load(ctx, key)
	}
	return f.MemStorage.Load(ctx, key)
}

func (f *fakeStorage) Store(ctx context.Context, key string, value []byte) error {
	if f.store != nil {
		return f.store(ctx, key, value)
	}
	return f.MemStorage.Store(ctx, key, value)
}

func (f *fakeStorage) Delete(ctx context.Context, key string) error {
	if f.delete != nil {
		return f.delete(ctx, key)
	}
	return f.MemStorage.Delete(ctx, key)
}

func (f *fakeStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if f.list != nil {
		return f.list(ctx, prefix)
	}
	return f.MemStorage.List(ctx, prefix)
}

func (f *fakeStorage) Lock(ctx context.Context, name string) (certwright.Lease, error) {
	if f.lock != nil {
		return f.lock(ctx, name)
	}
	return f.MemStorage.Lock(ctx, name)
}

// spoilt returns a backend whose storages have a fault each.
func spoilt(spoil func(f *fakeStorage, m *certwright.MemStorage)) Backend {
	return Backend{Open: func(testing.TB) certwright.Storage {
		f := &fakeStorage{MemStorage: certwright.NewMemStorage()}
		spoil(f, f.MemStorage)
		return f
	}}
}

// rename makes a storage take key for another one.
func renamed(to func(string) string) Backend {
	return spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
		f.load = func(ctx context.Context, key string) ([]byte, error) { return m.Load(ctx, to(key)) }
		f.store = func(ctx context.Context, key string, value []byte) error { return m.Store(ctx, to(key), value) }
		f.delete = func(ctx context.Context, key string) error { return m.Delete(ctx, to(key)) }
	})
}

// relisted spoils the result of List.
func relisted(change func(m *certwright.MemStorage, prefix string, keys []string) []string) Backend {
	return spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
		f.list = func(ctx context.Context, prefix string) ([]string, error) {
			keys, err := m.List(ctx, prefix)
			return change(m, prefix, keys), err
		}
	})
}

func TestSoundStorageIsNotCaught(t *testing.T) {
	b := spoilt(func(*fakeStorage, *certwright.MemStorage) {})
	b.Break = func(_ testing.TB, s certwright.Storage) func() {
		f := s.(*fakeStorage)
		down := errors.New("connection refused")
		f.load = func(context.Context, string) ([]byte, error) { return nil, down }
		f.store = func(context.Context, string, []byte) error { return down }
		f.delete = func(context.Context, string) error { return down }
		f.list = func(context.Context, string) ([]string, error) { return nil, down }
		return func() { f.load, f.store, f.delete, f.list = nil, nil, nil, nil }
	}
	for _, c := range storageChecks() {
		if c.name == "Reopen" || c.name == "Processes" {
			continue
		}
		if failures := record(t, storageChecks(), c.name, b); len(failures) > 0 {
			t.Errorf("the check %q finds fault with a sound storage:\n%s", c.name, strings.Join(failures, "\n"))
		}
	}
}

func TestBrokenStorageIsCaught(t *testing.T) {
	tests := []struct {
		name, check, about string
		backend            Backend
	}{
		{"missing is no error", "Missing", "fs.ErrNotExist", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.load = func(ctx context.Context, key string) ([]byte, error) {
				v, err := m.Load(ctx, key)
				if errors.Is(err, fs.ErrNotExist) {
					return nil, nil
				}
				return v, err
			}
		})},
		{"missing cannot be deleted", "Missing", "Delete", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.delete = func(ctx context.Context, key string) error {
				if _, err := m.Load(ctx, key); err != nil {
					return err
				}
				return m.Delete(ctx, key)
			}
		})},
		{"an empty value is missing", "Values", "Load", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.load = func(ctx context.Context, key string) ([]byte, error) {
				v, err := m.Load(ctx, key)
				if err == nil && len(v) == 0 {
					err = fs.ErrNotExist
				}
				return v, err
			}
		})},
		{"values are cut", "Values", "bytes", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				return m.Store(ctx, key, value[:min(len(value), 65535)])
			}
		})},
		{"a second store is ignored", "Replace", "second", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				if _, err := m.Load(ctx, key); err == nil {
					return nil
				}
				return m.Store(ctx, key, value)
			}
		})},
		{"the prefix is a string's", "Prefixes", "List(\"a\")", relisted(func(m *certwright.MemStorage, prefix string, _ []string) []string {
			keys, _ := m.List(context.Background(), "")
			return slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, prefix) || key == prefix })
		})},
		{"the list stops a level below", "Prefixes", "a/b/c", relisted(func(_ *certwright.MemStorage, prefix string, keys []string) []string {
			return slices.DeleteFunc(keys, func(key string) bool { return strings.Contains(strings.TrimPrefix(key, prefix+"/"), "/") })
		})},
		{"the list is not sorted", "Prefixes", "List", relisted(func(_ *certwright.MemStorage, _ string, keys []string) []string {
			slices.Reverse(keys)
			return keys
		})},
		{"the list is one page", "ManyKeys", "keys of", relisted(func(_ *certwright.MemStorage, _ string, keys []string) []string {
			return keys[:min(len(keys), 1000)]
		})},
		{"case is folded", "OddKeys", "CASE", renamed(strings.ToLower)},
		{"a colon is replaced", "OddKeys", "a:b", renamed(func(key string) string { return strings.ReplaceAll(key, ":", "-") })},
		{"the wildcard is a word", "OddKeys", "*", renamed(func(key string) string { return strings.ReplaceAll(key, "*", "wildcard_") })},
		{"an escape is taken for granted", "OddKeys", "%2f", renamed(func(key string) string { return strings.ReplaceAll(key, "%2f", "/") })},
		{"long names are cut", "OddKeys", "long", renamed(func(key string) string { return strings.TrimSuffix(key[:min(len(key), 128)], "/") })},
		{"bad keys are cleaned", "BadKeys", "a//b", renamed(func(key string) string { return strings.Trim(path.Clean(key), "/.") })},
		{"slices are shared", "OwnSlices", "value", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			shared := map[string][]byte{}
			f.store = func(_ context.Context, key string, value []byte) error { shared[key] = value; return nil }
			f.load = func(_ context.Context, key string) ([]byte, error) { return shared[key], nil }
		})},
		{"delete takes all below", "Delete", "a/b/c", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.delete = func(ctx context.Context, key string) error {
				keys, err := m.List(ctx, key)
				for _, k := range keys {
					err = errors.Join(err, m.Delete(ctx, k))
				}
				return errors.Join(err, m.Delete(ctx, key))
			}
		})},
		{"the context is not looked at", "EndedContext", "ended context", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.load = func(_ context.Context, key string) ([]byte, error) { return m.Load(context.Background(), key) }
		})},
		{"a store is torn", "WholeValues", "nobody stored", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				err := m.Store(ctx, key, value[:len(value)/2])
				runtime.Gosched()
				return errors.Join(err, m.Store(ctx, key, value))
			}
		})},
		{"a store removes first", "WholeValues", "Load beside a writer", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				if bytes.Equal(value, stamped(0)) {
					return m.Store(ctx, key, value)
				}
				err := m.Delete(ctx, key)
				runtime.Gosched()
				return errors.Join(err, m.Store(ctx, key, value))
			}
		})},
		{"neighbours are deleted", "Neighbours", "missing", spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
			f.delete = func(ctx context.Context, key string) error {
				return errors.Join(m.Delete(ctx, key), m.Delete(ctx, "a/stays"))
			}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantCaught(t, storageChecks(), tt.check, tt.backend, tt.about) })
	}
}

// A backend that cannot be reached and says "missing" is caught.
func TestFoldedErrorIsCaught(t *testing.T) {
	b := spoilt(func(*fakeStorage, *certwright.MemStorage) {})
	b.Break = func(_ testing.TB, s certwright.Storage) func() {
		f := s.(*fakeStorage)
		down := errors.New("connection refused")
		f.load = func(context.Context, string) ([]byte, error) {
			return nil, fmt.Errorf("%w: %w", down, fs.ErrNotExist)
		}
		f.store = func(context.Context, string, []byte) error { return down }
		f.delete = func(context.Context, string) error { return down }
		f.list = func(context.Context, string) ([]string, error) { return nil, nil }
		return func() { f.load, f.store, f.delete, f.list = nil, nil, nil, nil }
	}
	wantCaught(t, storageChecks(), "Broken", b, "passes for a missing value")
	wantCaught(t, storageChecks(), "Broken", b, "List of a broken backend gives no error")
}

// A storage that forgets is caught by a reopen.
func TestForgetfulStorageIsCaught(t *testing.T) {
	b := spoilt(func(*fakeStorage, *certwright.MemStorage) {})
	b.Address = func(testing.TB) string { return "" }
	b.Opener = Opener{Open: func(string) (certwright.Storage, error) { return certwright.NewMemStorage(), nil }}
	wantCaught(t, storageChecks(), "Reopen", b, `Load("a")`)
	wantCaught(t, lockerChecks(), "Instances", b, "two held the lock at once")
}

// fakeLease is a lease whose calls can be spoilt.
type fakeLease struct {
	certwright.Lease
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
	b := spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
		f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
			inner, err := m.Lock(ctx, name)
			if err != nil {
				return nil, err
			}
			l := &fakeLease{Lease: inner}
			spoil(l, ctx)
			return l, nil
		}
	})
	b.Fences = true
	b.LoseLease = func(_ testing.TB, s certwright.Storage, name string) { s.(*fakeStorage).LoseLease(name) }
	return b
}

func TestSoundLockerIsNotCaught(t *testing.T) {
	b := spoiltLease(func(*fakeLease, context.Context) {})
	b.Residue = func(testing.TB, certwright.Storage) int { return 0 }
	for _, c := range lockerChecks() {
		switch c.name {
		case "Held", "Instances", "ExclusionOfProcesses", "Killed", "Stopped":
			continue
		}
		if failures := record(t, lockerChecks(), c.name, b); len(failures) > 0 {
			t.Errorf("the check %q finds fault with a sound locker:\n%s", c.name, strings.Join(failures, "\n"))
		}
	}
}

func TestBrokenLeaseIsCaught(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, check, about string
		spoil              func(l *fakeLease, ctx context.Context)
	}{
		{"the context never ends", "LeaseContext", "does not end after Unlock", func(l *fakeLease, ctx context.Context) {
			l.ctx = ctx
		}},
		{"the context loses its values", "LeaseContext", "has the value", func(l *fakeLease, _ context.Context) {
			l.ctx = context.Background()
		}},
		{"unlock looks at its context", "UnlockEndedContext", "Unlock with an ended context", func(l *fakeLease, _ context.Context) {
			l.unlock = func(ctx context.Context) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return l.Lease.Unlock(ctx)
			}
		}},
		{"unlock leaks with an ended context", "UnlockEndedContext", "Lock(", func(l *fakeLease, _ context.Context) {
			l.unlock = func(ctx context.Context) error {
				if ctx.Err() != nil {
					return nil
				}
				return l.Lease.Unlock(ctx)
			}
		}},
		{"the loss is not told", "LostLease", "does not end", func(l *fakeLease, _ context.Context) {
			l.ctx = context.WithoutCancel(l.Lease.Context())
		}},
		{"unlock of a lost lease is fine", "LostLease", "ErrLeaseLost", func(l *fakeLease, _ context.Context) {
			l.unlock = func(ctx context.Context) error { _ = l.Lease.Unlock(ctx); return nil }
		}},
		{"a late store goes through", "LateStore", "late", func(l *fakeLease, ctx context.Context) {
			l.ctx = ctx
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantCaught(t, lockerChecks(), tt.check, spoiltLease(tt.spoil), tt.about)
		})
	}
}

func TestBrokenLockerIsCaught(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, check, about string
		spoil              func(f *fakeStorage, m *certwright.MemStorage)
	}{
		{"nothing is locked", "Exclusion", "at once", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, _ string) (certwright.Lease, error) {
				return certwright.NewMemStorage().Lock(ctx, "own")
			}
		}},
		{"neither lease nor error", "LeaseContext", "", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(context.Context, string) (certwright.Lease, error) { return nil, errors.New("taken") }
		}},
		{"a held lock is an error", "NotReentrant", "want to wait", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				now, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				l, err := m.Lock(now, name)
				if err != nil {
					return nil, errors.New("taken")
				}
				return &fakeLease{Lease: l, ctx: ctx}, nil
			}
		}},
		{"the holder gets it again", "NotReentrant", "<nil>", func(f *fakeStorage, m *certwright.MemStorage) {
			type held struct{}
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				if l, ok := ctx.Value(held{}).(certwright.Lease); ok {
					return l, nil
				}
				l, err := m.Lock(ctx, name)
				if err != nil {
					return nil, err
				}
				return &fakeLease{Lease: l, ctx: context.WithValue(l.Context(), held{}, l)}, nil
			}
		}},
		{"unlock frees whoever holds", "UnlockTwice", "while another holds it", freeAnyone},
		{"a wait that ends leaves its place taken", "WaitEnds", "Lock(", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				got := make(chan certwright.Lease, 1)
				go func() {
					l, err := m.Lock(context.WithoutCancel(ctx), name)
					if err == nil {
						got <- l
					}
				}()
				select {
				case l := <-got:
					return l, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
		}},
		{"a wait does not end with its context", "WaitEnds", "goes on", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				slow, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*promptly)
				defer cancel()
				l, err := m.Lock(slow, name)
				if err != nil {
					return nil, err
				}
				return &fakeLease{Lease: l, ctx: ctx}, nil
			}
		}},
		{"an ended context locks", "EndedContext", "Lock with an ended context", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				return m.Lock(context.WithoutCancel(ctx), name)
			}
		}},
		{"names are cut", "Names", "Lock(", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				return m.Lock(ctx, name[:min(1, len(name))])
			}
		}},
		{"locks show among the values", "Hidden", "v1/a", func(f *fakeStorage, m *certwright.MemStorage) {
			f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
				return &fakeLease{Lease: nil, ctx: ctx, unlock: func(context.Context) error { return nil }}, m.Store(ctx, "locks/"+name, nil)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantCaught(t, lockerChecks(), tt.check, spoilt(tt.spoil), tt.about)
		})
	}
}

// freeAnyone makes Unlock end the lease of whoever holds the lock.
func freeAnyone(f *fakeStorage, m *certwright.MemStorage) {
	f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
		l, err := m.Lock(ctx, name)
		if err != nil {
			return nil, err
		}
		return &fakeLease{Lease: l, unlock: func(context.Context) error { m.LoseLease(name); return nil }}, nil
	}
}

// Locks that leave something behind are caught.
func TestResidueIsCaught(t *testing.T) {
	var mu sync.Mutex
	used := map[string]bool{}
	b := spoilt(func(f *fakeStorage, m *certwright.MemStorage) {
		f.lock = func(ctx context.Context, name string) (certwright.Lease, error) {
			mu.Lock()
			used[name] = true
			mu.Unlock()
			return m.Lock(ctx, name)
		}
	})
	b.Residue = func(testing.TB, certwright.Storage) int { mu.Lock(); defer mu.Unlock(); return len(used) }
	wantCaught(t, lockerChecks(), "Residue", b, "behind")
}
