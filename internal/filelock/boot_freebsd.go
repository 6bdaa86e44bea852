package filelock

import (
	"encoding/hex"

	"golang.org/x/sys/unix"
)

// bootID returns an ID of this boot of the kernel. Empty means that there is
// none, as before FreeBSD 13.
func bootID() string {
	id, err := unix.SysctlRaw("kern.boot_id")
	if err != nil {
		return ""
	}
	return hex.EncodeToString(id)
}
