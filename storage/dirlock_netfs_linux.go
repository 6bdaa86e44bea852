package storage

import "golang.org/x/sys/unix"

// networkFS reports whether dir is on a file system whose flock may hold on this
// host only. An error is for the first use of the folder to find.
func networkFS(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	return isNetworkMagic(uint32(st.Type)) //nolint:gosec // the magic numbers have 32 bits
}

// isNetworkMagic knows the magic numbers of statfs(2), partly from
// linux/magic.h. FUSE can be anything, and is mostly remote where servers share
// it; Ceph, GFS2 and OCFS2 have an flock that holds on all hosts.
func isNetworkMagic(magic uint32) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.CODA_SUPER_MAGIC,
		0x0BD00BD0: // Lustre
		return true
	}
	return false
}
