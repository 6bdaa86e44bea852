//go:build unix

package durable

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// readFile makes four system calls: open, fstat, read, close. Opened so, a FIFO
// does not wait for a writer.
func readFile(path string, limit int64) ([]byte, error) {
	fd, err := openNow(path)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		// Another program's lease on the file has to be broken first, which
		// takes an open that waits.
		return readAny(path, limit)
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.EOPNOTSUPP): // a socket, or a device without a driver
		return nil, errors.Join(ErrNotRegular, err)
	case err != nil:
		return nil, err
	}
	defer syscall.Close(fd) //nolint:errcheck // reading loses nothing
	var st syscall.Stat_t
	if err := again(func() error { return syscall.Fstat(fd, &st) }); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, ErrNotRegular
	}
	return readAll(fdReader(fd), st.Size, limit)
}

func openNow(path string) (fd int, err error) {
	err = again(func() error {
		fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
		return err
	})
	return fd, os.NewSyscallError("open", err)
}

// fdReader reads from an open file.
type fdReader int

func (fd fdReader) Read(p []byte) (n int, err error) {
	err = again(func() error { n, err = syscall.Read(int(fd), p); return err })
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// again calls f until no signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); err != syscall.EINTR { //nolint:errorlint // a system call returns it as it is
			return err
		}
	}
}
