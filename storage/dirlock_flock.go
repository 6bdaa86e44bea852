//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package storage

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// fileID tells a file from others.
type fileID struct{ st unix.Stat_t }

func (f *fileID) same(g *fileID) bool { return f.st.Dev == g.st.Dev && f.st.Ino == g.st.Ino }

// readID reads what is at path into id. It is os.Stat without its allocations.
func readID(path string, id *fileID) error {
	return untilDone(func() error { return unix.Stat(path, &id.st) })
}

// lockFile is an open lock file. It is no os.File, whose opening takes four
// system calls more.
type lockFile struct {
	fd int
	id fileID
}

// openLockFile opens the file at path. flag may be os.O_CREATE.
func openLockFile(path string, flag int) (*lockFile, error) {
	f := &lockFile{}
	err := untilDone(func() (err error) {
		f.fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK|flag, 0o600)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := untilDone(func() error { return unix.Fstat(f.fd, &f.id.st) }); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "fstat", Path: path, Err: err}, f.close())
	}
	return f, nil
}

// try tries flock(2), which belongs to the open file and not to the process: two
// DirStorages in one process exclude each other too.
func (f *lockFile) try() (bool, error) {
	err := untilDone(func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return false, errors.Join(errNoKernelLock, err)
	}
	return false, os.NewSyscallError("flock", err)
}

// close unlocks and closes the file. It is the last call. Closing alone would not
// do: a child process that is just being started has a copy of the descriptor.
func (f *lockFile) close() error {
	_ = untilDone(func() error { return unix.Flock(f.fd, unix.LOCK_UN) }) // or the close does it
	return os.NewSyscallError("close", unix.Close(f.fd))
}

// untilDone calls f until no signal interrupts it.
func untilDone(f func() error) error {
	for {
		if err := f(); err != unix.EINTR { //nolint:errorlint // a system call returns it as it is
			return err
		}
	}
}
