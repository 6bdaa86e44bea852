package storage

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody has the test's thread use files without root's rights, and reports
// whether it does.
func asNobody(t *testing.T) bool {
	if os.Geteuid() != 0 {
		return true
	}
	runtime.LockOSThread()
	before, err := unix.SetfsuidRetUid(65534)
	t.Cleanup(func() {
		_, _ = unix.SetfsuidRetUid(before)
		runtime.UnlockOSThread()
	})
	return err == nil
}
