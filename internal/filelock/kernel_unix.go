//go:build darwin || freebsd || linux

package filelock

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFile is os.OpenFile.
func openFile(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) }

// tryKernelLock tries flock(2) and reports whether it has it; where there is no
// such lock it has not. It belongs to the open file and not to the process, so
// that two Folders in one process exclude each other too.
func tryKernelLock(f *os.File, m mode) (bool, error) {
	how := unix.LOCK_SH
	if m == exclusive {
		how = unix.LOCK_EX
	}
	err := flock(f, how|unix.LOCK_NB)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.ENOLCK), errors.Is(err, errors.ErrUnsupported):
		return false, nil
	}
	return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
}

// unlockKernel gives back what tryKernelLock got, if it did.
func unlockKernel(f *os.File) error {
	if err := flock(f, unix.LOCK_UN); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return nil
}

// flock calls flock(2) until no signal interrupts it.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR { //nolint:errorlint // a system call returns it as it is
			return err
		}
	}
}

// hostOf returns what tells this kernel and this mount of f's file system from
// others. Empty means that it cannot be told.
func hostOf(boot string, f *os.File) (string, error) {
	if boot == "" {
		return "", nil
	}
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", nil
	}
	return fmt.Sprintf("%s/%d", boot, st.Dev), nil
}
