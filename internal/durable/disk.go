package durable

import (
	"context"
	"io/fs"
)

// Disk replaces and removes files as the functions of this package do, and can
// be watched. Its zero value is not watched. It is safe for concurrent use if
// Watch is.
type Disk struct {
	// Watch is told of each system call before it is made: its name, as in the
	// package comment, and its path. A test can end the process there. nil: none.
	Watch func(call, path string)
}

// watchKey is the context key of what Watched was given.
type watchKey struct{}

// Watched returns a context below ctx whose Disk, as DiskOf returns it, is
// watched.
func Watched(ctx context.Context, watch func(call, path string)) context.Context {
	return context.WithValue(ctx, watchKey{}, watch)
}

// DiskOf returns the Disk to use under ctx.
func DiskOf(ctx context.Context) Disk {
	watch, _ := ctx.Value(watchKey{}).(func(call, path string))
	return Disk{Watch: watch}
}

// Prepare is the function of that name.
func (d Disk) Prepare(path string, data []byte, perm fs.FileMode) (*File, error) {
	return d.system().prepare(path, data, perm)
}

// Remove is the function of that name.
func (d Disk) Remove(path string) error { return d.system().removeFile(path) }

func (d Disk) system() system {
	if d.Watch == nil {
		return osSystem()
	}
	return watched(osSystem(), d.Watch)
}

// watched has watch told before each call of s.
func watched(s system, watch func(call, path string)) system {
	return system{
		mkdir: func(dir string, perm fs.FileMode) error {
			watch("mkdir", dir)
			return s.mkdir(dir, perm)
		},
		stat: s.stat,
		create: func(path string, perm fs.FileMode) (file, error) {
			watch("create", path)
			f, err := s.create(path, perm)
			if err != nil {
				return nil, err
			}
			return watchedFile{f, path, watch}, nil
		},
		openDir: func(dir string) (folder, error) {
			watch("open", dir)
			d, err := s.openDir(dir)
			if err != nil {
				return nil, err
			}
			return watchedFolder{d, dir, watch}, nil
		},
		rename: func(from, to string) error {
			watch("rename", to)
			return s.rename(from, to)
		},
		flushName: s.flushName,
		remove: func(path string) error {
			watch("remove", path)
			return s.remove(path)
		},
	}
}

// watchedFile is a temporary file that is watched.
type watchedFile struct {
	file
	path  string
	watch func(call, path string)
}

// Write tells of two calls for one, so that half a content can be left behind.
func (f watchedFile) Write(p []byte) (int, error) {
	f.watch("write", f.path)
	half := len(p) / 2
	n, err := f.file.Write(p[:half])
	if err != nil || n < half {
		return n, err
	}
	f.watch("write", f.path)
	m, err := f.file.Write(p[half:])
	return n + m, err
}

func (f watchedFile) Sync() error {
	f.watch("fsync", f.path)
	return f.file.Sync()
}

func (f watchedFile) Close() error {
	f.watch("close", f.path)
	return f.file.Close()
}

// watchedFolder is an open folder that is watched.
type watchedFolder struct {
	folder
	path  string
	watch func(call, path string)
}

func (f watchedFolder) Sync() error {
	f.watch("fsync", f.path)
	return f.folder.Sync()
}

func (f watchedFolder) Close() error {
	f.watch("close", f.path)
	return f.folder.Close()
}
