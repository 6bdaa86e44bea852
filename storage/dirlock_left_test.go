package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// The file of a lock stays for the next holder, and goes when there is none.
func TestLockFileIsLeftForAWhile(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := func(when string, names ...string) {
			t.Helper()
			synctest.Wait()
			if got := namesIn(t, d.locksFolder()); !slices.Equal(got, names) {
				t.Errorf("%s the folder of locks holds %q, want %q", when, got, names)
			}
		}
		lock := func(name string) Lease {
			t.Helper()
			l, err := d.Lock(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		unlock := func(l Lease) {
			t.Helper()
			if err := l.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
		}
		unlock(lock("a"))
		held := lock("held")
		unlock(lock("held2"))
		held2 := lock("held2")
		want("right after", "a.lock", "held.lock", "held2.lock")
		time.Sleep(leftFor)
		want("a while after", "held.lock", "held2.lock")
		unlock(held)
		unlock(held2)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		want("after Close")
	})
}

func TestClearKernelLock(t *testing.T) {
	d := openDir(t, t.TempDir(), DirOptions{})
	if err := clearKernelLock(filepath.Join(d.locksFolder(), "none.lock")); err != nil {
		t.Errorf("clearing what is not there: %v", err)
	}
	if names := namesIn(t, d.locksFolder()); len(names) > 0 {
		t.Errorf("it made %q", names)
	}
	plant(t, d, "locks/folder.lock/x", "")
	if err := clearKernelLock(filepath.Join(d.locksFolder(), "folder.lock")); err == nil {
		t.Error("a folder is cleared")
	}
}

// A holder looks after its lock from the first beat on.
func TestHolderSeesItsFileGone(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, beats := range []time.Duration{0, 3} {
			l, err := d.Lock(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(beats*kernelCheckEvery + kernelCheckEvery/2)
			if err := os.Remove(filepath.Join(d.locksFolder(), "a.lock")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if l.Context().Err() != nil {
				t.Fatal("the lease has ended before anybody looked")
			}
			time.Sleep(kernelCheckEvery)
			synctest.Wait()
			if !errors.Is(context.Cause(l.Context()), ErrLeaseLost) {
				t.Errorf("after %d beats: a beat after the file was removed the context's cause is %v", beats, context.Cause(l.Context()))
			}
			if err := l.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
				t.Errorf("Unlock: %v", err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A lock that nobody had time to look after is lost with Close as well.
func TestCloseEndsLeaseThatIsNotWatched(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	d := openDir(t, t.TempDir(), DirOptions{})
	other := openDir(t, d.Path(), DirOptions{})
	held, err := d.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(held.Context()), ErrLeaseLost) {
		t.Errorf("the lease's context: %v", context.Cause(held.Context()))
	}
	next, err := other.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Unlock: %v", err)
	}
	if err := next.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}
