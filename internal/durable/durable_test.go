package durable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for _, want := range []string{"first", "", strings.Repeat("second", 1000), "3"} {
		if err := WriteFile(t.Context(), path, []byte(want), nil); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path, 1<<20)
		if err != nil || string(got) != want {
			t.Errorf("read back %d bytes, %v; want %d bytes", len(got), err, len(want))
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s is %o, want %o", p, got, want)
		}
	}
}

// The calls are the ones that the package comment promises, in its order.
func TestCallsAreWatchedInOrder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "f")
	var calls []string
	ctx := Watched(t.Context(), func(call, path string) {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			t.Error(err)
		}
		if IsTemp(filepath.Base(rel)) {
			rel = filepath.Join(filepath.Dir(rel), "temp")
		}
		calls = append(calls, call+" "+filepath.ToSlash(rel))
	})
	for range 2 {
		if err := WriteFile(ctx, path, []byte("content"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "content" {
		t.Errorf("content is %q, %v", got, err)
	}
	if err := Remove(ctx, path); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"create a/temp", "mkdir a", "create a/temp", "fsync .",
		"write a/temp", "fsync a/temp", "close a/temp", "rename a/f", "fsync a",
		"create a/temp", "write a/temp", "fsync a/temp", "close a/temp", "rename a/f", "fsync a",
		"remove a/f", "fsync a",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("calls are\n%q, want\n%q", calls, want)
	}
}

func TestWriteFileStepFails(t *testing.T) {
	steps := []struct{ call, base, want string }{ // the old or the new content afterwards
		{"create", "", "old"},
		{"write", "", "old"},
		{"fsync", "", "old"},
		{"close", "", "old"},
		{"rename", "f", "old"},
		{"fsync", "d", "new"},
	}
	for _, step := range steps {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(fmt.Sprintf("%s %s/%d", step.call, step.base, cause), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "d", "f")
				if err := WriteFile(t.Context(), path, []byte("old"), nil); err != nil {
					t.Fatal(err)
				}
				w := watcher(func(call, path string) error {
					base := filepath.Base(path)
					if call != step.call || step.base != base && !(step.base == "" && IsTemp(base)) {
						return nil
					}
					if call == "write" { // a full disk takes a part
						return errors.Join(cause, os.WriteFile(path, []byte("n"), 0))
					}
					return cause
				})
				err := WriteFile(context.WithValue(t.Context(), watchKey{}, w), path, []byte("new"), nil)
				if !errors.Is(err, cause) {
					t.Fatalf("error %v, want %v", err, cause)
				}
				if !strings.Contains(err.Error(), path) {
					t.Errorf("the error %q does not name the path", err)
				}
				got, err := os.ReadFile(path)
				if err != nil || string(got) != step.want {
					t.Errorf("content is %q, %v; want %q", got, err, step.want)
				}
				onlyFile(t, path)
			})
		}
	}
}

// onlyFile checks that path is alone in its folder.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the folder holds %v, want only %s", entries, filepath.Base(path))
	}
}

func TestWriteFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	refused := errors.New("refused")
	for want, check := range map[string]error{"old": nil, "new": refused} {
		_ = os.WriteFile(path, []byte("old"), 0o600)
		err := WriteFile(t.Context(), path, []byte("new"), func() error {
			if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
				t.Errorf("when it is asked for the content is %q, %v", got, err)
			}
			return check
		})
		got, readErr := os.ReadFile(path)
		if !errors.Is(err, check) || readErr != nil || (string(got) == want) {
			t.Errorf("with the answer %v: %v, content %q, %v", check, err, got, readErr)
		}
		onlyFile(t, path)
	}
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "f")
	if err := Remove(t.Context(), path); err != nil {
		t.Errorf("removing in a missing folder: %v", err)
	}
	if err := WriteFile(t.Context(), path, nil, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := WriteFile(t.Context(), filepath.Join(path, "f"), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a folder with a file in it is removed: %v", err)
	}
}

func TestMkdir(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "file")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Join(dir, "a", "b"), filepath.Join(dir, "a"), dir, filepath.VolumeName(dir) + string(filepath.Separator)} {
		if err := Mkdir(d); err != nil {
			t.Errorf("Mkdir(%q): %v", d, err)
		}
	}
	for _, d := range []string{f, filepath.Join(f, "x")} {
		if err := Mkdir(d); err == nil || !strings.Contains(err.Error(), d) {
			t.Errorf("Mkdir(%q) where a file is: %v", d, err)
		}
	}
}

// Writers that make folders and a remover that takes empty ones away get on.
func TestWriteFileWhileFoldersVanish(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	stop := make(chan struct{})
	var remover, writers sync.WaitGroup
	remover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Remove(filepath.Join(dir, "b"))
				_ = os.Remove(dir)
			}
		}
	})
	for i := range 2 {
		writers.Go(func() {
			path := filepath.Join(dir, "b", fmt.Sprint(i))
			for range 20 {
				if err := WriteFile(t.Context(), path, []byte("x"), nil); err != nil {
					t.Error(err)
				}
				if err := Remove(t.Context(), path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	remover.Wait()
}

// A reader beside writers sees one whole content, never a mix and never nothing.
func TestReaderSeesWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 10), bytes.Repeat([]byte("b"), 100_000)}
	if err := WriteFile(t.Context(), path, contents[0], nil); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for _, c := range contents {
		writers.Go(func() {
			for range 30 {
				if err := WriteFile(t.Context(), path, c, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		got, err := ReadFile(path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read a mix of %d bytes", len(got))
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "x", "y")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	old, ahead := time.Now().Add(-2*time.Hour), time.Now().Add(2*time.Hour)
	files := map[string]bool{ // path to whether it stays
		filepath.Join(sub, tempPrefix+"AHEAD"): false, // by a clock that was wrong
		filepath.Join(sub, tempPrefix+"OLD"):   false,
		filepath.Join(dir, tempPrefix+"OLD"):   false,
		filepath.Join(sub, tempPrefix+"NEW"):   true,
		filepath.Join(sub, "value"):            true,
	}
	for path := range files {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := old
		if strings.HasSuffix(path, "AHEAD") {
			at = ahead
		}
		if !strings.HasSuffix(path, "NEW") {
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // where this host's clock is wrong by years
		if err := Sweep(t.Context(), dir, time.Minute); err != nil {
			t.Fatal(err)
		}
	})
	for path, stays := range files {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v, should stay: %v", path, err, stays)
		}
	}
	if err := Sweep(t.Context(), filepath.Join(dir, "none"), time.Hour); err != nil {
		t.Errorf("sweeping a missing folder: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := Sweep(ctx, dir, time.Hour); !errors.Is(err, enough) {
		t.Errorf("a sweep whose context has ended: %v", err)
	}
}
