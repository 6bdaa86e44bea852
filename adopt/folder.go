package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Reader is a store that is read: any certwright Storage, or what reads a
// plugin's own keys. Keys are slash-separated. A Reader is safe for concurrent
// use.
type Reader interface {
	// Load returns a value. When there is none the error satisfies
	// errors.Is(err, fs.ErrNotExist).
	Load(ctx context.Context, key string) ([]byte, error)

	// List returns the full keys of all values below prefix, component by
	// component. Keys of folders do no harm. When there is nothing the list is
	// empty, and the error nil or one that satisfies
	// errors.Is(err, fs.ErrNotExist).
	List(ctx context.Context, prefix string) ([]string, error)
}

// inFolder returns the files of a folder.
func inFolder(program, dir string) *files {
	if dir == "" {
		return newFiles(program, nil)
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return newFiles(fmt.Sprintf("%s %q", program, dir), folder{dir, os.DirFS(dir)})
}

// folder is the Reader of a folder. Links are followed, to folders too. What is
// not a regular file is not read.
type folder struct {
	dir  string
	fsys fs.FS
}

// deepest is how many folders below the prefix of a list are looked into, which
// is what the layouts need. Links that lead in a circle end there.
const deepest = 3

// Load implements Reader.
func (t folder) Load(ctx context.Context, key string) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !fs.ValidPath(key) || !nameable(key) {
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

// nameable reports whether a file can have such a name. What a damaged file
// tells of others may be anything.
func nameable(key string) bool {
	const longest = 255 // bytes of a component, on most file systems
	tooLong := func(component string) bool { return len(component) > longest }
	return !strings.ContainsRune(key, 0) && !slices.ContainsFunc(strings.Split(key, "/"), tooLong)
}

// List implements Reader. Folders that end up missing while they are read count
// as empty.
func (t folder) List(ctx context.Context, prefix string) ([]string, error) {
	root := strings.Trim(prefix, "/")
	if root == "" {
		root = "."
	}
	return t.list(ctx, root, deepest)
}

func (t folder) list(ctx context.Context, dir string, depth int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	entries, err := fs.ReadDir(t.fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		below := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			info, err := fs.Stat(t.fsys, key)
			below = err == nil && info.IsDir()
		}
		if !below {
			keys = append(keys, key)
			continue
		}
		if depth == 0 {
			continue
		}
		more, err := t.list(ctx, key, depth-1)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}
