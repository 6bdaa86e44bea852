package plugin

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
)

// errBackend is what a fakePlugin that is down says.
var errBackend = errors.New("connection refused")

// fakePlugin is a CertMagic plugin in memory, with the habits of real ones.
type fakePlugin struct {
	rawMissing   bool   // Load has an error of its own for what is missing
	listsMissing bool   // List says "not found" for an empty prefix
	listsAll     bool   // List returns all values below, whatever it is asked
	listsDirs    bool   // and folders too
	onlyValues   bool   // List returns no folders
	noRecursion  bool   // List refuses to be recursive
	byString     bool   // List takes a prefix for a part of a string
	relative     bool   // List returns keys relative to the prefix
	baseNames    bool   // List returns the last components only
	ownPrefix    string // what List puts in front of each key
	refusesEmpty bool   // Store refuses an empty value
	deleteFails  bool   // Delete fails for what is missing
	ignoresCtx   bool   // Lock does not look at its context
	failsHeld    bool   // Lock fails at once when the lock is held

	mu     sync.Mutex // guards the fields below
	values map[string][]byte
	locks  map[string]chan struct{}
	down   bool
	lists  int // calls of List
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
	case !ok && !p.down && !p.rawMissing:
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

func (p *fakePlugin) List(_ context.Context, prefix string, recursive bool) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists++
	switch {
	case p.down:
		return nil, errBackend
	case recursive && p.noRecursion:
		return nil, errors.New("recursive listing is not supported")
	}
	found := map[string]bool{}
	for key := range p.values {
		if p.byString && strings.HasPrefix(key, prefix) {
			found[key] = true
		}
		rest, ok := strings.CutPrefix(key, prefix+"/")
		first, _, deep := strings.Cut(rest, "/")
		switch {
		case !ok:
		case !deep || p.listsAll || recursive:
			found[key] = true
		case !p.onlyValues:
			found[prefix+"/"+first] = true
		}
		for dir := path.Dir(key); ok && p.listsDirs && len(dir) > len(prefix); dir = path.Dir(dir) {
			found[dir] = true
		}
	}
	if len(found) == 0 && p.listsMissing {
		return nil, &fs.PathError{Op: "lstat", Path: prefix, Err: fs.ErrNotExist}
	}
	var out []string
	for key := range found {
		out = append(out, p.shown(key, prefix))
	}
	return out, nil
}

// shown is a key as List returns it.
func (p *fakePlugin) shown(key, prefix string) string {
	switch {
	case p.baseNames:
		return path.Base(key)
	case p.relative:
		return strings.TrimPrefix(key, prefix+"/")
	}
	return p.ownPrefix + key
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
	if p.failsHeld && len(p.lock(name)) > 0 {
		return errors.New("lock is held")
	}
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
