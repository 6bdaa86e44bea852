package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/keyed"
)

const (
	// maxFile bounds what is read of a file.
	maxFile = 1 << 20

	// listLife is how long a list is used: other software may still be writing.
	listLife = time.Minute
)

// files is a Tree with errors that name the file and lists that are kept.
type files struct {
	tree Tree
	turn keyed.Mutex // by what is listed: one lists, the others wait

	mu   sync.Mutex // guards kept
	kept map[string]keptIndex
}

// keptIndex is what was made of a list, and what could not be used for it.
type keptIndex struct {
	at     time.Time
	files  map[string][]string
	errors []*FileError
}

// load returns a file, nil when there is none. One that is there and empty is
// not nil.
func (f *files) load(ctx context.Context, key string) ([]byte, *FileError) {
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
func (f *files) list(ctx context.Context, prefix string) ([]string, *FileError) {
	keys, err := f.tree.List(ctx, prefix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &FileError{File: prefix, Unreadable: true, Err: err}
	}
	return keys, nil
}

// index returns what make made, under name, within the last minute. A failure
// of the store is not kept.
func (f *files) index(ctx context.Context, name string, build func() (map[string][]string, []*FileError)) (map[string][]string, []*FileError) {
	unlock, err := f.turn.Lock(ctx, name)
	if err != nil {
		return nil, []*FileError{{File: name, Unreadable: true, Err: err}}
	}
	defer unlock()
	f.mu.Lock()
	k, ok := f.kept[name]
	f.mu.Unlock()
	if age := time.Since(k.at); ok && age >= 0 && age < listLife {
		return k.files, k.errors
	}
	made, errs := build()
	if unreadable(errs) {
		return made, errs
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[string]keptIndex{}
	}
	f.kept[name] = keptIndex{at: time.Now(), files: made, errors: errs}
	return made, errs
}

func unreadable(errs []*FileError) bool {
	for _, e := range errs {
		if e.Unreadable {
			return true
		}
	}
	return false
}

// FS is the [Tree] of a file system, such as [os.DirFS]. Links to files are
// followed, links to folders only where a list begins. What is not a regular
// file is not read. It is safe for concurrent use.
func FS(fsys fs.FS) Tree { return fsTree{fsys} }

type fsTree struct{ fsys fs.FS }

// Load implements Tree.
func (t fsTree) Load(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if !fs.ValidPath(key) {
		return nil, &fs.PathError{Op: "open", Path: key, Err: fs.ErrNotExist}
	}
	// Opening a named pipe would wait for a writer.
	info, err := fs.Stat(t.fsys, key)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: key, Err: fs.ErrNotExist}
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", key)
	}
	file, err := t.fsys.Open(key)
	if err != nil {
		return nil, err
	}
	value, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	return value, errors.Join(err, file.Close())
}

// List implements Tree. Folders that end up missing while they are read count
// as empty.
func (t fsTree) List(ctx context.Context, prefix string) ([]string, error) {
	root := strings.Trim(prefix, "/")
	if root == "" {
		root = "."
	}
	var keys []string
	err := fs.WalkDir(t.fsys, root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir() && path != root:
			keys = append(keys, path)
		}
		return nil
	})
	return keys, err
}
