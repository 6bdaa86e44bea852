package durable

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The calls are the ones that the package comment promises, in its order.
func TestDiskIsWatched(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "f")
	var calls []string
	d := DiskOf(Watched(t.Context(), func(call, path string) {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			t.Error(err)
		}
		if IsTemp(filepath.Base(rel)) {
			rel = filepath.Join(filepath.Dir(rel), "temp")
		}
		calls = append(calls, call+" "+filepath.ToSlash(rel))
	}))
	f, err := d.Prepare(path, []byte("content"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "content" {
		t.Errorf("content is %q, %v", got, err)
	}
	if err := d.Remove(path); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir a", "create a/temp", "open .", "fsync .", "close .",
		"write a/temp", "write a/temp", "fsync a/temp", "close a/temp",
		"open a", "rename a/f", "fsync a", "close a",
		"open a", "remove a/f", "fsync a", "close a",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("calls are\n%q, want\n%q", calls, want)
	}
}
