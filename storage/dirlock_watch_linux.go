package storage

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockWatch tells when a lock file may have become free: inotify(7) says that
// one who had it open to write has closed it, which the end of a process does
// too, or that the file was removed. Reading that holds no thread. Without
// inotify, of which a user has a limited number, it is a pause and no more.
//
// In a synctest bubble a wait for another's lock takes real time.
type lockWatch struct {
	pause pause
	file  *os.File // nil: none
	marks []int    // what is watched
}

func newLockWatch() *lockWatch {
	w := &lockWatch{}
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		w.file = os.NewFile(uintptr(fd), "inotify")
	}
	return w
}

// hears reports whether it does more than pause.
func (w *lockWatch) hears() bool { return w.file != nil }

// add watches the file at path, beside what is watched already. An error leaves
// the pause.
func (w *lockWatch) add(path string) {
	w.control(func(fd int) {
		if mark, err := unix.InotifyAddWatch(fd, path, unix.IN_CLOSE_WRITE|unix.IN_ATTRIB); err == nil {
			w.marks = append(w.marks, mark)
		}
	})
}

// clear ends all watching. What happened before may still be told later, which
// costs somebody a try.
func (w *lockWatch) clear() {
	w.control(func(fd int) {
		for _, mark := range w.marks {
			_, _ = unix.InotifyRmWatch(fd, uint32(mark)) //nolint:gosec // a mark is positive; one whose file is gone went with it
		}
	})
	w.marks = w.marks[:0]
}

func (w *lockWatch) control(f func(fd int)) {
	if w.file == nil {
		return
	}
	if c, err := w.file.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// wait waits until something has happened to a file, the pause is over or ctx
// ends. The kernel tells of a closing a moment before it lets the lock go, so
// that the pauses after it are short again.
func (w *lockWatch) wait(ctx context.Context) error {
	if w.file == nil {
		return w.pause.wait(ctx)
	}
	if w.file.SetReadDeadline(time.Now().Add(w.pause.take())) != nil {
		return w.pause.wait(ctx) // it cannot be waited for
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if ctx.Err() != nil {
		return endOf(ctx)
	}
	var events [unix.SizeofInotifyEvent * 64]byte
	_, err := w.file.Read(events[:])
	switch {
	case ctx.Err() != nil:
		return endOf(ctx)
	case err == nil:
		w.pause = kernelPause()
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return w.pause.wait(ctx)
	}
	return nil
}

func (w *lockWatch) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
