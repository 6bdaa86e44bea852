package adopt

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
)

func TestFS(t *testing.T) {
	tree := FS(fstest.MapFS{
		"a/b/c":  {Data: []byte("x")},
		"a/d":    {Data: []byte("y")},
		"ab/e":   {Data: []byte("z")},
		"a/pipe": {Mode: fs.ModeNamedPipe},
		"big":    {Data: make([]byte, maxFile+2)},
	})
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
	for prefix, want := range map[string][]string{"a": {"a/b/c", "a/d", "a/pipe"}, "none": nil, "": {"a/b/c", "a/d", "a/pipe", "ab/e", "big"}} {
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
