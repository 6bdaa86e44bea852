package filelock

import "golang.org/x/sys/unix"

// bootID returns an ID of this boot of the kernel. Empty means that there is
// none.
func bootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}
