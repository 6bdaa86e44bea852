package filelock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/filelock"
)

// A holder whose generation was passed sees it before it writes, and frees
// nobody's lock (S4).
func TestPassedHolder(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, dir, time.Minute)
		l := mustLock(t, f, "a")
		path := plant(t, dir, 2, heldRecord(time.Minute, ""))
		if err := l.Held(); !errors.Is(err, filelock.ErrLost) {
			t.Errorf("Held: %v", err)
		}
		if err := context.Cause(l.Context()); !errors.Is(err, filelock.ErrLost) {
			t.Errorf("the context ended with %v", err)
		}
		if err := l.Unlock(); !errors.Is(err, filelock.ErrLost) {
			t.Errorf("Unlock: %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != heldRecord(time.Minute, "") {
			t.Errorf("the successor's file is %q, %v", got, err)
		}
	})
}

// Nobody asks Held: the heartbeat finds it out.
func TestHeartbeatFindsLoss(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"passed":  func(t *testing.T, dir string) { plant(t, dir, 2, heldRecord(time.Minute, "")) },
		"removed": func(t *testing.T, dir string) { mustRemove(t, filepath.Join(dir, filelock.Dir("a"))) },
		"garbled": func(t *testing.T, dir string) { plant(t, dir, 1, "garbage") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := mustLock(t, open(t, dir, time.Minute), "a")
				spoil(t, dir)
				begun := time.Now()
				<-l.Context().Done()
				if took := time.Since(begun); took > 21*time.Second {
					t.Errorf("found lost after %v", took)
				}
			})
		})
	}
}

func mustRemove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// A heartbeat that cannot be written ends the lock before another may take it.
func TestHeartbeatThatFailsEndsLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Minute
		l := mustLock(t, open(t, dir, ttl), "a")
		begun := time.Now()
		// Nobody has taken over: the files cannot be reached.
		if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		<-l.Context().Done()
		if took := time.Since(begun); took < ttl/2 || took >= ttl {
			t.Errorf("lost after %v of %v", took, ttl)
		}
		if err := l.Held(); !errors.Is(err, filelock.ErrLost) {
			t.Errorf("Held: %v", err)
		}
	})
}

// A held lock stays held for as long as it takes (S8).
func TestHeartbeatKeepsLock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := mustLock(t, open(t, dir, time.Second), "a")
		time.Sleep(10 * time.Minute)
		if err := l.Held(); err != nil {
			t.Error(err)
		}
		mustUnlock(t, l)
	})
}

// As many as a large server may hold at once are kept, and their descriptors fit.
func TestThousandLocks(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, dir, time.Minute)
		locks := make([]*filelock.Lock, 1000)
		for i := range locks {
			locks[i] = mustLock(t, f, strconv.Itoa(i))
		}
		time.Sleep(2 * time.Minute)
		for _, l := range locks {
			if err := errors.Join(l.Held(), l.Unlock()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
