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
	"testing"

	"github.com/certwright/certwright/storage"
)

func TestSoundStorageIsNotCaught(t *testing.T) {
	b := spoilt(func(*fakeStorage, *storage.Memory) {})
	b.Break = func(_ testing.TB, s storage.Storage) func() {
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
	t.Parallel()
	wantAllCaught(t, storageChecks(), missingFaults())
	wantAllCaught(t, storageChecks(), valueFaults())
	wantAllCaught(t, storageChecks(), listFaults())
	wantAllCaught(t, storageChecks(), keyFaults())
	wantAllCaught(t, storageChecks(), writeFaults())
}

// missingFaults are about values that are not there.
func missingFaults() []fault {
	return []fault{
		{"missing is no error", "Missing", "fs.ErrNotExist", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.load = func(ctx context.Context, key string) ([]byte, error) {
				v, err := m.Load(ctx, key)
				if errors.Is(err, fs.ErrNotExist) {
					return nil, nil
				}
				return v, err
			}
		})},
		{"missing cannot be deleted", "Missing", "Delete", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.delete = func(ctx context.Context, key string) error {
				if _, err := m.Load(ctx, key); err != nil {
					return err
				}
				return m.Delete(ctx, key)
			}
		})},
		{"an empty value is missing", "Values", "Load", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.load = func(ctx context.Context, key string) ([]byte, error) {
				v, err := m.Load(ctx, key)
				if err == nil && len(v) == 0 {
					err = fs.ErrNotExist
				}
				return v, err
			}
		})},
	}
}

// valueFaults are about what is stored and loaded.
func valueFaults() []fault {
	return []fault{
		{"values are cut", "Values", "bytes", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				return m.Store(ctx, key, value[:min(len(value), largest-1)])
			}
		})},
		{"a second store is ignored", "Replace", "second", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				if _, err := m.Load(ctx, key); err == nil {
					return nil
				}
				return m.Store(ctx, key, value)
			}
		})},
		{"slices are shared", "OwnSlices", "value", spoilt(func(f *fakeStorage, m *storage.Memory) {
			shared := map[string][]byte{}
			f.store = func(_ context.Context, key string, value []byte) error { shared[key] = value; return nil }
			f.load = func(_ context.Context, key string) ([]byte, error) { return shared[key], nil }
		})},
		{"the context is not looked at", "EndedContext", "ended context", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.load = func(_ context.Context, key string) ([]byte, error) { return m.Load(context.Background(), key) }
		})},
	}
}

// listFaults are about List.
func listFaults() []fault {
	return []fault{
		{"the prefix is a string's", "Prefixes", "List(\"a\")", relisted(func(m *storage.Memory, prefix string, _ []string) []string {
			keys, _ := m.List(context.Background(), "")
			return slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, prefix) || key == prefix })
		})},
		{"the list stops a level below", "Prefixes", "a/b/c", relisted(func(_ *storage.Memory, prefix string, keys []string) []string {
			return slices.DeleteFunc(keys, func(key string) bool { return strings.Contains(strings.TrimPrefix(key, prefix+"/"), "/") })
		})},
		{"the list is not sorted", "Prefixes", "List", relisted(func(_ *storage.Memory, _ string, keys []string) []string {
			slices.Reverse(keys)
			return keys
		})},
		{"the list is one page", "ManyKeys", "keys of", relisted(func(_ *storage.Memory, _ string, keys []string) []string {
			return keys[:min(len(keys), 1000)]
		})},
	}
}

// keyFaults are keys that are taken for others.
func keyFaults() []fault {
	return []fault{
		{"case is folded", "OddKeys", "CASE", renamed(strings.ToLower)},
		{"a colon is replaced", "OddKeys", "a:b", renamed(func(key string) string { return strings.ReplaceAll(key, ":", "-") })},
		{"the wildcard is a word", "OddKeys", "*", renamed(func(key string) string { return strings.ReplaceAll(key, "*", "wildcard_") })},
		{"an escape is taken for granted", "OddKeys", "%2f", renamed(func(key string) string { return strings.ReplaceAll(key, "%2f", "/") })},
		{"long names are cut", "OddKeys", "long", renamed(func(key string) string { return strings.TrimSuffix(key[:min(len(key), 128)], "/") })},
		{"bad keys are cleaned", "BadKeys", "a//b", renamed(func(key string) string { return strings.Trim(path.Clean(key), "/.") })},
	}
}

// writeFaults are about what a write does to others.
func writeFaults() []fault {
	return []fault{
		{"delete takes all below", "Delete", "a/b/c", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.delete = func(ctx context.Context, key string) error {
				keys, err := m.List(ctx, key)
				for _, k := range keys {
					err = errors.Join(err, m.Delete(ctx, k))
				}
				return errors.Join(err, m.Delete(ctx, key))
			}
		})},
		{"a store is torn", "WholeValues", "nobody stored", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				err := m.Store(ctx, key, value[:len(value)/2])
				runtime.Gosched()
				return errors.Join(err, m.Store(ctx, key, value))
			}
		})},
		{"a store removes first", "WholeValues", "Load beside a writer", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.store = func(ctx context.Context, key string, value []byte) error {
				if bytes.Equal(value, stamped(0)) {
					return m.Store(ctx, key, value)
				}
				err := m.Delete(ctx, key)
				runtime.Gosched()
				return errors.Join(err, m.Store(ctx, key, value))
			}
		})},
		{"neighbours are deleted", "Neighbours", "missing", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.delete = func(ctx context.Context, key string) error {
				return errors.Join(m.Delete(ctx, key), m.Delete(ctx, "a/stays"))
			}
		})},
	}
}

// A backend that cannot be reached and says "missing" is caught.
func TestFoldedErrorIsCaught(t *testing.T) {
	b := spoilt(func(*fakeStorage, *storage.Memory) {})
	b.Break = func(_ testing.TB, s storage.Storage) func() {
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
	wantCaught(t, storageChecks(), fault{check: "Broken", about: "passes for a missing value", backend: b})
	wantCaught(t, storageChecks(), fault{check: "Broken", about: "List of a broken backend gives no error", backend: b})
}

// A storage that forgets is caught by a reopen.
func TestForgetfulStorageIsCaught(t *testing.T) {
	b := spoilt(func(*fakeStorage, *storage.Memory) {})
	b.Address = func(testing.TB) string { return "" }
	b.Opener = Opener{Open: func(string) (storage.Storage, error) { return storage.NewMemory(), nil }}
	wantCaught(t, storageChecks(), fault{check: "Reopen", about: `Load("a")`, backend: b})
	wantCaught(t, lockerChecks(), fault{check: "Instances", about: "two held the lock at once", backend: b})
}
