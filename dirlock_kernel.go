package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certwright/certwright/internal/durable"
)

const (
	// The delays between two tries for a kernel lock: see pause. Trying, unlike
	// waiting in the kernel, ends when the context does and holds no thread.
	firstTry = 500 * time.Microsecond
	soonTry  = 5 * time.Millisecond
	lastTry  = 25 * time.Millisecond

	// kernelCheckEvery is how often a holder looks whether its lock file is
	// still the one that others would lock.
	kernelCheckEvery = time.Second

	// maxLockFileTries bounds the rounds in a row in which the lock file cannot
	// be opened because somebody is removing it or its folder.
	maxLockFileTries = 500

	// busyBurst is how many of these rounds follow without a delay.
	busyBurst = 5
)

var (
	// errNoKernelLock means that the file system or the system has no lock.
	errNoKernelLock = errors.New("no file locks here")

	// errLockFileBusy means that the lock file is just being removed.
	errLockFileBusy = errors.New("lock file is being removed")
)

// kernelLock is a lock that the kernel holds on an open file, and lets go when
// the process dies.
type kernelLock struct {
	path string
	file *os.File
	info fs.FileInfo // of file
}

// lockKernel waits for the lock on the file at path. The holder removes the file
// when it unlocks; whoever then locks what is no longer there opens anew.
func lockKernel(ctx context.Context, path string) (*kernelLock, error) {
	delay := pause{next: firstTry, soon: soonTry, longest: lastTry}
	busy := 0
	var f *os.File
	for {
		var err error
		if f == nil {
			f, err = openLock(path)
		}
		var k *kernelLock
		if err == nil {
			k, err = tryKernel(f, path)
		}
		switch {
		case k != nil:
			return k, nil
		case err == nil: // another has it
			busy = 0
		case errors.Is(err, errLockFileBusy) && busy < maxLockFileTries:
			f = nil
			if busy++; busy%busyBurst != 0 {
				continue // most likely the holder has just unlocked: be quick
			}
		default:
			return nil, err
		}
		if err := delay.wait(ctx); err != nil {
			if f != nil {
				err = errors.Join(err, f.Close())
			}
			return nil, err
		}
	}
}

// tryKernel tries for the lock on f, once. It returns nil and nil when another
// has it; with an error it closes f.
func tryKernel(f *os.File, path string) (*kernelLock, error) {
	held, err := tryLockFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking file %q: %w", path, err), f.Close())
	}
	if !held {
		return nil, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	k := &kernelLock{path: path, file: f, info: info}
	err = k.verify()
	if errors.Is(err, ErrLeaseLost) || errors.Is(err, fs.ErrPermission) {
		// Removed by the holder before us or, on Windows, about to be.
		err = errors.Join(errLockFileBusy, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return k, nil
}

// openLock opens the lock file, making it and its folder. An empty folder in its
// place is removed; anything else there is an error that names the path.
func openLock(path string) (*os.File, error) {
	f, err := openLockFile(path)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, errLockFileBusy):
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		// Somebody removed the folder of locks. The storage's own folder, above
		// it, is not made anew.
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		return nil, errLockFileBusy
	}
	if info, statErr := os.Stat(path); statErr == nil && info.IsDir() && durable.Remove(path) == nil {
		return nil, errLockFileBusy
	}
	return nil, fmt.Errorf("opening lock file: %w", err)
}

func (k *kernelLock) keep() error { return k.verify() }

// verify checks that the locked file is still the one at its path: otherwise
// another can lock the new one.
func (k *kernelLock) verify() error {
	info, err := os.Stat(k.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at lock file: %w", err)
	}
	if err != nil || !os.SameFile(info, k.info) {
		return fmt.Errorf("lock file %q was removed: %w", k.path, ErrLeaseLost)
	}
	return nil
}

// release removes the file while it is locked, so that nobody can lock it after
// us without noticing, and closes it, which unlocks. A file that cannot be
// removed is in nobody's way.
func (k *kernelLock) release() error {
	if k.verify() == nil {
		_ = os.Remove(k.path)
	}
	return k.file.Close()
}
