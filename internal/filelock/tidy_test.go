package filelock_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// age sets the times of all below dir to long ago.
func age(t *testing.T, dir string) {
	t.Helper()
	long := time.Now().Add(-48 * time.Hour)
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, long, long)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestTidyRemovesFreeLocksOnly(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, 0)
	free, held, young := mustLock(t, f, "free"), mustLock(t, f, "a"), mustLock(t, f, "young")
	mustUnlock(t, free)
	for _, path := range []string{"lost+found/x", "other/1", ".gone-OLD/1"} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age(t, dir)
	mustUnlock(t, young)
	if err := f.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := list(t, dir); len(got) != 4 || !slices.Contains(got, "lost+found") || !slices.Contains(got, "other") {
		t.Errorf("left are %q, want the two others' and two locks", got)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the folder of the held lock holds %q", got)
	}
	if err := held.Held(); err != nil {
		t.Error(err)
	}
	mustUnlock(t, held)
	mustUnlock(t, mustLock(t, f, "free"))
}

// Who waits while the folder is removed gets the lock in the new one, however slow
// the machine is. (F86)
func TestTidyWhileSomebodyWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, tidier := open(t, dir, time.Minute), open(t, dir, time.Second)
		plant(t, dir, 8, heldRecord(time.Hour, ""))
		got := make(chan error)
		go func() {
			l, err := f.Lock(t.Context(), "a")
			if err == nil {
				err = l.Unlock()
			}
			got <- err
		}()
		time.Sleep(time.Second)
		plant(t, dir, 8, "") // dead after a second for the tidier, after a minute for f
		age(t, dir)
		for range 2 {
			if err := tidier.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		if got := files(t, dir); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the new folder holds %q, want 1", got)
		}
	})
}

// A lock that may be alive on another host is removed by the call that sees it
// unchanged, and no call waits for that.
func TestTidyOfAnotherHostsLock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, dir, 0)
		plant(t, dir, 3, heldRecord(time.Minute, "another host"))
		for i, want := range []int{1, 1, 0} {
			age(t, dir)
			begun := time.Now()
			if err := f.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(list(t, dir)); got != want || time.Since(begun) > 0 {
				t.Errorf("call %d leaves %d locks after %v, want %d", i, got, time.Since(begun), want)
			}
			time.Sleep(40 * time.Second)
		}
	})
}
