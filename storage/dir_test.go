package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// openDir opens a Dir that is closed at the end of the test.
func openDir(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestRecordPath(t *testing.T) {
	long := strings.Repeat("x", 199)
	tests := []struct{ key, want string }{
		{"v1/certs/ca/example.com", "v1/certs/ca/example.com.rec"},
		{"v1/certs/ca/*.example.com", "v1/certs/ca/%2a.example.com.rec"},
		{"A/b", "%41/b.rec"},
		{"a.rec/b", "a.re%63/b.rec"},
		{"a.rec", "a.rec.rec"},
		{"...", "%2e%2e%2e.rec"},
		{".a./b", "%2ea%2e/b.rec"},
		{"a..b", "a%2e.b.rec"},
		{"con/lpt1.txt/com0", "%63on/%6cpt1.txt/%63om0.rec"},
		{"console", "console.rec"},
		{"locks/x", "%6cocks/x.rec"},
		{"a/locks/x", "a/locks/x.rec"},
		{"locks", "locks.rec"},
		{"::1", "%3a%3a1.rec"},
		{"%41", "%2541.rec"},
		{"é", "%c3%a9.rec"},
		{long + "yz", long + "y/+z.rec"},
		{long + ".z", long + "/+.z.rec"},
		{long + "y", long + "y.rec"},
	}
	for _, tt := range tests {
		got := recordPath(tt.key)
		if got != filepath.FromSlash(tt.want) {
			t.Errorf("recordPath(%q) = %q, want %q", tt.key, got, tt.want)
		}
		if back, ok := recordKey(got); !ok || back != tt.key {
			t.Errorf("recordKey(%q) = %q, %v", got, back, ok)
		}
	}
	for _, path := range []string{"a", "A.rec", "a/+b.rec", ".rec", "a%2fb.rec", "%61.rec", "a..rec", "../a.rec", "a%.rec", "a.rec/b.rec", "%ff.rec"} {
		if key, ok := recordKey(filepath.FromSlash(path)); ok {
			t.Errorf("recordKey(%q) = %q, want none", path, key)
		}
	}
}

func FuzzRecordPath(f *testing.F) {
	for _, s := range []string{"a", "v1/certs/x/*.example.com", "CON/.x./é", strings.Repeat(".", 255), strings.Repeat("é", 127) + "/z"} {
		f.Add(s, "a.rec")
	}
	f.Fuzz(func(t *testing.T, key, path string) {
		if ValidKey(key) {
			p := recordPath(key)
			if back, ok := recordKey(p); !ok || back != key {
				t.Errorf("key %q has the path %q, which has the key %q, %v", key, p, back, ok)
			}
			if p != strings.ToLower(p) || !filepath.IsLocal(p) {
				t.Errorf("key %q has the path %q", key, p)
			}
			for e := range strings.SplitSeq(p, string(filepath.Separator)) {
				if len(e) > 210 || e[0] == '.' || e[len(e)-1] == '.' {
					t.Errorf("key %q has the path element %q", key, e)
				}
			}
			folder := folderPath(key)
			if rel, err := filepath.Rel(folder, recordPath(key+"/x")); len(key) < maxKeyLen-2 && (err != nil || !filepath.IsLocal(rel)) {
				t.Errorf("key %q has the folder %q, which does not hold what is below", key, folder)
			}
		}
		if key, ok := recordKey(path); ok && recordPath(key) != path {
			t.Errorf("path %q has the key %q, which has another path", path, key)
		}
	})
}

func TestDirOpens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	d := openDir(t, dir)
	if !d.Fresh() || len(d.Warnings()) > 0 || d.Path() != dir {
		t.Errorf("a new folder: fresh %v, warnings %q, path %q", d.Fresh(), d.Warnings(), d.Path())
	}
	if err := d.Store(t.Context(), "v1/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	again := openDir(t, dir)
	if again.Fresh() {
		t.Error("a folder with a value is fresh")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("opening a file: %v", err)
	}
	if _, err := OpenDir(""); err == nil {
		t.Error("the empty path can be opened")
	}
	if _, err := (DirOptions{LeaseTTL: time.Millisecond}).Open(dir); err == nil {
		t.Error("a LeaseTTL of a millisecond is taken")
	}
}

func TestDirCannotWrite(t *testing.T) {
	dir := openToAll(t)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	asNobody(t)
	if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("opening a folder without write permission: %v", err)
	}
}

// F4.
func TestDirOddFiles(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	for _, p := range []string{"folder.rec/x", "certificates/ca/example.com/example.com.crt", "v1/Upper.rec", "lost+found/x.rec"} {
		path := filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(d.makeHuge(t), maxRecord+1); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"folder", "huge"} {
		if _, err := d.Load(t.Context(), key); !errors.Is(err, ErrDamaged) {
			t.Errorf("Load of %q, which no Store left: %v", key, err)
		}
	}
	if err := d.Store(t.Context(), "big", make([]byte, maxRecord+1)); err == nil {
		t.Error("a giant value is stored")
	}
	keys, err := d.List(t.Context(), "")
	if want := []string{"folder", "huge"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("List = %q, %v; want %q", keys, err, want)
	}
	// What is in a folder is somebody's.
	for _, call := range []func() error{
		func() error { return d.Store(t.Context(), "folder", []byte("1")) },
		func() error { return os.Rename(filepath.Join(dir, "v1"), filepath.Join(dir, "other.rec")) },
		func() error { return d.Delete(t.Context(), "other") },
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := d.Load(t.Context(), "folder"); err != nil || string(v) != "1" {
		t.Errorf("Load = %q, %v", v, err)
	}
	for _, kept := range []string{"folder.rec.ASIDE-*/x", "other.rec.ASIDE-*/Upper.rec"} {
		if found, err := filepath.Glob(filepath.Join(dir, kept)); err != nil || len(found) != 1 {
			t.Errorf("%s: %q, %v", kept, found, err)
		}
	}
	if keys, err := d.List(t.Context(), ""); err != nil || !slices.Equal(keys, []string{"folder", "huge"}) {
		t.Errorf("List = %q, %v", keys, err)
	}
}

// Of several who find a folder in a value's place none moves another's value aside.
func TestDirFolderIsMovedOnce(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	for range 20 {
		if err := os.MkdirAll(filepath.Join(d.recordFile("a"), "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := d.Store(t.Context(), "a", []byte("1")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := os.Remove(d.recordFile("a")); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := filepath.Glob(filepath.Join(dir, "a.rec.*"))
	if err != nil || len(aside) != 20 {
		t.Errorf("%d were moved aside, %v; want the 20 folders", len(aside), err)
	}
}

func (d *Dir) makeHuge(t *testing.T) string {
	t.Helper()
	if err := d.Store(t.Context(), "huge", nil); err != nil {
		t.Fatal(err)
	}
	return d.recordFile("huge")
}

// F42.
func TestDirFolderGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	d := openDir(t, dir)
	ctx := t.Context()
	if err := d.Store(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		calls := map[string]func() error{
			"Load":   func() error { _, err := d.Load(ctx, "b"); return err },
			"Store":  func() error { return d.Store(ctx, "a", []byte("2")) },
			"Delete": func() error { return d.Delete(ctx, "a") },
			"List":   func() error { _, err := d.List(ctx, ""); return err },
			"Lock":   func() error { _, err := d.Lock(ctx, "a"); return err },
		}
		for name, call := range calls {
			if err := call(); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s, %s: %v", what, name, err)
			}
		}
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	check("moved away")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	check("another in its place")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Load(ctx, "a"); err != nil || string(v) != "1" {
		t.Errorf("back again: Load = %q, %v", v, err)
	}
}

func TestDirClose(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	d := openDir(t, dir)
	ctx := t.Context()
	held, err := d.Lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { _, err := d.Lock(ctx, "a"); waited <- err }()
	other := openDir(t, dir)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-waited; !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a Lock that waited: %v", err)
	}
	if !errors.Is(context.Cause(held.Context()), ErrLeaseLost) {
		t.Errorf("the lease's context: %v", context.Cause(held.Context()))
	}
	if err := held.Unlock(ctx); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Unlock: %v", err)
	}
	if _, err := d.Load(ctx, "a"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Load: %v", err)
	}
	if _, err := d.Lock(ctx, "b"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Lock: %v", err)
	}
	if err := d.Tidy(ctx); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Tidy: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	l, err := other.Lock(short, "a")
	if err != nil {
		t.Fatalf("the lock was not freed: %v", err)
	}
	if err := l.Unlock(ctx); err != nil {
		t.Error(err)
	}
}

func TestDirStoreIsOneRename(t *testing.T) {
	d := openDir(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	l, err := d.Lock(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Store(l.Context(), "k", []byte("old")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := d.Store(l.Context(), "k", []byte("new")); !errors.Is(err, context.Canceled) {
		t.Errorf("Store with an ended context: %v", err)
	}
	if err := l.Unlock(ctx); err != nil {
		t.Error(err)
	}
	late := context.WithoutCancel(l.Context())
	if err := d.Store(late, "k", []byte("late")); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Store under a lease that was unlocked: %v", err)
	}
	if v, err := d.Load(t.Context(), "k"); err != nil || !bytes.Equal(v, []byte("old")) {
		t.Errorf("Load = %q, %v", v, err)
	}
}
