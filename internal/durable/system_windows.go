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

// isBusy reports whether err is ERROR_ACCESS_DENIED or ERROR_SHARING_VIOLATION
// of winerror.h, which tell of an open handle.
func isBusy(err error) bool {
	return errors.Is(err, syscall.ERROR_ACCESS_DENIED) || errors.Is(err, syscall.Errno(32))
}

// syncName flushes the file at path: a folder cannot be flushed. One that another
// writer has replaced or removed since needs no flush from us.
func syncName(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || isBusy(err) || errors.Is(err, syscall.EISDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
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

// retry calls f until it fails for another reason than an open handle, or until
// patience is at its end.
func retry(f func() error) error {
	deadline := time.Now().Add(patience)
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		err := f()
		if !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(delay)
	}
}
