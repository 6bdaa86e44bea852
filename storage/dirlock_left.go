package storage

import (
	"errors"
	"io/fs"
	"time"
)

// leftFor is how long the file of a lock stays after it was unlocked: making and
// removing it takes far longer than the locking itself, and whoever waits for
// the lock has the file open already.
const leftFor = time.Second

// leave notes that the lock file at path is to be removed if nobody uses it.
func (d *Dir) leave(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.left) == 0 && !d.closed {
		d.clearing.Reset(leftFor)
	}
	d.left[path] = struct{}{}
}

// clearLeft removes the lock files that were left. One that cannot be removed is
// in nobody's way.
func (d *Dir) clearLeft() {
	d.clear <- struct{}{}
	defer func() { <-d.clear }()
	d.mu.Lock()
	left := d.left
	d.left = make(map[string]struct{})
	d.mu.Unlock()
	for path := range left {
		_ = clearKernelLock(path)
	}
}

// clearKernelLock removes the file of a lock that nobody holds. It takes the
// lock as any taker does, so that nobody can hold it meanwhile without noticing.
func clearKernelLock(path string) error {
	f, err := openLockFile(path, 0)
	if err == nil {
		var k *kernelLock
		if k, err = tryKernel(f, path); k != nil {
			return k.remove()
		}
		if err == nil { // held, by one who will see to it
			return f.close()
		}
	}
	if errors.Is(err, errLockFileBusy) || errors.Is(err, fs.ErrNotExist) {
		return nil // its holder is removing it, or has
	}
	return err
}
