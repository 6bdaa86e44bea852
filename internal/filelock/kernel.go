package filelock

import (
	"errors"
	"os"
)

// mode is how a lock of the kernel excludes others.
type mode int

const (
	shared mode = iota
	exclusive
)

// dropKernelLock unlocks and closes f, which may be nil. Closing alone would not
// do: a child process that is just being started has a copy of the descriptor.
func dropKernelLock(f *os.File) error {
	if f == nil {
		return nil
	}
	return errors.Join(unlockKernel(f), f.Close())
}
