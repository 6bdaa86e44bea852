package filelock

import (
	"os"
	"strings"
)

// bootID returns an ID of this boot of the kernel, which its containers share.
// Empty means that there is none.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
