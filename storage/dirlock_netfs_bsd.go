//go:build darwin || dragonfly || freebsd

package storage

import "golang.org/x/sys/unix"

// networkFS reports whether dir is on a file system that is not local. An error
// is for the first use of the folder to find.
func networkFS(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	return st.Flags&unix.MNT_LOCAL == 0
}
