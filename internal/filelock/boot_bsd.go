//go:build darwin || freebsd

package filelock

import (
	"encoding/hex"

	"golang.org/x/sys/unix"
)

// bootID returns an ID of this boot of the kernel. Empty means that there is
// none, as before FreeBSD 13.
func bootID() string {
	for _, name := range []string{"kern.bootsessionuuid", "kern.boot_id"} { // of macOS, of FreeBSD
		if id, err := unix.SysctlRaw(name); err == nil {
			return hex.EncodeToString(id)
		}
	}
	return ""
}
