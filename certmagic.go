package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// CertMagicStorage is what every storage plugin for CertMagic and Caddy
// implements: the interface certmagic.Storage, without an import of it. KI is
// certmagic.KeyInfo and is found by type inference.
type CertMagicStorage[KI ~struct {
	Key        string
	Modified   time.Time
	Size       int64
	IsTerminal bool
}] interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
	Store(ctx context.Context, key string, value []byte) error
	Load(ctx context.Context, key string) ([]byte, error)
	Delete(ctx context.Context, key string) error
	Exists(ctx context.Context, key string) bool
	List(ctx context.Context, prefix string, recursive bool) ([]string, error)
	Stat(ctx context.Context, key string) (KI, error)
}

// FromCertMagic makes a [Storage] and [Locker] of a storage plugin for CertMagic
// or Caddy:
//
//	certwright.FromCertMagic(&certmagic.FileStorage{Path: "/var/lib/certs"})
//
// It does no I/O. What is stored lies under the plugin's key "certwright",
// beside what CertMagic may keep there; to take that over, give the adapter to
// Config.Adopt too, as the Storage of a [Source].
func FromCertMagic[KI ~struct {
	Key        string
	Modified   time.Time
	Size       int64
	IsTerminal bool
}](s CertMagicStorage[KI]) *CertMagicAdapter {
	return newCertMagicAdapter(s)
}

// CertMagicAdapter is a [Storage] and [Locker] over a plugin for CertMagic. It
// is safe for concurrent use when the plugin is; its zero value is of no use.
//
// It relies on little of what plugins differ in. Values are never empty for the
// plugin, folders are neither expected nor taken for values, and a value counts
// as missing only when the plugin shows that it can be reached. A wait for a
// lock ends with its context although the plugin does not look at it. Durable,
// atomic and fresh is what a plugin stores when the plugin says so; nothing can
// be added to that from outside. Neither can a lock be better than the plugin's:
// its lease ends when the plugin has RenewLockLease and that fails, and a store
// on a lease that has ended is refused, but a plugin whose locks run out in
// silence may have two holders.
type CertMagicAdapter struct {
	plugin certMagicPlugin
	turns  turns
	work   sync.WaitGroup // calls of the plugin that outlive those who asked
}

// certMagicPlugin is what is used of a plugin.
type certMagicPlugin interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
	Store(ctx context.Context, key string, value []byte) error
	Load(ctx context.Context, key string) ([]byte, error)
	Delete(ctx context.Context, key string) error
	Exists(ctx context.Context, key string) bool
	List(ctx context.Context, prefix string, recursive bool) ([]string, error)
}

// errEmptyValue is what is said of a value that was never stored so: some
// plugins show it while a value is being replaced.
var errEmptyValue = errors.New("the plugin returned an empty value, which is never stored")

func newCertMagicAdapter(p certMagicPlugin) *CertMagicAdapter {
	return &CertMagicAdapter{plugin: p}
}

// Close waits for calls of the plugin that have outlived the context of those
// who made them, until ctx ends. It does not close the plugin. Call it after
// the Close of the Managers that use the adapter.
func (a *CertMagicAdapter) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		a.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("closing the adapter: a call of the plugin has not returned: %w", endOf(ctx))
	}
}

// Load implements [Storage].
func (a *CertMagicAdapter) Load(ctx context.Context, key string) ([]byte, error) {
	if err := checkCall(ctx, "loading", key); err != nil {
		return nil, err
	}
	value, err := a.load(ctx, pluginKey(key))
	if err != nil {
		return nil, fmt.Errorf("loading key %q: %w", key, err)
	}
	return append([]byte{}, unmarkValue(value)...), nil
}

// load is Load by the plugin's key. It looks twice before it believes in a value
// that is empty, or missing and listed.
func (a *CertMagicAdapter) load(ctx context.Context, key string) ([]byte, error) {
	value, err := a.loadOnce(ctx, key)
	if errors.Is(err, errEmptyValue) || errors.Is(err, errListed) {
		return a.loadOnce(ctx, key)
	}
	return value, err
}

func (a *CertMagicAdapter) loadOnce(ctx context.Context, key string) ([]byte, error) {
	value, err := a.plugin.Load(ctx, key)
	switch {
	case err == nil && len(value) == 0:
		return nil, errEmptyValue
	case err == nil:
		return value, nil
	case ctx.Err() != nil:
		return nil, endOf(ctx)
	case errors.Is(err, fs.ErrNotExist):
		return nil, a.confirmMissing(ctx, key)
	case a.looksMissing(ctx, key):
		return nil, fs.ErrNotExist
	}
	return nil, err
}

// errListed means that a value was missing when it was read and there when it
// was listed.
var errListed = errors.New("the plugin lists the value and does not find it")

// confirmMissing returns fs.ErrNotExist unless the plugin cannot be reached:
// some report a failure to look as nothing found. A list of what is below the
// key costs little and fails when the backend does.
func (a *CertMagicAdapter) confirmMissing(ctx context.Context, key string) error {
	keys, err := a.plugin.List(ctx, key, true)
	switch {
	case ctx.Err() != nil:
		return endOf(ctx)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("confirming that it is missing: %w", err)
	case slices.Contains(keys, key):
		return errListed
	}
	return fs.ErrNotExist
}

// looksMissing reports whether the plugin, which failed to load a key with an
// error of its own, can be reached and knows no such key.
func (a *CertMagicAdapter) looksMissing(ctx context.Context, key string) bool {
	if a.plugin.Exists(ctx, key) {
		return false
	}
	keys, err := listOnce(ctx, a.plugin, parentOf(key))
	return err == nil && !slices.Contains(keys, key)
}

// Store implements [Storage].
func (a *CertMagicAdapter) Store(ctx context.Context, key string, value []byte) error {
	err := checkCall(ctx, "storing", key)
	if err != nil {
		return err
	}
	if err = checkLeases(ctx); err == nil {
		err = a.plugin.Store(ctx, pluginKey(key), append([]byte{}, markValue(value)...))
	}
	if err != nil {
		return fmt.Errorf("storing key %q: %w", key, err)
	}
	return nil
}

// Delete implements [Storage].
func (a *CertMagicAdapter) Delete(ctx context.Context, key string) error {
	if err := checkCall(ctx, "deleting", key); err != nil {
		return err
	}
	err := a.plugin.Delete(ctx, pluginKey(key))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Some plugins fail to delete what is not there.
	if _, loadErr := a.load(ctx, pluginKey(key)); errors.Is(loadErr, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("deleting key %q: %w", key, err)
}

// List implements [Storage].
func (a *CertMagicAdapter) List(ctx context.Context, prefix string) ([]string, error) {
	if err := checkList(ctx, prefix); err != nil {
		return nil, err
	}
	found, err := listPlugin(ctx, a.plugin, pluginDir(prefix), func(key string) bool { return strings.HasSuffix(key, pluginValue) })
	if err != nil {
		return nil, fmt.Errorf("listing keys below %q: %w", prefix, err)
	}
	keys := make([]string, 0, len(found))
	for _, text := range found {
		// Some plugins take a prefix for a part of a string.
		if key, ok := fromPluginKey(text); ok && below(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// listPlugin returns what a plugin has below dir, folders too. It descends into
// what is no value by itself when the plugin has not.
func listPlugin(ctx context.Context, p certMagicPlugin, dir string, isValue func(key string) bool) ([]string, error) {
	var out []string
	todo := []string{strings.Trim(dir, "/")}
	asked := map[string]bool{}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		asked[at] = true
		keys, err := listOnce(ctx, p, at)
		if err != nil {
			return nil, err
		}
		parents := map[string]bool{} // of what was listed
		for i, key := range keys {
			keys[i] = strings.Trim(key, "/")
			for p := parentOf(keys[i]); p != "" && !parents[p]; p = parentOf(p) {
				parents[p] = true
			}
		}
		for _, key := range keys {
			if below(key, at) && !parents[key] && !asked[key] && !isValue(key) {
				todo = append(todo, key)
				asked[key] = true
			}
		}
		out = append(out, keys...)
	}
	return out, nil
}

// listOnce is the plugin's list of dir. One that says "not found" found nothing,
// or was disturbed by a value that went away meanwhile; then it is asked again.
func listOnce(ctx context.Context, p certMagicPlugin, dir string) ([]string, error) {
	for n := 1; ; n++ {
		keys, err := p.List(ctx, dir, true)
		switch {
		case ctx.Err() != nil:
			return nil, endOf(ctx)
		case err == nil || !errors.Is(err, fs.ErrNotExist):
			return keys, err
		case len(keys) == 0 && !p.Exists(ctx, dir):
			return nil, nil
		case n == maxLists:
			return nil, fmt.Errorf("the plugin found no end: %w", err)
		}
	}
}

// maxLists is how often a list is begun anew.
const maxLists = 100

func parentOf(key string) string {
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		return key[:i]
	}
	return ""
}

// certMagicTree is an adapter that reads what CertMagic itself has in the plugin.
type certMagicTree struct{ *CertMagicAdapter }

// Load takes the plugin's key.
func (t certMagicTree) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := t.loadOnce(ctx, key)
	if errors.Is(err, errEmptyValue) {
		return []byte{}, nil
	}
	return value, err
}

// List returns the plugin's keys, folders among them, which nothing asks for.
func (t certMagicTree) List(ctx context.Context, prefix string) ([]string, error) {
	keys, err := listPlugin(ctx, t.plugin, prefix, func(key string) bool {
		return slices.Contains([]string{".crt", ".key", ".json"}, path.Ext(key))
	})
	if err != nil {
		return nil, fmt.Errorf("listing keys below %q: %w", prefix, err)
	}
	return slices.DeleteFunc(keys, func(key string) bool { return !below(key, prefix) }), nil
}
