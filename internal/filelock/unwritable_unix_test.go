//go:build unix

package filelock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/filelock"
)

// An error names the path and what to do about it, and comes at once (S1).
func TestFolderThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	newFile(t, filepath.Join(dir, "file"), "")
	readOnly := filepath.Join(dir, "readonly")
	if err := os.Mkdir(readOnly, 0o500); err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(dir, "file"), filepath.Join(dir, "missing", "locks")}
	if asNobody(t) {
		paths = append(paths, readOnly)
	}
	for _, path := range paths {
		_, err := filelock.New(path, 0).Lock(t.Context(), "a")
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "check that this process may") {
			t.Errorf("Lock: %v; want an error that names %s and the cure", err, path)
		}
	}
}
