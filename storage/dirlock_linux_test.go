package storage

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestS11_NetworkFileSystems(t *testing.T) {
	tests := []struct {
		name  string
		magic uint32
		want  bool
	}{
		{"nfs", 0x6969, true},
		{"cifs", 0xFF534D42, true},
		{"smb2", 0xFE534D42, true},
		{"fuse", 0x65735546, true},
		{"9p", 0x01021997, true},
		{"ext4", 0xEF53, false},
		{"xfs", 0x58465342, false},
		{"btrfs", 0x9123683E, false},
		{"tmpfs", 0x01021994, false},
		{"overlay", 0x794C7630, false},
		{"zfs", 0x2FC12FC1, false},
		{"ceph", 0x00C36400, false},
	}
	for _, tt := range tests {
		if got := isNetworkMagic(tt.magic); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if networkFS("/proc/self") || networkFS("/none/such") {
		t.Error("what is no network file system passes for one")
	}
}

// hears waits on a watch that would pause for an hour.
func hears(t *testing.T, ctx context.Context, w *lockWatch) error {
	t.Helper()
	w.pause = pause{next: time.Hour, soon: time.Hour, longest: time.Hour}
	return w.wait(ctx)
}

func TestLockWatchHears(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.lock")
	f, err := openLockFile(path, os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	var watches lockWatches
	w := watches.lend()
	if !w.hears() {
		t.Skip("no inotify to be had")
	}
	w.add(path)
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if err := hears(t, quickly(t), w); err != nil {
		t.Errorf("nothing is heard of a closing: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := hears(t, quickly(t), w); err != nil {
		t.Errorf("nothing is heard of a removal: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	w.clear()
	for err = nil; err == nil; { // the removal has more than one event
		err = hears(t, ctx, w)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a wait whose context ends: %v", err)
	}
	w.pause = pause{next: time.Millisecond, soon: time.Millisecond, longest: time.Millisecond}
	if err := w.wait(t.Context()); err != nil {
		t.Errorf("a pause: %v", err)
	}
	watches.giveBack(w)
	if err := watches.close(); err != nil {
		t.Error(err)
	}
}

func TestLockWatchesAreFew(t *testing.T) {
	var watches lockWatches
	var lent []*lockWatch
	for range maxWatches {
		w := watches.lend()
		if !w.hears() {
			t.Skip("no inotify to be had")
		}
		lent = append(lent, w)
	}
	more := watches.lend()
	if more.hears() {
		t.Errorf("more than %d watches are made", maxWatches)
	}
	if err := more.wait(t.Context()); err != nil {
		t.Errorf("a watch that only pauses: %v", err)
	}
	watches.giveBack(more)
	watches.giveBack(lent[0])
	if again := watches.lend(); again != lent[0] {
		t.Error("a watch that was given back is not lent again")
	}
	for _, w := range lent {
		watches.giveBack(w)
	}
	if err := watches.close(); err != nil {
		t.Error(err)
	}
}

// TestDirLock_FreeWhileChildrenStart has a lock be free when Unlock has returned
// although the process is starting others, which inherit its descriptors for a
// moment.
func TestDirLock_FreeWhileChildrenStart(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				_ = exec.Command("/bin/true").Run()
			}
		})
	}
	held := 0
	for range 2000 {
		lease, err := d.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(d.locksFolder(), "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
				held++
			}
			_ = unix.Close(fd)
		}
	}
	stop.Store(true)
	wg.Wait()
	if held > 0 {
		t.Errorf("the lock was still held %d times after Unlock", held)
	}
}
