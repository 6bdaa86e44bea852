// Package durable replaces files so that a crash, of the process or of the
// host, leaves the old content or the new content and nothing between.
//
// A replacement is these system calls, in this order:
//
//	mkdir                     each missing parent
//	open(O_CREAT|O_EXCL)      a temporary file in the target's own folder
//	open, fsync, close        the folder above each parent that was made
//	write, fsync, close       the content, before anybody can see it
//	open                      the folder
//	rename                    over the target: the moment at which readers change over
//	fsync, close              the folder, so that the name outlives the host too
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
// The package keeps no state. Everything is safe for concurrent use, from
// several processes too: of two writers the later rename wins, whole.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
)

// tempPrefix begins the name of every temporary file.
const tempPrefix = ".durable-"

// maxTries bounds the rounds in which the target's folder vanishes, because
// somebody removes empty folders, between its making and its use.
const maxTries = 100

// ErrTooLarge means that a file is longer than the caller's limit.
var ErrTooLarge = errors.New("file too large")

// ErrNotRegular means that something other than a file is in a file's place.
var ErrNotRegular = errors.New("not a regular file")

// WriteFile replaces the file at path with data. A new file has the permissions
// perm, less the umask, and so has one that replaces another; missing parents
// are made with perm and the search bits that go with it. Every error names the
// path and the step that failed.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := Prepare(path, data, perm)
	if err != nil {
		return err
	}
	return f.Commit()
}

// File is a replacement that is written and flushed but not yet to be seen. It
// ends with Commit or Discard, and is not safe for concurrent use.
type File struct {
	sys  system
	path string
	temp string
}

// Prepare does the first half of WriteFile, up to the rename.
func Prepare(path string, data []byte, perm fs.FileMode) (*File, error) {
	return osSystem().prepare(path, data, perm)
}

func (s system) prepare(path string, data []byte, perm fs.FileMode) (*File, error) {
	f, temp, err := s.createTemp(path, perm)
	if err != nil {
		return nil, err
	}
	if step, err := fill(f, data); err != nil {
		return nil, errors.Join(stepError(path, step, err), s.dropTemp(temp))
	}
	return &File{sys: s, path: path, temp: temp}, nil
}

// createTemp makes the target's folder and an empty temporary file in it.
func (s system) createTemp(path string, perm fs.FileMode) (file, string, error) {
	dir := filepath.Dir(path)
	var made []string
	for try := 1; ; try++ {
		if err := s.mkdirAll(dir, dirPerm(perm), &made); err != nil {
			return nil, "", stepError(path, "creating folder", err)
		}
		temp := TempPath(dir)
		f, err := s.create(temp, perm)
		if err == nil {
			// The folders are flushed now that the file keeps them from being
			// removed as empty.
			if err := s.syncParents(made); err != nil {
				return nil, "", errors.Join(stepError(path, "syncing folder", err), f.Close(), s.dropTemp(temp))
			}
			return f, temp, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || try == maxTries {
			return nil, "", stepError(path, "creating temporary file", err)
		}
	}
}

// fill writes, flushes and closes f. With an error it names the step.
func fill(f file, data []byte) (step string, err error) {
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return "writing", errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return "syncing", errors.Join(err, f.Close())
	}
	return "closing", f.Close()
}

// Commit puts the content in its place and flushes the folder.
func (f *File) Commit() error {
	dir, err := f.sys.openDir(filepath.Dir(f.path))
	if err != nil {
		return errors.Join(stepError(f.path, "opening folder", err), f.Discard())
	}
	if err := f.sys.rename(f.temp, f.path); err != nil {
		return errors.Join(stepError(f.path, "renaming", err), dir.Close(), f.Discard())
	}
	f.temp = ""
	if err := dir.Sync(); err != nil {
		return errors.Join(stepError(f.path, "syncing folder", err), dir.Close())
	}
	if err := f.sys.flushName(f.path); err != nil {
		return errors.Join(stepError(f.path, "syncing name", err), dir.Close())
	}
	if err := dir.Close(); err != nil {
		return stepError(f.path, "closing folder", err)
	}
	return nil
}

// Discard takes the temporary file away. After Commit it does nothing.
func (f *File) Discard() error {
	temp := f.temp
	f.temp = ""
	if temp == "" {
		return nil
	}
	return f.sys.dropTemp(temp)
}

// dropTemp removes a temporary file; one that is gone already is fine.
func (s system) dropTemp(temp string) error {
	if err := s.remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing temporary file %q: %w", temp, err)
	}
	return nil
}

// Remove removes the file at path and flushes its folder. A missing file is not
// an error.
func Remove(path string) error { return osSystem().removeFile(path) }

func (s system) removeFile(path string) error {
	dir, err := s.openDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing file %q: opening folder: %w", path, err)
	}
	defer dir.Close() //nolint:errcheck // a folder opened to read has nothing to lose
	err = s.remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing file %q: %w", path, err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("removing file %q: syncing folder: %w", path, err)
	}
	return nil
}

// Mkdir makes the folder dir and its missing parents, flushing the folder above
// each one it made. A folder that is there is left as it is.
func Mkdir(dir string, perm fs.FileMode) error {
	var made []string
	s := osSystem()
	err := s.mkdirAll(dir, perm, &made)
	if err == nil {
		err = s.syncParents(made)
	}
	if err != nil {
		return fmt.Errorf("creating folder %q: %w", dir, err)
	}
	return nil
}

// mkdirAll makes dir and its missing parents and adds the ones it made to made.
func (s system) mkdirAll(dir string, perm fs.FileMode, made *[]string) error {
	for try := 1; ; try++ {
		err := s.mkdir(dir, perm)
		switch {
		case err == nil:
			*made = append(*made, dir)
			return nil
		case !errors.Is(err, fs.ErrNotExist):
			return s.alreadyDir(dir, err)
		case try == maxTries || filepath.Dir(dir) == dir:
			return err
		}
		if err := s.mkdirAll(filepath.Dir(dir), perm, made); err != nil {
			return err
		}
	}
}

// syncParents flushes the folders above dirs.
func (s system) syncParents(dirs []string) error {
	for _, dir := range dirs {
		if err := s.syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// alreadyDir drops the error of a mkdir when the folder is there, as the root
// of a drive always is. One that existed a moment ago and has been removed
// since is for the caller's next step to find.
func (s system) alreadyDir(dir string, mkdirErr error) error {
	info, err := s.stat(dir)
	gone := errors.Is(err, fs.ErrNotExist) && errors.Is(mkdirErr, fs.ErrExist)
	if gone || err == nil && info.IsDir() {
		return nil
	}
	return mkdirErr
}

// syncDir flushes a folder. One that is gone has nothing left to flush.
func (s system) syncDir(dir string) error {
	d, err := s.openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// TempPath returns a path in dir that nobody uses, for a temporary file that is
// made by other means than this package's. Sweep takes it for one of ours.
func TempPath(dir string) string { return filepath.Join(dir, tempPrefix+rand.Text()) }

// IsTemp reports whether name, without its folder, is that of a temporary file
// of this package.
func IsTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

func stepError(path, step string, err error) error {
	return fmt.Errorf("writing file %q: %s: %w", path, step, err)
}

// dirPerm adds the search bits to the permissions of a file.
func dirPerm(perm fs.FileMode) fs.FileMode { return perm | (perm&0o444)>>2 | 0o100 }
