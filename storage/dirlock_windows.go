package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// openLockFile opens the file so that it can be removed while it is open. One
// that is removed but not yet closed by all refuses access until it is. flag may
// be os.O_CREATE.
func openLockFile(path string, flag int) (*lockFile, error) {
	how := uint32(windows.OPEN_EXISTING)
	if flag == os.O_CREATE {
		how = windows.OPEN_ALWAYS
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, how, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION) ||
		errors.Is(err, windows.ERROR_DELETE_PENDING) {
		if info, statErr := os.Stat(path); statErr != nil || !info.IsDir() {
			return nil, errors.Join(errLockFileBusy, &fs.PathError{Op: "open", Path: path, Err: err})
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return newLockFile(os.NewFile(uintptr(h), path))
}

// try tries LockFileEx on a byte far behind the end of the file.
func (f *lockFile) try() (bool, error) {
	at := &windows.Overlapped{OffsetHigh: 1}
	err := windows.LockFileEx(windows.Handle(f.file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	case errors.Is(err, windows.ERROR_NOT_SUPPORTED), errors.Is(err, windows.ERROR_INVALID_FUNCTION):
		return false, errors.Join(errNoKernelLock, err)
	}
	return false, os.NewSyscallError("LockFileEx", err)
}

// networkFS reports whether dir is on another host, as far as Windows tells.
func networkFS(dir string) bool {
	root, err := windows.UTF16PtrFromString(filepath.VolumeName(dir) + `\`)
	return err == nil && windows.GetDriveType(root) == windows.DRIVE_REMOTE
}
