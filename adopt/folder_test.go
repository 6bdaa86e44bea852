package adopt

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestFolder(t *testing.T) {
	tree := folder{"", fstest.MapFS{
		"a/b/c":       {Data: []byte("x")},
		"a/d":         {Data: []byte("y")},
		"ab/e":        {Data: []byte("z")},
		"a/pipe":      {Mode: fs.ModeNamedPipe},
		"big":         {Data: make([]byte, maxFile+2)},
		"ab/1/2/3/no": {Data: []byte("deep")},
	}}
	ctx := t.Context()
	for _, missing := range []string{"a/b", "none", "../x", "/a/d", "a/d/e", ""} {
		if _, err := tree.Load(ctx, missing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Load(%q) = %v; want not found", missing, err)
		}
	}
	if _, err := tree.Load(ctx, "a/pipe"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of a pipe = %v", err)
	}
	if got, err := tree.Load(ctx, "a/b/c"); err != nil || string(got) != "x" {
		t.Errorf("Load = %q, %v", got, err)
	}
	if got, err := tree.Load(ctx, "big"); err != nil || len(got) != maxFile+1 {
		t.Errorf("Load of a giant file = %d bytes, %v", len(got), err)
	}
	for prefix, want := range map[string][]string{
		"a": {"a/b/c", "a/d", "a/pipe"}, "none": nil, "": {"a/b/c", "a/d", "a/pipe", "ab/e", "big"},
		"ab": {"ab/1/2/3/no", "ab/e"},
	} {
		if got, err := tree.List(ctx, prefix); err != nil || !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, %v; want %q", prefix, got, err, want)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := tree.Load(ended, "a/d"); !errors.Is(err, context.Canceled) {
		t.Errorf("Load on an ended context = %v", err)
	}
	if _, err := tree.List(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("List on an ended context = %v", err)
	}
}

func TestFolderFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "real", "in"), 0o700),
		os.WriteFile(filepath.Join(dir, "real", "in", "x"), []byte("x"), 0o600),
		os.Mkdir(filepath.Join(dir, "list"), 0o700),
		os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "list", "far")),
		os.Symlink(filepath.Join("..", "real", "in", "x"), filepath.Join(dir, "list", "file")),
		os.Symlink("nowhere", filepath.Join(dir, "list", "lost")),
		os.Symlink(".", filepath.Join(dir, "real", "in", "self")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := folder{dir, os.DirFS(dir)}
	got, err := tree.List(t.Context(), "list")
	want := []string{"list/far/in/self/x", "list/far/in/x", "list/file", "list/lost"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("List = %q, %v; want %q", got, err, want)
	}
	for _, missing := range []string{"a/\x00", "a/" + strings.Repeat("d", 300)} {
		if _, err := tree.Load(t.Context(), missing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Load(%q) = %v; want not found", missing, err)
		}
	}
	for _, key := range want[:3] {
		if value, err := tree.Load(t.Context(), key); err != nil || string(value) != "x" {
			t.Errorf("Load(%q) = %q, %v", key, value, err)
		}
	}
}
