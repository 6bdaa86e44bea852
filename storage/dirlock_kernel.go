package storage

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
	firstTry = 50 * time.Microsecond
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
	file *lockFile
	left func(path string) // told that the file stays, unlocked
}

func kernelPause() pause { return pause{next: firstTry, soon: soonTry, longest: lastTry} }

// kernelTaker waits for the lock on the file at path. The file may be removed by
// who has it locked; whoever then locks what is no longer there opens anew.
type kernelTaker struct {
	path    string
	watches *lockWatches

	file  *lockFile  // nil: to be opened
	watch *lockWatch // nil until there is something to wait for
	added bool       // the watch looks at file
	busy  int        // rounds in a row in which the file was being removed
}

// wait waits until it has the lock or ctx ends. settle follows.
func (t *kernelTaker) wait(ctx context.Context) (*kernelLock, error) {
	for {
		k, err := t.try()
		switch {
		case k != nil:
			return k, nil
		case errors.Is(err, errLockFileBusy) && t.busy < maxLockFileTries:
			t.file = nil
			if t.busy++; t.busy%busyBurst != 0 {
				continue // most likely the holder has just unlocked: be quick
			}
		case err != nil:
			return nil, err
		case !t.added:
			// What happened before the watch was there is seen by one more try.
			t.added, t.busy = true, 0
			t.borrow().add(t.path)
			continue
		}
		if err := t.borrow().wait(ctx); err != nil {
			if t.file != nil {
				err = errors.Join(err, t.file.close())
			}
			return nil, err
		}
	}
}

// settle gives back what the wait has used.
func (t *kernelTaker) settle() {
	if t.watch != nil {
		t.watches.giveBack(t.watch)
		t.watch = nil
	}
}

// borrow returns the taker's watch.
func (t *kernelTaker) borrow() *lockWatch {
	if t.watch == nil {
		t.watch = t.watches.lend()
	}
	return t.watch
}

// try tries once. It returns nil and nil when another has the lock; with an
// error the file is closed.
func (t *kernelTaker) try() (k *kernelLock, err error) {
	if t.file == nil {
		t.added = false
		if t.file, err = openLock(t.path); err != nil {
			return nil, err
		}
	}
	if k, err = tryKernel(t.file, t.path); k != nil || err != nil {
		return k, err
	}
	// Held, but if it was removed nobody will unlock what others lock.
	k = &kernelLock{path: t.path, file: t.file}
	if err := k.verify(); errors.Is(err, ErrLeaseLost) {
		return nil, errors.Join(errLockFileBusy, err, t.file.close())
	}
	return nil, nil
}

// tryKernel tries for the lock on f, once. It returns nil and nil when another
// has it; with an error it closes f.
func tryKernel(f *lockFile, path string) (*kernelLock, error) {
	held, err := f.try()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking file %q: %w", path, err), f.close())
	}
	if !held {
		return nil, nil
	}
	k := &kernelLock{path: path, file: f}
	err = k.verify()
	if errors.Is(err, ErrLeaseLost) || errors.Is(err, fs.ErrPermission) {
		// Removed by the holder before us or, on Windows, about to be.
		err = errors.Join(errLockFileBusy, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return k, nil
}

// openLock opens the lock file, making it and its folder. An empty folder in its
// place is removed; anything else there is an error that names the path.
func openLock(path string) (*lockFile, error) {
	f, err := openLockFile(path, os.O_CREATE)
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
	var there fileID
	err := readID(k.path, &there)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at lock file %q: %w", k.path, err)
	}
	if err != nil || !there.same(&k.file.id) {
		return fmt.Errorf("lock file %q was removed: %w", k.path, ErrLeaseLost)
	}
	return nil
}

// instant implements hold. These are the locks of local file systems.
func (k *kernelLock) instant() bool { return true }

// release unlocks the file and leaves it for the next holder, or to be removed.
func (k *kernelLock) release() error {
	err := k.file.close()
	k.left(k.path)
	return err
}

// remove removes the file while it is locked, so that nobody can lock it after
// us without noticing, and unlocks it.
func (k *kernelLock) remove() error {
	var err error
	if k.verify() == nil {
		err = os.Remove(k.path)
	}
	return errors.Join(err, k.file.close())
}
