//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package certwright

import "os"

func openLockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// tryLockFile has no lock of the kernel to try for: lease files are used.
func tryLockFile(*os.File) (bool, error) { return false, errNoKernelLock }

// networkFS cannot tell; without kernel locks it makes no difference.
func networkFS(string) bool { return false }
