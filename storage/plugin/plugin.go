// Package plugin uses storage plugins made for CertMagic and Caddy as they are:
//
//	s := plugin.CertMagic(&certmagic.FileStorage{Path: "/var/lib/certs"})
//
// It imports nothing of CertMagic and asks no more of a plugin than CertMagic
// itself does. Plugins differ in much that their contract leaves open, and
// nothing here relies on it:
//
//   - Stat is not used. Exists is asked of values only, but for one case: a List
//     that says "not found" may have been disturbed by a deletion.
//   - List is not asked to go through folders by itself, which several plugins for
//     SQL refuse: folders are gone through one by one. A plugin that lists all that
//     is below, or never lists a folder, is understood too.
//   - Listed keys may be whole, relative to what was listed, or have something of
//     the plugin's own in front. What cannot be understood is an error.
//   - Some refuse an empty value, or return one while a value is being replaced.
//   - Lock may wait until the lock is free, for a while only, or not at all, and
//     may not look at its context. It is tried until the context ends.
//   - Unlock of a lock that has run out may be an error or none.
//   - Locks may be renewed through RenewLockLease, by the plugin itself, or never.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/certwright/certwright/internal/keyed"
	"github.com/certwright/certwright/storage"
)

// Plugin is what is used of a plugin. Every certmagic.Storage is one. When it
// has the method RenewLockLease of certmagic.LockLeaseRenewer that is used too.
type Plugin interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
	Store(ctx context.Context, key string, value []byte) error
	Load(ctx context.Context, key string) ([]byte, error)
	Delete(ctx context.Context, key string) error
	Exists(ctx context.Context, key string) bool
	List(ctx context.Context, prefix string, recursive bool) ([]string, error)
}

// Storage is a storage.Storage and a storage.Locker over a Plugin. It is safe for
// concurrent use when the plugin is. Its zero value is not usable: call CertMagic.
//
// What is stored lies below the plugin's key "certwright", beside what CertMagic
// may keep there. Durable, atomic and fresh is what a plugin stores when the
// plugin says so; nothing can be added to that from outside. Neither can a lock
// be better than the plugin's: a lease ends when the plugin has RenewLockLease
// and that fails, and a store or delete under a lease that has ended is refused,
// but a plugin whose locks run out in silence may have two holders.
type Storage struct {
	plugin Plugin
	turns  keyed.Mutex    // by name of the lock: the plugin sees one at a time
	calls  sync.WaitGroup // of the plugin, that may outlive those who asked
}

// CertMagic returns a Storage over p. It does no I/O. p must not be nil.
func CertMagic(p Plugin) *Storage { return &Storage{plugin: p} }

// Close waits for calls of the plugin that have outlived the context of those
// who made them, until ctx ends. It does not close the plugin. Call it after
// the Close of the Managers that use the Storage.
func (s *Storage) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("closing the plugin's storage: a call of the plugin has not returned: %w", context.Cause(ctx))
	}
}

// errEmptyValue is what is said of a value that was never stored so: some
// plugins show it while a value is being replaced.
var errEmptyValue = errors.New("the plugin returned an empty value, which is never stored")

// Load implements storage.Storage.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	err := check(ctx, key)
	var value []byte
	if err == nil {
		value, err = load(ctx, s.plugin, pluginKey(key))
	}
	if err != nil {
		return nil, fmt.Errorf("loading key %q: %w", key, err)
	}
	return append([]byte{}, unmarkValue(value)...), nil
}

// load loads by the plugin's key. It looks twice before it believes in an empty
// value.
func load(ctx context.Context, p Plugin, key string) ([]byte, error) {
	value, err := loadOnce(ctx, p, key)
	if errors.Is(err, errEmptyValue) {
		return loadOnce(ctx, p, key)
	}
	return value, err
}

func loadOnce(ctx context.Context, p Plugin, key string) ([]byte, error) {
	value, err := p.Load(ctx, key)
	switch {
	case err == nil && len(value) == 0:
		return nil, errEmptyValue
	case err == nil:
		return value, nil
	case ctx.Err() != nil:
		return nil, ended(ctx)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fs.ErrNotExist
	case looksMissing(ctx, p, key):
		return nil, fs.ErrNotExist
	}
	return nil, err
}

// looksMissing reports whether a plugin, which failed to load a key with an error
// of its own, can be reached and knows no such key.
func looksMissing(ctx context.Context, p Plugin, key string) bool {
	if p.Exists(ctx, key) {
		return false
	}
	keys, err := listFolder(ctx, p, parentOf(key))
	return err == nil && !slices.Contains(keys, key)
}

// Store implements storage.Storage.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	err := check(ctx, key)
	if err == nil {
		err = storage.LeaseErr(ctx)
	}
	if err == nil {
		err = s.plugin.Store(ctx, pluginKey(key), append([]byte{}, markValue(value)...))
	}
	if err != nil {
		return fmt.Errorf("storing key %q: %w", key, err)
	}
	return nil
}

// Delete implements storage.Storage.
func (s *Storage) Delete(ctx context.Context, key string) error {
	err := check(ctx, key)
	if err == nil {
		err = storage.LeaseErr(ctx)
	}
	if err == nil {
		err = s.remove(ctx, pluginKey(key))
	}
	if err != nil {
		return fmt.Errorf("deleting key %q: %w", key, err)
	}
	return nil
}

// remove deletes by the plugin's key. Some plugins fail to delete what is not
// there.
func (s *Storage) remove(ctx context.Context, key string) error {
	err := s.plugin.Delete(ctx, key)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, loadErr := load(ctx, s.plugin, key); errors.Is(loadErr, fs.ErrNotExist) {
		return nil
	}
	return err
}

// check returns the error that a call has before it starts.
func check(ctx context.Context, key string) error {
	if !storage.ValidKey(key) {
		return fmt.Errorf("not a valid key: %w", fs.ErrInvalid)
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return nil
}

// ended says why ctx ended: its error and, when that says more, its cause.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
