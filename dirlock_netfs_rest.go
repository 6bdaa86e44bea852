//go:build netbsd || openbsd

package certwright

// networkFS does not tell here: DirOptions.LeaseFiles does.
func networkFS(string) bool { return false }
