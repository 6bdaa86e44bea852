package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/guard"
)

const (
	// lookFor bounds how long a validation request waits for the store, and how
	// long a call of the store is waited for.
	lookFor = 3 * time.Second

	// lists and loads bound how many calls of the store run at once: more than
	// one list only while others do not return although they were told to.
	lists = 4
	loads = 16

	// lifetime is how long a challenge lives: no CA takes so long to look.
	lifetime = 10 * time.Minute
)

// look finds challenges that other instances presented. All who ask share a list
// of what is there: one is waited for, at most one more is queued, and nobody
// gets one that began before he asked. Only what is listed is loaded. What was
// loaded is known as long as it is listed; that there is nothing at a key, or
// that it cannot be loaded, is known to those who share a list only.
type look struct {
	store  Store
	prefix string
	spawn  func(func())
	ctx    context.Context

	damaged func(error) bool // as in Options

	listing, loading chan struct{} // have a value for each call that runs

	mu      sync.Mutex           // guards the fields below, and failed of each list
	running *list                // nil: none
	queued  *list                // begins when running has ended; nil: none
	known   map[string]Challenge // by key
}

// list is one list of what the store has.
type list struct {
	done   chan struct{}    // closed when keys and err are set
	keys   []string         // sorted
	err    error            // of the store
	failed map[string]error // keys without a challenge; nil: the store said so
}

// place is how the key of a challenge begins, below the prefix.
func (c Challenge) place() string {
	if c.Type == HTTP01 {
		return httpPlace(c.Token)
	}
	return alpnPlace(c.Identifier)
}

func httpPlace(token string) string { return HTTP01 + "+" + digest(token) }

func alpnPlace(identifier string) string { return TLSALPN01 + "+" + digest(identifier) + "+" }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// key is where ch is stored. It has neither a token nor a name in it, so that it
// is of bounded length and says nothing.
func (l *look) key(ch Challenge) string {
	key := l.prefix + "/" + ch.place()
	if ch.Type == TLSALPN01 {
		key += digest(ch.Token)
	}
	return key
}

// find returns the challenges of a place, as the store has them now. What cannot
// be loaded is an error only when there is no other.
func (l *look) find(ctx context.Context, place string) (found []Challenge, err error) {
	if l.store == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookFor, fmt.Errorf("the storage did not answer within %v", lookFor))
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	now, err := l.list(ctx)
	if err != nil {
		return nil, err
	}
	begin := l.prefix + "/" + place
	i, _ := slices.BinarySearch(now.keys, begin)
	for ; i < len(now.keys) && strings.HasPrefix(now.keys[i], begin); i++ {
		ch, loadErr := l.load(ctx, now, now.keys[i])
		if loadErr != nil {
			err = loadErr
		} else if ch.Token != "" {
			found = append(found, ch)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// list returns a list that began after it was called.
func (l *look) list(ctx context.Context) (*list, error) {
	l.mu.Lock()
	mine, first := l.queued, l.running == nil
	if mine == nil {
		mine = &list{done: make(chan struct{}), failed: map[string]error{}}
		if first {
			l.running = mine
		} else {
			l.queued = mine
		}
	}
	l.mu.Unlock()
	if first {
		l.spawn(func() { l.run(mine) })
	}
	select {
	case <-mine.done:
		return mine, mine.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run lists for all who wait, and then for those who came meanwhile.
func (l *look) run(now *list) {
	for now != nil {
		keys, err := l.listOnce()
		now.keys, now.err = keys, err
		l.mu.Lock()
		if err == nil {
			maps.DeleteFunc(l.known, func(key string, _ Challenge) bool {
				_, listed := slices.BinarySearch(keys, key)
				return !listed
			})
		}
		l.running, l.queued = l.queued, nil
		next := l.running
		l.mu.Unlock()
		close(now.done)
		now = next
	}
}

func (l *look) listOnce() ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(l.ctx, lookFor, fmt.Errorf("the storage did not list within %v", lookFor))
	defer cancel()
	return call(ctx, l, l.listing, func(ctx context.Context) ([]string, error) {
		keys, err := l.store.List(ctx, l.prefix)
		return slices.Sorted(slices.Values(keys)), err
	})
}

// load returns the challenge at a listed key, a zero one when there is none.
func (l *look) load(ctx context.Context, now *list, key string) (Challenge, error) {
	if ch, ok, err := l.loaded(now, key); ok {
		return ch, err
	}
	return call(ctx, l, l.loading, func(ctx context.Context) (Challenge, error) {
		if ch, ok, err := l.loaded(now, key); ok { // by another who asked, meanwhile
			return ch, err
		}
		ch, err := Challenge{}, errDied
		defer func() { l.note(now, key, ch, err) }() // also when the store panics
		ch, err = l.read(ctx, key)
		return ch, err
	})
}

// loaded returns what is known of a key.
func (l *look) loaded(now *list, key string) (ch Challenge, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch, ok = l.known[key]; ok {
		return ch, true, nil
	}
	err, ok = now.failed[key]
	return Challenge{}, ok, err
}

// note notes what was loaded.
func (l *look) note(now *list, key string, ch Challenge, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch.Token != "" {
		l.known[key] = ch
	} else {
		now.failed[key] = err
	}
}

// read returns what the store has at a key; it is zero when that is nothing, or
// no challenge that belongs there.
func (l *look) read(ctx context.Context, key string) (ch Challenge, err error) {
	value, err := l.store.Load(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Challenge{}, nil
	case err != nil:
		return Challenge{}, err
	}
	known := json.Unmarshal(value, &ch) == nil && (ch.Type == HTTP01 || ch.Type == TLSALPN01)
	if !known || l.key(ch) != key || !ValidToken(ch.Token) || ch.KeyAuthorization == "" {
		return Challenge{}, nil
	}
	return ch, nil
}

// errDied is the result of a call that neither returned nor panicked.
var errDied = errors.New("the storage ended the goroutine that called it")

// call calls f in one of slots and returns its result, or an error when ctx has
// ended before. f goes on then, for all who may want its result, until its own
// context ends; it keeps its slot until it returns.
func call[T any](ctx context.Context, l *look, slots chan struct{}, f func(ctx context.Context) (T, error)) (value T, err error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
	var found T
	done := guard.Call(l.spawn, "the storage", func() (err error) {
		defer func() { <-slots }()
		ctx, cancel := context.WithTimeout(l.ctx, lookFor)
		defer cancel()
		found, err = f(ctx)
		return err
	})
	select {
	case err := <-done:
		return found, err
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
}

// clean removes what is older than a challenge can be, or damaged. What is known may have
// been presented again meanwhile, so that all is read anew.
func (l *look) clean(ctx context.Context) (removed int, err error) {
	keys, err := l.store.List(ctx, l.prefix)
	if err != nil {
		return 0, fmt.Errorf("listing challenges: %w", err)
	}
	var errs []error
	for _, key := range keys {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		ch, err := l.read(ctx, key)
		what := "loading"
		switch {
		case err == nil && (ch.Token == "" || time.Since(ch.Presented).Abs() <= lifetime): // or a clock was ahead
			continue
		case err == nil, l.damaged != nil && l.damaged(err):
			what, err = "deleting", l.store.Delete(ctx, key)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s challenge %q: %w", what, key, err))
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}
