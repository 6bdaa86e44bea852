package certwright

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// fakeKeyInfo is what certmagic.KeyInfo is.
type fakeKeyInfo struct {
	Key        string
	Modified   time.Time
	Size       int64
	IsTerminal bool
}

// errBackend is what a fakePlugin that is down says.
var errBackend = errors.New("connection refused")

// fakePlugin is a CertMagic plugin in memory, with the habits of real ones.
type fakePlugin struct {
	rawMissing    bool // Load has an error of its own for what is missing
	hidesFailures bool // Load and Exists take a failure for nothing found
	listsMissing  bool // List says "not found" for an empty prefix
	listsDirs     bool // List returns folders too
	shallow       bool // List never looks below the first level
	byString      bool // List takes a prefix for a part of a string
	refusesEmpty  bool // Store refuses an empty value
	deleteFails   bool // Delete fails for what is missing
	ignoresCtx    bool // Lock does not look at its context

	mu     sync.Mutex // guards the fields below
	values map[string][]byte
	locks  map[string]chan struct{}
	down   bool
	torn   int // Loads that still return nothing for a value
}

func newFakePlugin() *fakePlugin {
	return &fakePlugin{values: map[string][]byte{}, locks: map[string]chan struct{}{}}
}

func (p *fakePlugin) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *fakePlugin) Store(_ context.Context, key string, value []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.down:
		return errBackend
	case p.refusesEmpty && len(value) == 0:
		return errors.New("value must not be empty")
	}
	p.values[key] = value
	return nil
}

func (p *fakePlugin) Load(_ context.Context, key string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	value, ok := p.values[key]
	switch {
	case p.down && p.hidesFailures, !ok && !p.down && !p.rawMissing:
		return nil, fs.ErrNotExist
	case p.down:
		return nil, errBackend
	case !ok:
		return nil, errors.New("NoSuchKey: status 404")
	case p.torn > 0:
		p.torn--
		return nil, nil
	}
	return slices.Clone(value), nil
}

func (p *fakePlugin) Exists(_ context.Context, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.values[key]
	return ok && !p.down
}

func (p *fakePlugin) Delete(_ context.Context, key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.values[key]; !ok && p.deleteFails && !p.down {
		return errors.New("NoSuchKey: status 404")
	}
	if p.down {
		return errBackend
	}
	delete(p.values, key)
	return nil
}

func (p *fakePlugin) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, errBackend
	}
	found := map[string]bool{}
	for key := range p.values {
		if p.byString && strings.HasPrefix(key, prefix) {
			found[key] = true
		}
		if !below(key, prefix) {
			continue
		}
		found[key] = true
		for dir := path.Dir(key); below(dir, prefix); dir = path.Dir(dir) {
			found[dir] = found[dir] || p.listsDirs || p.shallow
		}
	}
	out := slices.DeleteFunc(slices.Collect(maps.Keys(found)), func(key string) bool {
		return !found[key] || p.shallow && strings.Contains(key[len(prefix)+1:], "/")
	})
	if len(out) == 0 && p.listsMissing {
		return nil, &fs.PathError{Op: "lstat", Path: prefix, Err: fs.ErrNotExist}
	}
	return out, nil
}

func (p *fakePlugin) Stat(context.Context, string) (fakeKeyInfo, error) {
	return fakeKeyInfo{}, errors.New("status 403")
}

func (p *fakePlugin) lock(name string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locks[name] == nil {
		p.locks[name] = make(chan struct{}, 1)
	}
	return p.locks[name]
}

func (p *fakePlugin) Lock(ctx context.Context, name string) error {
	done := ctx.Done()
	if p.ignoresCtx {
		done = nil
	}
	select {
	case p.lock(name) <- struct{}{}:
		return nil
	case <-done:
		return ctx.Err()
	}
}

func (p *fakePlugin) Unlock(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-p.lock(name):
		return nil
	default:
		return fs.ErrNotExist
	}
}

func (p *fakePlugin) held(name string) bool { return len(p.lock(pluginLock(name))) > 0 }
