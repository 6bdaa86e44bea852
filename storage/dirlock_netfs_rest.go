//go:build netbsd || openbsd

package storage

// networkFS does not tell here: DirOptions.LeaseFiles does.
func networkFS(string) bool { return false }
