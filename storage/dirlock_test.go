package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// plantTTL is a TTL for tests that wait for it to pass.
const plantTTL = 400 * time.Millisecond

// quickly returns a context that ends long after the call should have returned.
func quickly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// plant puts a file into the storage's folder.
func plant(t *testing.T, d *Dir, path, content string) {
	t.Helper()
	path = filepath.Join(d.Path(), filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func TestS2_OddFilesUnderKernelLocks(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	d := openDir(t, t.TempDir(), DirOptions{})
	for i, content := range []string{"", "\x00garbage", `{"updated":"2999-01-01T00:00:00Z"}`} {
		plant(t, d, fmt.Sprintf("locks/%d.lock", i), content)
	}
	if err := os.Mkdir(filepath.Join(d.Path(), "locks", "3.lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		l, err := d.Lock(quickly(t), fmt.Sprint(i))
		if err != nil {
			t.Errorf("Lock: %v", err)
			continue
		}
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
	plant(t, d, "locks/full.lock/x", "")
	if _, err := d.Lock(quickly(t), "full"); err == nil || isContextError(err) || !strings.Contains(err.Error(), "full.lock") {
		t.Errorf("Lock where a folder is: %v; want an error that names the path", err)
	}
	if err := os.RemoveAll(filepath.Join(d.Path(), "locks")); err != nil {
		t.Fatal(err)
	}
	l, err := d.Lock(quickly(t), "again")
	if err != nil {
		t.Fatalf("Lock after the folder of locks was removed: %v", err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// An instance that has kernel locks goes over to lease files when another one
// needs them.
func TestS11_LeaseFilesForAll(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	local := openDir(t, dir, DirOptions{LeaseTTL: time.Hour})
	remote := openDir(t, dir, DirOptions{LeaseTTL: time.Hour, LeaseFiles: true})
	held, err := remote.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := local.Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock of what is held by lease file: %v", err)
	}
	if err := held.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStoreSeesRemovedLockFile(t *testing.T) {
	d := openDir(t, t.TempDir(), DirOptions{})
	l, err := d.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(d.Path(), "locks", "a.lock")); err != nil {
		t.Fatal(err)
	}
	// At once, and not only when the holder next looks after its lock.
	if err := d.Store(l.Context(), "k", nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Store: %v", err)
	}
	if _, err := d.Load(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the refused value is there: %v", err)
	}
	if err := l.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Unlock: %v", err)
	}
	keys, err := os.ReadDir(d.Path())
	if err != nil || len(keys) != 1 {
		t.Errorf("the folder holds %v, %v; want the locks only", keys, err)
	}
}

// Waiting within a process is on channels, so that time in a bubble goes on.
func TestDirLockInBubble(t *testing.T) {
	for name, o := range map[string]DirOptions{"kernel": {}, "lease files": {LeaseFiles: true}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				d, err := o.Open(dir)
				if err != nil {
					t.Fatal(err)
				}
				held, err := d.Lock(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if _, err := d.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Lock of a held lock: %v", err)
				}
				if waited := time.Since(begun); waited != time.Hour {
					t.Errorf("waited %v for an hour", waited)
				}
				if err := held.Context().Err(); err != nil {
					t.Errorf("the lease has ended: %v", err)
				}
				if err := errors.Join(held.Unlock(t.Context()), d.Close()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestLockFileName(t *testing.T) {
	long := strings.Repeat("A", 255)
	tests := []struct{ name, want string }{
		{"v1/locks/example.com", "v1,locks,example.com"},
		{"a,b", "a%2cb"},
		{"a/b", "a,b"},
		{"%00", "%2500"},
		{"A", "%41"},
		{"..x/y.", "%2e.x,y%2e"},
	}
	for _, tt := range tests {
		if got := lockFileName(tt.name); got != tt.want {
			t.Errorf("lockFileName(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
	a, b := lockFileName(long), lockFileName(long+"/b")
	if a == b || len(a) > maxElement {
		t.Errorf("the names of two long locks are %q and %q", a, b)
	}
}

func TestPauseGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pause{next: firstTry, soon: soonTry, longest: lastTry}
		begun := time.Now()
		last := begun
		for time.Since(begun) < 20*time.Second {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			waited, took := time.Since(begun), time.Since(last)
			last = time.Now()
			limit := min(5*time.Millisecond+waited/150, lastTry) * 5 / 4
			if took < firstTry/2 || took > limit {
				t.Fatalf("after %v a delay of %v, want at most %v", waited, took, limit)
			}
		}
		if p.next != lastTry {
			t.Errorf("after 20 s the delay is %v, want %v", p.next, lastTry)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a wait with an ended context: %v", err)
		}
	})
}
