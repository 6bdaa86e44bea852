// Package durable replaces files so that a crash, of the process or of the
// host, leaves the old content or the new content and nothing between.
//
// A replacement is these system calls, in this order:
//
//	open(O_CREAT|O_EXCL)      a temporary file in the target's own folder
//	mkdir, fsync              missing folders, and the folder above each of them
//	write, fsync, close       the content, before anybody can see it
//	rename                    over the target: the moment at which readers change over
//	fsync                     the folder, so that the name outlives the host too
//
// On macOS fsync is fcntl(F_FULLFSYNC). On Windows a folder cannot be flushed:
// the renamed file is opened and flushed (FlushFileBuffers) in its place, and a
// rename that another process's open handle gets in the way of is tried again
// for two seconds. A file system that knows no fsync on folders answers EINVAL
// or ENOTSUP, which is taken as done.
//
// Until the rename an error leaves the target as it was and takes the temporary
// file away. An error of the last step leaves the new content in its place, but
// a crash of the host may bring back the old.
//
// Files are made with the permissions 0600 and folders with 0700, less the
// umask. On Windows they have the rights of the folder that they are made in.
//
// The package keeps no state. Everything is safe for concurrent use, from
// several processes too: of two writers the later rename wins, whole. Every
// error names the path.
package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// tempPrefix begins the name of every temporary file.
	tempPrefix = ".durable-"

	// maxTries bounds the rounds in which the target's folder vanishes, because
	// somebody removes empty folders, between its making and its use.
	maxTries = 100
)

// WriteFile replaces the file at path with data, and makes missing folders.
// check is asked when all is written and nothing can be seen of it; when it
// returns an error the target stays as it was. It may be nil.
func WriteFile(ctx context.Context, path string, data []byte, check func() error) error {
	if err := watcherOf(ctx).writeFile(path, data, check); err != nil {
		return fmt.Errorf("writing file %q: %w", path, err)
	}
	return nil
}

// Remove removes the file at path and flushes its folder. A missing file is not
// an error.
func Remove(ctx context.Context, path string) error {
	w := watcherOf(ctx)
	err := w.do("remove", path, func() error { return removeName(path) })
	if err == nil {
		err = w.syncName(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing file %q: %w", path, err)
	}
	return nil
}

// Mkdir makes the folder dir and its missing parents, flushing the folder above
// each one. A folder that is there is left as it is.
func Mkdir(dir string) error {
	var w watcher
	made, err := w.mkdirAll(dir)
	if err == nil {
		err = w.syncNames(made)
	}
	if err != nil {
		return fmt.Errorf("creating folder %q: %w", dir, err)
	}
	return nil
}

// TempPath returns a path in dir that nobody uses, for a temporary file that is
// made by other means than this package's. Sweep takes it for one of ours.
func TempPath(dir string) string { return filepath.Join(dir, tempPrefix+rand.Text()) }

// IsTemp reports whether name, without its folder, is that of a temporary file
// of this package.
func IsTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// watcher is told of each system call before it is made, and can let it fail.
type watcher func(call, path string) error

// watchKey is the context key of a watcher.
type watchKey struct{}

// Watched returns a context below ctx in which watch is told of the system calls
// of WriteFile and Remove before they are made: the name, as in the package
// comment, and the path. A test can end the process there.
func Watched(ctx context.Context, watch func(call, path string)) context.Context {
	return context.WithValue(ctx, watchKey{}, watcher(func(call, path string) error {
		watch(call, path)
		return nil
	}))
}

func watcherOf(ctx context.Context) watcher {
	w, _ := ctx.Value(watchKey{}).(watcher)
	return w
}

func (w watcher) do(call, path string, f func() error) error {
	if w != nil {
		if err := w(call, path); err != nil {
			return err
		}
	}
	return f()
}

func (w watcher) writeFile(path string, data []byte, check func() error) error {
	f, err := w.createTemp(filepath.Dir(path))
	if err != nil {
		return err
	}
	temp := f.Name()
	err = w.fill(f, data)
	if err == nil && check != nil {
		err = check()
	}
	if err == nil {
		err = w.do("rename", path, func() error { return rename(temp, path) })
	}
	if err != nil {
		return errors.Join(err, dropTemp(temp))
	}
	return w.syncName(path)
}

// createTemp makes an empty temporary file in dir, and dir when it is missing.
func (w watcher) createTemp(dir string) (f *os.File, err error) {
	var made []string
	for try := 1; ; try++ {
		temp := TempPath(dir)
		err := w.do("create", temp, func() error {
			f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		})
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || try == maxTries {
			return nil, err
		}
		missing, err := w.mkdirAll(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		made = append(made, missing...)
	}
	// The folders are flushed now that the file keeps them from being removed as
	// empty.
	if err := w.syncNames(made); err != nil {
		return nil, errors.Join(err, f.Close(), dropTemp(f.Name()))
	}
	return f, nil
}

// fill writes, flushes and closes f.
func (w watcher) fill(f *os.File, data []byte) error {
	err := w.do("write", f.Name(), func() error { _, err := f.Write(data); return err })
	if err == nil {
		err = w.do("fsync", f.Name(), f.Sync)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return w.do("close", f.Name(), f.Close)
}

// dropTemp removes a temporary file; one that is gone already is fine.
func dropTemp(temp string) error {
	if err := removeName(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mkdirAll makes dir and its missing parents and returns those that were missing.
func (w watcher) mkdirAll(dir string) (missing []string, err error) {
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	err = w.do("mkdir", dir, func() error { return os.MkdirAll(dir, 0o700) })
	if _, look := os.Lstat(dir); errors.Is(err, fs.ErrExist) && errors.Is(look, fs.ErrNotExist) {
		return missing, look // it was there, and was removed before MkdirAll looked
	}
	return missing, err
}

func (w watcher) syncNames(paths []string) error {
	for _, path := range paths {
		if err := w.syncName(path); err != nil {
			return err
		}
	}
	return nil
}

// syncName makes the name at path outlive the host.
func (w watcher) syncName(path string) error {
	return w.do("fsync", filepath.Dir(path), func() error { return syncName(path) })
}
