package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// patience is how long a call is tried again while another process's open
// handle is in its way.
const patience = 2 * time.Second

// Windows error codes that say so, from winerror.h.
const (
	errAccessDenied     = syscall.Errno(5)
	errSharingViolation = syscall.Errno(32)
	errDirectory        = syscall.Errno(267)
)

// noHandle stands for a folder, which Windows does not flush.
type noHandle struct{}

func (noHandle) Sync() error  { return nil }
func (noHandle) Close() error { return nil }

func openFolder(dir string) (folder, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: errDirectory}
	}
	return noHandle{}, nil
}

func rename(from, to string) error {
	return retry(func() error { return os.Rename(from, to) })
}

func removeName(path string) error {
	return retry(func() error { return os.Remove(path) })
}

func openRead(path string) (f *os.File, err error) {
	err = retry(func() error { f, err = os.Open(path); return err })
	return f, err
}

// flushName flushes the file that was renamed to path. One that another writer
// has replaced or removed since needs no flush from us.
func flushName(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errSharingViolation) || errors.Is(err, errAccessDenied) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// retry calls f until it fails for another reason than an open handle, or until
// patience is at its end.
func retry(f func() error) error {
	deadline := time.Now().Add(patience)
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		err := f()
		busy := errors.Is(err, errAccessDenied) || errors.Is(err, errSharingViolation)
		if !busy || time.Now().After(deadline) {
			return err
		}
		time.Sleep(delay)
	}
}
