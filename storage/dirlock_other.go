//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package storage

import "os"

func openLockFile(path string, flag int) (*lockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	return newLockFile(f)
}

// try has no lock of the kernel to try for: lease files are used.
func (f *lockFile) try() (bool, error) { return false, errNoKernelLock }

// networkFS cannot tell; without kernel locks it makes no difference.
func networkFS(string) bool { return false }
