package adopt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

const (
	// maxFile bounds what is read of a file.
	maxFile = 1 << 20

	// listLife is how long a list is used: other software may still be writing.
	listLife = time.Minute
)

// files is a Reader with errors that name the file and an index that is kept.
type files struct {
	title string // for errors and logs
	tree  Reader // nil when none was named

	turn chan struct{} // holds a value while somebody looks at kept, or makes it
	kept *keptIndex    // nil: nothing is
}

func newFiles(title string, tree Reader) *files {
	return &files{title: title, tree: tree, turn: make(chan struct{}, 1)}
}

// keptIndex is what was made of a list, and what could not be used for it.
type keptIndex struct {
	at     time.Time
	byName map[string][]string
	errs   []error
}

// ready says when there is nothing to read at all.
func (f *files) ready() error {
	if f.tree == nil {
		return fmt.Errorf("reading %s: neither a folder nor a Reader was named", f.title)
	}
	if t, ok := f.tree.(folder); ok {
		if _, err := os.Stat(t.dir); errors.Is(err, fs.ErrNotExist) {
			return &FileError{File: t.dir, Err: errors.New("there is no such folder")}
		}
	}
	return nil
}

// load returns a file, nil when there is none. One that is there and empty is
// not nil.
func (f *files) load(ctx context.Context, key string) ([]byte, error) {
	value, err := f.tree.Load(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, &FileError{File: key, Unreadable: true, Err: err}
	case len(value) > maxFile:
		return nil, &FileError{File: key, Err: fmt.Errorf("it has more than %d bytes", maxFile)}
	case value == nil:
		value = []byte{}
	}
	return value, nil
}

// list returns the files below prefix.
func (f *files) list(ctx context.Context, prefix string) ([]string, error) {
	keys, err := f.tree.List(ctx, prefix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{File: prefix, Unreadable: true, Err: err}
	}
	return keys, nil
}

// index returns what build made within the last minute. One builds, the others
// wait. A failure of the store is not kept.
func (f *files) index(ctx context.Context, build func() (map[string][]string, []error)) (map[string][]string, []error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, []error{fmt.Errorf("waiting for the list of %s: %w", f.title, context.Cause(ctx))}
	}
	if k := f.kept; k != nil {
		if age := time.Since(k.at); age >= 0 && age < listLife {
			return k.byName, k.errs
		}
	}
	byName, errs := build()
	errs = slices.Clip(errs) // callers append to it
	if !unreadable(errs) {
		f.kept = &keptIndex{at: time.Now(), byName: byName, errs: errs}
	}
	return byName, errs
}

func unreadable(errs []error) bool {
	for _, err := range errs {
		if bad := (*FileError)(nil); err != nil && (!errors.As(err, &bad) || bad.Unreadable) {
			return true
		}
	}
	return false
}
