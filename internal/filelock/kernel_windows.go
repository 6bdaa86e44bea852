package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// openFile opens a file so that others can remove it meanwhile, as os.OpenFile
// does not. It knows the flags that are used here.
func openFile(path string, flag int) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	access := uint32(windows.GENERIC_READ)
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		access |= windows.GENERIC_WRITE
	}
	how := uint32(windows.OPEN_EXISTING)
	if flag&os.O_CREATE != 0 {
		how = windows.CREATE_NEW
	}
	h, err := windows.CreateFile(name, access,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, how, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_DELETE_PENDING) {
		// A file that was removed refuses access until all have closed it.
		if _, statErr := os.Lstat(path); statErr != nil && flag&os.O_CREATE == 0 {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// lockedByte is what LockFileEx locks: far behind the end, since what is locked
// cannot be read by others.
func lockedByte() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: 1} }

// tryKernelLock tries LockFileEx and reports whether it has it; where there is no
// such lock it has not. It belongs to the handle.
func tryKernelLock(f *os.File, m mode) (bool, error) {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if m == exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, lockedByte())
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING),
		errors.Is(err, windows.ERROR_NOT_SUPPORTED), errors.Is(err, windows.ERROR_INVALID_FUNCTION):
		return false, nil
	}
	return false, &os.PathError{Op: "LockFileEx", Path: f.Name(), Err: err}
}

// unlockKernel gives back what tryKernelLock got, if it did.
func unlockKernel(f *os.File) error {
	err := windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, lockedByte())
	if err != nil && !errors.Is(err, windows.ERROR_NOT_LOCKED) && !errors.Is(err, windows.ERROR_INVALID_FUNCTION) {
		return &os.PathError{Op: "UnlockFileEx", Path: f.Name(), Err: err}
	}
	return nil
}

// hostOf returns what tells this boot of this host from others. Empty means that
// it cannot be told. Other hosts' locks on a share are the server's here.
func hostOf(boot string, _ *os.File) (string, error) { return boot, nil }

// bootID returns an ID of this boot: of the installation, and a count of its
// boots. Empty means that there is none.
func bootID() string {
	const memory = `SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters`
	machine, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Cryptography`, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return ""
	}
	defer machine.Close() //nolint:errcheck // reading loses nothing
	guid, _, err := machine.GetStringValue("MachineGuid")
	if err != nil {
		return ""
	}
	boots, err := registry.OpenKey(registry.LOCAL_MACHINE, memory, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer boots.Close() //nolint:errcheck // reading loses nothing
	count, _, err := boots.GetIntegerValue("BootId")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s/%d", guid, count)
}
