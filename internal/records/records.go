// Package records keeps what certwright stores on a Storage, typed: bundles
// (key, chain and what their upkeep needs), orders, holds, renewal info, staples,
// accounts, and what each instance has changed. Keys, versions, damage and the
// search for what covers a name are here and nowhere else.
//
// Everything lies below "v1/", flat below each kind, so that a key is
// v1/<kind>/<one component>. No key is a prefix of another. A component has
// letters, digits and the characters ".-_+*@" only (an IPv6 address is written
// with "@" for ":"), and at most 255 bytes.
//
// Every record begins with a line that says what it is and how it is told whole:
//
//	certwright <kind> <version> sha256 <64 hex digits> size <bytes after this line>
//
// All methods are safe for concurrent use unless they say otherwise.
package records

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// Storage is what records are kept on: package storage says what its methods do.
type Storage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix string) ([]string, error)
}

// ErrNewer means that a record was written by a newer version. It is left as it
// is: what would replace or delete it fails with ErrNewer too, for as long as
// the record was a newer one when it was last read through the same Records.
var ErrNewer = errors.New("it was written by a newer version of certwright, and is left as it is: use that version, or remove it by hand")

// DamagedError says that what is stored at Key cannot be used as it is. It is
// told, and the record is replaced.
type DamagedError struct {
	Key string
	Err error // what is wrong with it, never nil
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("reading %q: the record is damaged: %v", e.Key, e.Err)
}

// Unwrap returns what is wrong with the record.
func (e *DamagedError) Unwrap() error { return e.Err }

// Options are what New may be told. The zero Options is ready for use.
type Options struct {
	// Damage reports whether an error of Load says that the value itself is
	// damaged, as a sealed storage does, and not that the storage cannot be
	// reached. An error with a method Damaged() bool that returns true counts
	// without it. It may be nil.
	Damage func(error) bool
}

// Records reads and writes records on one Storage. New makes it.
type Records struct {
	s      Storage
	damage func(error) bool
	shared shared
	search search

	mu      sync.Mutex           // guards the fields below
	newer   map[string]struct{}  // keys at which a newer version's record was seen
	failing map[string]time.Time // since when the value at a key could not be loaded, or a prefix not listed
}

// lostAfter is for how long a value may fail to be loaded, while others can be
// stored and loaded, before it counts as damaged: no name is given up for it.
const lostAfter = time.Hour

// New returns the records on s. It asks nothing of s.
func New(s Storage, o Options) *Records {
	return &Records{s: s, damage: o.Damage, newer: make(map[string]struct{}), failing: make(map[string]time.Time)}
}

// load returns the value at a key. Its error satisfies errors.Is(err,
// fs.ErrNotExist) when there is none, and is a *DamagedError when the storage
// says that the value is damaged, or has not given it for an hour while it gave
// others.
func (r *Records) load(ctx context.Context, key string) ([]byte, error) {
	value, err := r.s.Load(ctx, key)
	switch {
	case err == nil:
		r.noteLoaded(key)
		return value, nil
	case errors.Is(err, fs.ErrNotExist):
		r.noteLoaded(key)
		r.noteNewer(key, nil) // somebody has removed it
	case r.isDamage(err):
		return nil, &DamagedError{Key: key, Err: err}
	case ctx.Err() == nil && r.isLost(ctx, key):
		return nil, &DamagedError{Key: key, Err: fmt.Errorf("it cannot be loaded while others can: %w", err)}
	}
	return nil, fmt.Errorf("loading %q: %w", key, err)
}

func (r *Records) isDamage(err error) bool {
	var d interface{ Damaged() bool }
	return errors.As(err, &d) && d.Damaged() || r.damage != nil && r.damage(err)
}

// isLost notes that the value at a key could not be loaded, and reports whether
// that has gone on for long while the storage as a whole works.
func (r *Records) isLost(ctx context.Context, key string) bool {
	r.mu.Lock()
	since, known := r.failing[key]
	if !known {
		r.failing[key] = time.Now()
	}
	r.mu.Unlock()
	return known && key != keyProbe && time.Since(since) >= lostAfter && r.Probe(ctx) == nil
}

func (r *Records) noteLoaded(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failing) > 0 {
		delete(r.failing, key)
	}
}

// store makes value the record at a key.
func (r *Records) store(ctx context.Context, key string, value []byte) error {
	if r.isNewer(key) {
		return fmt.Errorf("storing %q: %w", key, ErrNewer)
	}
	if err := r.s.Store(ctx, key, value); err != nil {
		return fmt.Errorf("storing %q: %w", key, err)
	}
	return nil
}

// Delete removes the record at a key, as List gave it. That there is none is no
// error.
func (r *Records) Delete(ctx context.Context, key string) error {
	if r.isNewer(key) {
		return fmt.Errorf("deleting %q: %w", key, ErrNewer)
	}
	if err := r.s.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %q: %w", key, err)
	}
	return nil
}

func (r *Records) isNewer(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.newer[key]
	return ok
}

// noteNewer remembers whether the record at a key is a newer version's.
func (r *Records) noteNewer(key string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(err, ErrNewer) {
		r.newer[key] = struct{}{}
	} else if len(r.newer) > 0 {
		delete(r.newer, key)
	}
}
