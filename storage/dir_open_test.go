package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestS17_WidePermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := filepath.Join(t.TempDir(), "store")
	d := openDir(t, dir, DirOptions{})
	if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	file := d.recordFile("v1/x")
	chmod(t, dir, 0o777)
	chmod(t, file, 0o660)
	again := openDir(t, dir, DirOptions{})
	said := strings.Join(again.Warnings(), "\n")
	for path, want := range map[string]fs.FileMode{dir: 0o700, file: 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has the permissions %o, want %o", path, info.Mode().Perm(), want)
		}
		if !strings.Contains(said, path+" are") {
			t.Errorf("the warnings %q do not name %s", said, path)
		}
	}
	if v, err := again.Load(t.Context(), "v1/x"); err != nil || string(v) != "1" {
		t.Errorf("Load = %q, %v", v, err)
	}
}

func TestS17_ForeignFolderIsLeftAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	chmod(t, dir, 0o755)
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir, DirOptions{})
	if len(d.Warnings()) != 1 || !strings.Contains(d.Warnings()[0], dir) {
		t.Errorf("warnings %q", d.Warnings())
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder's permissions are now %v, %v", info.Mode(), err)
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// A file that is wide in a folder that is not is in nobody's reach. It is not
// looked for, and is replaced by one that is narrow.
func TestS17_WideFileInClosedFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	d := openDir(t, dir, DirOptions{})
	if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	file := d.recordFile("v1/x")
	chmod(t, file, 0o644)
	again := openDir(t, dir, DirOptions{})
	if w := again.Warnings(); len(w) > 0 {
		t.Errorf("warnings %q", w)
	}
	if err := again.Store(t.Context(), "v1/x", []byte("2")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("after a Store the file has the permissions %o, want 600", info.Mode().Perm())
	}
}

func TestS17_ManyWideFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	d := openDir(t, dir, DirOptions{})
	const files = maxPathsWarned + 5
	plantRecords(t, d, files)
	for i := range files {
		chmod(t, d.recordFile(fmt.Sprintf("v1/certs/ca/%d.example.com", i)), 0o640)
	}
	chmod(t, dir, 0o750)
	w := openDir(t, dir, DirOptions{}).Warnings()
	if len(w) != 1+maxPathsWarned+1 || !strings.Contains(w[len(w)-1], "5 more files") {
		t.Errorf("warnings %q", w)
	}
}

func TestDirFresh(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 * entriesAtOnce {
		plantFile(t, filepath.Join(dir, "v1", "certs", "ca", fmt.Sprintf("%d.txt", i)))
		plantFile(t, filepath.Join(dir, "v1", "certs", fmt.Sprint(i), "README"))
	}
	plantFile(t, filepath.Join(dir, "locks", "x.rec"))
	if d := openDir(t, dir, DirOptions{}); !d.Fresh() {
		t.Error("a folder with no value is not fresh")
	}
	plantFile(t, filepath.Join(dir, "v1", "certs", "ca", "z", "last.rec"))
	if d := openDir(t, dir, DirOptions{}); d.Fresh() {
		t.Error("a folder with a value is fresh")
	}
}

func plantFile(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Opening does not do something for each value.
func TestDirOpensLargeFolder(t *testing.T) {
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	d := openDir(t, dir, DirOptions{})
	const files = 3000
	plantRecords(t, d, files)
	allocs := testing.AllocsPerRun(3, func() {
		again, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again.Fresh() {
			t.Error("a folder with values is fresh")
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
	if allocs > files/2 {
		t.Errorf("opening a folder with %d values takes %v allocations", files, allocs)
	}
}

// plantDead leaves the temporary file of a writer that died.
func plantDead(t *testing.T, dir string) string {
	t.Helper()
	dead := filepath.Join(dir, "v1", ".durable-DEAD")
	plantFile(t, dead)
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(dead, old, old); err != nil {
		t.Fatal(err)
	}
	return dead
}

func TestDirSweepsDeadWriters(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		dead := plantDead(t, dir)
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Fresh() {
			t.Error("the file of a dead writer is a value")
		}
		if keys, err := d.List(t.Context(), ""); err != nil || len(keys) > 0 {
			t.Errorf("List = %q, %v", keys, err)
		}
		time.Sleep(sweepAfter - time.Nanosecond)
		synctest.Wait()
		if _, err := os.Stat(dead); err != nil {
			t.Errorf("the dead writer's file before the sweep: %v", err)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the dead writer's file: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A folder that was closed is not swept, and Close ends a sweep.
func TestDirCloseEndsSweep(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	synctest.Test(t, func(t *testing.T) {
		dead := plantDead(t, dir)
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * sweepAfter)
		synctest.Wait()
		d.sweep()
		if _, err := os.Stat(dead); err != nil {
			t.Errorf("the dead writer's file: %v", err)
		}
		if w := d.Warnings(); len(w) > 0 {
			t.Errorf("warnings %q", w)
		}
	})
}

func TestDirWarnsOfSweep(t *testing.T) {
	if runtime.GOOS == "windows" || os.Getuid() == 0 {
		t.Skip("permissions do not stop this user")
	}
	d := openDir(t, t.TempDir(), DirOptions{})
	closed := filepath.Join(d.Path(), "lost+found")
	if err := os.Mkdir(closed, 0o000); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) })
	d.sweeping.Reset(0)
	<-d.swept
	if w := d.Warnings(); len(w) != 1 || !strings.Contains(w[0], closed) {
		t.Errorf("warnings %q", w)
	}
}
