//go:build darwin || freebsd || linux

package filelock

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernelLock tries flock(2) and reports whether f has it, until it is closed;
// where there is no such lock it has not. It belongs to the open file and not to
// the process, so that two Folders in one process exclude each other too.
func kernelLock(f *os.File) (bool, error) { return flock(f, unix.LOCK_EX) }

// kernelLockIsFree reports whether nobody has the lock of f's file. Those who
// look are not in each other's way.
func kernelLockIsFree(f *os.File) (bool, error) { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) (bool, error) {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.ENOLCK), errors.Is(err, errors.ErrUnsupported):
			return false, nil
		default:
			return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// hostOf returns what tells this kernel and this mount of f's file system from
// others. Empty means that it cannot be told.
func hostOf(boot string, f *os.File) (string, error) {
	info, err := f.Stat()
	if boot == "" || err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", nil
	}
	return fmt.Sprintf("%s/%d", boot, st.Dev), nil
}
