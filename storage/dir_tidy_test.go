package storage

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Files that go with no key: temporary files and locks of the dead go, the locks
// of the living stay, and what is nobody's.
func TestDirTidies(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	lock(t, d, "free")()
	unlock := lock(t, other, "held")
	locks := filepath.Join(dir, locksDir)
	held := namesIn(t, locks)
	held = slices.DeleteFunc(held, func(name string) bool { return strings.Contains(name, "free") })
	plantFile(t, filepath.Join(locks, "README"))
	dead := plantDead(t, dir)
	old := time.Now().Add(-2 * time.Hour)
	err := filepath.WalkDir(locks, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Chtimes(path, old, old)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := namesIn(t, locks); !slices.Equal(got, append([]string{"README"}, held...)) {
		t.Errorf("left are %q, want README and %q", got, held)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("the temporary file of a dead writer is left")
	}
	unlock()
}
