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
	"time"
)

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for _, want := range []string{"first", "", strings.Repeat("second", 1000), "3"} {
		if err := WriteFile(path, []byte(want), 0o600); err != nil {
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

// faultySystem is the operating system with a fault in one step. It notes the
// steps it is asked for.
type faultySystem struct {
	fail  string // the step that fails
	err   error
	steps []string
}

func (f *faultySystem) step(name string) error {
	f.steps = append(f.steps, name)
	if name == f.fail {
		return f.err
	}
	return nil
}

func (f *faultySystem) system() system {
	s, real := osSystem(), osSystem()
	s.mkdir = func(dir string, perm fs.FileMode) error {
		return cmpErr(f.step("mkdir"), func() error { return real.mkdir(dir, perm) })
	}
	s.create = func(path string, perm fs.FileMode) (file, error) {
		if err := f.step("create"); err != nil {
			return nil, err
		}
		inner, err := real.create(path, perm)
		return &faultyFile{inner, f}, err
	}
	s.openDir = func(dir string) (folder, error) {
		if err := f.step("opendir"); err != nil {
			return nil, err
		}
		inner, err := real.openDir(dir)
		return &faultyDir{inner, f}, err
	}
	s.rename = func(from, to string) error {
		return cmpErr(f.step("rename"), func() error { return real.rename(from, to) })
	}
	s.remove = func(path string) error {
		return cmpErr(f.step("remove"), func() error { return real.remove(path) })
	}
	return s
}

// cmpErr returns err, or what f returns when err is nil.
func cmpErr(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

type faultyFile struct {
	file
	sys *faultySystem
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.sys.step("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2]) // a full disk takes a part
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultyFile) Sync() error { return cmpErr(f.sys.step("sync"), f.file.Sync) }

func (f *faultyFile) Close() error { return errors.Join(f.file.Close(), f.sys.step("close")) }

type faultyDir struct {
	folder
	sys *faultySystem
}

func (d *faultyDir) Sync() error { return cmpErr(d.sys.step("syncdir"), d.folder.Sync) }

func TestWriteFileOrder(t *testing.T) {
	f := &faultySystem{}
	p, err := f.system().prepare(filepath.Join(t.TempDir(), "new", "file"), []byte("x"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("mkdir create opendir syncdir write sync close opendir rename syncdir")
	if !slices.Equal(f.steps, want) {
		t.Errorf("steps\n%q, want\n%q", f.steps, want)
	}
}

func TestWriteFileStepFails(t *testing.T) {
	steps := map[string]string{ // step to the old or new content afterwards
		"create": "old", "write": "old", "sync": "old", "close": "old",
		"opendir": "old", "rename": "old", "syncdir": "new",
	}
	for step, want := range steps {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(fmt.Sprintf("%s/%d", step, cause), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "f")
				if err := WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
				f := &faultySystem{fail: step, err: cause}
				p, err := f.system().prepare(path, []byte("new"), 0o600)
				if err == nil {
					err = p.Commit()
				}
				if !errors.Is(err, cause) {
					t.Fatalf("error %v, want %v", err, cause)
				}
				if !strings.Contains(err.Error(), path) {
					t.Errorf("the error %q does not name the path", err)
				}
				got, err := os.ReadFile(path)
				if err != nil || string(got) != want {
					t.Errorf("content is %q, %v; want %q", got, err, want)
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

func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Prepare(path, []byte("new"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Discard(); err != nil {
			t.Error(err)
		}
	}
	onlyFile(t, path)
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "f")
	if err := Remove(path); err != nil {
		t.Errorf("removing in a missing folder: %v", err)
	}
	if err := WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	f := &faultySystem{fail: "remove", err: syscall.EIO}
	if err := f.system().removeFile(path); !errors.Is(err, syscall.EIO) {
		t.Errorf("a failed removal returns %v", err)
	}
}

func TestMkdir(t *testing.T) {
	dir := t.TempDir()
	f := filepath.Join(dir, "file")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Join(dir, "a", "b"), filepath.Join(dir, "a"), dir, filepath.VolumeName(dir) + string(filepath.Separator)} {
		if err := Mkdir(d, 0o700); err != nil {
			t.Errorf("Mkdir(%q): %v", d, err)
		}
	}
	for _, d := range []string{f, filepath.Join(f, "x")} {
		if err := Mkdir(d, 0o700); err == nil || !strings.Contains(err.Error(), d) {
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
				if err := WriteFile(path, []byte("x"), 0o600); err != nil {
					t.Error(err)
				}
				if err := Remove(path); err != nil {
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
func TestS10_ReaderSeesWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 10), bytes.Repeat([]byte("b"), 100_000)}
	if err := WriteFile(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for _, c := range contents {
		writers.Go(func() {
			for range 30 {
				if err := WriteFile(path, c, 0o600); err != nil {
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
	old := time.Now().Add(-2 * time.Hour)
	files := map[string]bool{ // path to whether it stays
		filepath.Join(sub, tempPrefix+"OLD"): false,
		filepath.Join(dir, tempPrefix+"OLD"): false,
		filepath.Join(sub, tempPrefix+"NEW"): true,
		filepath.Join(sub, "value"):          true,
	}
	for path := range files {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(path, "NEW") {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Sweep(t.Context(), dir, time.Hour); err != nil {
		t.Fatal(err)
	}
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
