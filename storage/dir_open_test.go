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

// A folder keeps its permissions, whoever made it and however often it is opened;
// the files that others could reach are narrowed (F41).
func TestDirLeavesPermissionsOfFolders(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	plantFile(t, filepath.Join(dir, "other"))
	chmod(t, dir, 0o755)
	for range 3 {
		d := openDir(t, dir)
		if w := d.Warnings(); len(w) != 1 || !strings.Contains(w[0], dir+" are 0755") {
			t.Errorf("warnings %q", w)
		}
		wantMode(t, dir, 0o755)
		if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "v1", "x.rec")
	chmod(t, dir, 0o777|fs.ModeSticky)
	chmod(t, file, 0o660)
	d := openDir(t, dir)
	wantMode(t, dir, 0o777)
	wantMode(t, file, 0o600)
	if w := d.Warnings(); len(w) != 2 || !strings.Contains(w[1], file+" with 0660") {
		t.Errorf("warnings %q", w)
	}
	if v, err := d.Load(t.Context(), "v1/x"); err != nil || string(v) != "1" {
		t.Errorf("Load = %q, %v", v, err)
	}
	made := filepath.Join(t.TempDir(), "a", "b")
	openDir(t, made)
	wantMode(t, made, 0o700)
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("the permissions of %s are %04o, want %04o", path, got, want)
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// A file that is wide in a folder that is not is in nobody's reach. It is not
// looked for, and is replaced by one that is narrow (F41).
func TestDirWideFileInClosedFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	d := openDir(t, dir)
	if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	file := d.recordFile("v1/x")
	chmod(t, file, 0o644)
	again := openDir(t, dir)
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

func TestDirManyWideFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	dir := t.TempDir()
	d := openDir(t, dir)
	const files = 15
	plantRecords(t, d, files)
	for i := range files {
		chmod(t, d.recordFile(fmt.Sprintf("v1/certs/ca/%d.example.com", i)), 0o640)
	}
	chmod(t, dir, 0o750)
	w := openDir(t, dir).Warnings()
	if len(w) != 2 || !strings.Contains(w[1], "15 files below "+dir) {
		t.Errorf("warnings %q", w)
	}
	for i := range files {
		wantMode(t, d.recordFile(fmt.Sprintf("v1/certs/ca/%d.example.com", i)), 0o600)
	}
}

func TestDirFresh(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 * entriesAtOnce {
		plantFile(t, filepath.Join(dir, "v1", "certs", "ca", fmt.Sprintf("%d.txt", i)))
		plantFile(t, filepath.Join(dir, "v1", "certs", fmt.Sprint(i), "README"))
	}
	plantFile(t, filepath.Join(dir, "locks", "x.rec"))
	if d := openDir(t, dir); !d.Fresh() {
		t.Error("a folder with no value is not fresh")
	}
	plantFile(t, filepath.Join(dir, "v1", "certs", "ca", "z", "last.rec"))
	if d := openDir(t, dir); d.Fresh() {
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
	d := openDir(t, dir)
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

// openToAll is a temporary folder that every user may enter.
func openToAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != filepath.Dir(d); d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o005 != 0o005 {
			chmod(t, d, info.Mode().Perm()|0o055)
		}
	}
	return dir
}

// The root of a volume has a folder that only root may enter (F42).
func TestDirWithLostAndFound(t *testing.T) {
	dir := openToAll(t)
	chmod(t, dir, 0o777)
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if !asNobody(t) {
		chmod(t, filepath.Join(dir, "lost+found"), 0)
	}
	d := openDir(t, dir)
	if !d.Fresh() {
		t.Error("lost+found counts as a value")
	}
	if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if keys, err := d.List(t.Context(), ""); err != nil || len(keys) != 1 {
		t.Errorf("List = %q, %v", keys, err)
	}
	if err := d.Tidy(t.Context()); err != nil {
		t.Error(err)
	}
	for _, w := range d.Warnings() {
		if strings.Contains(w, "lost+found") {
			t.Errorf("warning %q", w)
		}
	}
}

// What is in a folder that cannot be written to is used; that nothing can be
// stored is a warning, and an error of what stores (F42).
func TestDirReadOnly(t *testing.T) {
	dir := openToAll(t)
	first := openDir(t, dir)
	if err := first.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	chmod(t, filepath.Join(dir, "v1", "x.rec"), 0o444)
	chmod(t, filepath.Join(dir, "v1"), 0o555)
	chmod(t, dir, 0o555)
	t.Cleanup(func() { chmod(t, dir, 0o700); chmod(t, filepath.Join(dir, "v1"), 0o700) })
	if !asNobody(t) {
		t.Skip("permissions do not stop this user")
	}
	d := openDir(t, dir)
	if w := strings.Join(d.Warnings(), "\n"); !strings.Contains(w, "nothing can be stored in "+dir) {
		t.Errorf("warnings %q", w)
	}
	if v, err := d.Load(t.Context(), "v1/x"); err != nil || string(v) != "1" {
		t.Errorf("Load = %q, %v", v, err)
	}
	_, lock := d.Lock(t.Context(), "x")
	for what, err := range map[string]error{
		"Store": d.Store(t.Context(), "v1/x", nil), "Delete": d.Delete(t.Context(), "v1/x"), "Lock": lock,
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A folder that was mounted again or restored is another one for the system (F42).
func TestDirRestored(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	d := openDir(t, dir)
	if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	for _, with := range []string{"v1", "."} { // the second with the locks
		restored := filepath.Join(t.TempDir(), "restored")
		if err := os.CopyFS(filepath.Join(restored, with), os.DirFS(filepath.Join(dir, with))); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(dir), os.Rename(restored, dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Load(t.Context(), "v1/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Load of a missing value: %v", err)
		}
		l, err := d.Lock(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Store(l.Context(), "v1/x", []byte("2")); err != nil {
			t.Error(err)
		}
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestDirWarnsOfSweep(t *testing.T) {
	dir := openToAll(t)
	chmod(t, dir, 0o777)
	dead := plantDead(t, dir)
	chmod(t, filepath.Dir(dead), 0o555)
	t.Cleanup(func() { chmod(t, filepath.Dir(dead), 0o700) })
	if !asNobody(t) {
		t.Skip("permissions do not stop this user")
	}
	d := openDir(t, dir)
	before := len(d.Warnings())
	if d.sweeping.Stop() {
		d.sweep()
	}
	if w := d.Warnings(); len(w) != before+1 || !strings.Contains(w[before], dead) {
		t.Errorf("warnings %q", w)
	}
}
