package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// lock takes a lock, and returns what gives it back.
func lock(t *testing.T, d *Dir, name string) (unlock func()) {
	t.Helper()
	l, err := d.Lock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := l.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// takeOver is what another does that takes the lock over.
func takeOver(t *testing.T, d *Dir) {
	t.Helper()
	locks := filepath.Join(d.Path(), locksDir)
	if err := os.Rename(locks, locks+".away"); err != nil {
		t.Fatal(err)
	}
}

// F44.
func TestDirFencesAtOnce(t *testing.T) {
	d := openDir(t, t.TempDir())
	l, err := d.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Store(l.Context(), "there", nil); err != nil {
		t.Fatal(err)
	}
	if tokens := LeaseTokens(l.Context()); len(tokens) != 1 || tokens[0].Name != "a" || tokens[0].Value == "" {
		t.Errorf("tokens %v", tokens)
	}
	takeOver(t, d)
	// At once, and not only when the holder next looks after its lock.
	if err := d.Store(l.Context(), "k", nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Store: %v", err)
	}
	if err := d.Delete(context.WithoutCancel(l.Context()), "there"); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Delete: %v", err)
	}
	if _, err := d.Load(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the refused value is there: %v", err)
	}
	if _, err := d.Load(t.Context(), "there"); err != nil {
		t.Errorf("the value that was not to be deleted: %v", err)
	}
	for range 2 {
		if err := l.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("Unlock: %v", err)
		}
	}
}

// A holder looks after its lock.
func TestDirHolderSeesItsLockGone(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := d.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		takeOver(t, d)
		time.Sleep(filelockTTL)
		synctest.Wait()
		if !errors.Is(context.Cause(l.Context()), ErrLeaseLost) {
			t.Errorf("the context's cause is %v", context.Cause(l.Context()))
		}
		next, err := d.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
			t.Errorf("Unlock: %v", err)
		}
		if err := errors.Join(next.Context().Err(), next.Unlock(t.Context()), d.Close()); err != nil {
			t.Error(err)
		}
	})
}

// filelockTTL is the TTL of the zero DirOptions.
const filelockTTL = 30 * time.Second

// Waiting within a process is on channels, so that time in a bubble goes on.
func TestDirLockInBubble(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDir(dir)
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
}

// A folder of locks that was removed is made anew; what is in its place and no
// folder is an error that names it.
func TestDirLocksWithoutTheirFolder(t *testing.T) {
	d := openDir(t, t.TempDir())
	lock(t, d, "a")()
	locks := filepath.Join(d.Path(), locksDir)
	if err := os.RemoveAll(locks); err != nil {
		t.Fatal(err)
	}
	lock(t, d, "a")()
	if err := os.RemoveAll(locks); err != nil {
		t.Fatal(err)
	}
	plantFile(t, locks)
	if _, err := d.Lock(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), locks) {
		t.Errorf("Lock where a file is: %v", err)
	}
}

// A lock is free when Unlock has returned although the process is starting
// others, which inherit its descriptors for a moment.
func TestDirLockIsFreeWhileChildrenStart(t *testing.T) {
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	d := openDir(t, t.TempDir())
	other := openDir(t, d.Path())
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				_ = exec.Command(program).Run()
			}
		})
	}
	for range 100 {
		lock(t, d, "a")()
		lock(t, other, "a")()
	}
	stop.Store(true)
	wg.Wait()
}
