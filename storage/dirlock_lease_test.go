package storage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestS2_OddLeaseFilesDie(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	other := &leaseFile{token: newLeaseToken()}
	contents := map[string]string{
		"empty":        "",
		"cut":          other.content(7)[:30],
		"garbage":      "\x00\xff<html>",
		"another's":    other.content(7),
		"future-dated": `{"created":"2999-01-01T00:00:00Z","updated":"2999-01-01T00:00:00Z"}`,
		"giant":        strings.Repeat("x", 1<<20),
	}
	for name, content := range contents {
		t.Run(name, func(t *testing.T) {
			d := openDir(t, t.TempDir(), DirOptions{LeaseFiles: true, LeaseTTL: plantTTL})
			plant(t, d, "locks/a.lease/1", content)
			future := time.Now().Add(1000 * time.Hour)
			if err := os.Chtimes(filepath.Join(d.Path(), "locks/a.lease/1"), future, future); err != nil {
				t.Fatal(err)
			}
			checkTakenAfterTTL(t, d)
		})
	}
	t.Run("folder", func(t *testing.T) {
		d := openDir(t, t.TempDir(), DirOptions{LeaseFiles: true, LeaseTTL: plantTTL})
		if err := os.MkdirAll(filepath.Join(d.Path(), "locks/a.lease/1"), 0o700); err != nil {
			t.Fatal(err)
		}
		checkTakenAfterTTL(t, d)
	})
}

// checkTakenAfterTTL takes the lock "a", which something dead is in the way of,
// and looks that nothing is left of either.
func checkTakenAfterTTL(t *testing.T, d *Dir) {
	t.Helper()
	begun := time.Now()
	l, err := d.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < plantTTL {
		t.Errorf("the lock was taken over after %v, before the TTL of %v", took, plantTTL)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(d.Path(), "locks", "a.lease")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock's folder is still there: %v", err)
	}
}

func TestS1_TakeOverThatFailsIsAnError(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	d := openDir(t, t.TempDir(), DirOptions{LeaseFiles: true, LeaseTTL: plantTTL})
	plant(t, d, "locks/a.lease/1/not-removable", "")
	_, err := d.Lock(quickly(t), "a")
	if err == nil || isContextError(err) || !strings.Contains(err.Error(), filepath.Join("a.lease", "1")) {
		t.Errorf("Lock: %v; want an error that names the path", err)
	}
	plant(t, d, "locks/b.lease", "a file where a folder should be")
	if _, err := d.Lock(quickly(t), "b"); err == nil || isContextError(err) || !strings.Contains(err.Error(), "b.lease") {
		t.Errorf("Lock: %v; want an error that names the path", err)
	}
}

// A holder whose lease was taken over neither stores nor frees the lock of its
// successor, and a third does not get in.
func TestS4_LateHolder(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	dir, o := t.TempDir(), DirOptions{LeaseFiles: true, LeaseTTL: time.Hour}
	first, third := openDir(t, dir, o), openDir(t, dir, o)
	late, err := first.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	// What a taker does after a TTL, with no TTL to wait for.
	taker := &leaseTaker{dir: filepath.Join(dir, "locks", "a.lease"), ttl: time.Hour, link: os.Link}
	if _, err := taker.look(); err != nil {
		t.Fatal(err)
	}
	second, err := taker.take()
	if err != nil || second == nil {
		t.Fatalf("taking over: %v, %v", second, err)
	}
	if err := first.Store(late.Context(), "k", nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Store by the late holder: %v", err)
	}
	if err := late.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Unlock by the late holder: %v", err)
	}
	if late.Context().Err() == nil {
		t.Error("the context of the late holder goes on")
	}
	if err := second.verify(); err != nil {
		t.Errorf("the successor's lease: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := third.Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock by a third: %v", err)
	}
	if err := second.release(); err != nil {
		t.Error(err)
	}
}

// A taker that was slow steps back from a lock that another got meanwhile, and
// leaves the other's file as it is.
func TestS4_SlowTakerStepsBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a.lease")
	const dead, living = "dead", "living"
	for name, meanwhile := range map[string]func(t *testing.T){
		"same turn": func(t *testing.T) { writeTestTurn(t, dir, 4, living) },
		"higher":    func(t *testing.T) { writeTestTurn(t, dir, 5, living) },
		"anew":      func(t *testing.T) { removeTestTurns(t, dir); writeTestTurn(t, dir, 1, living) },
		"revived":   func(t *testing.T) { writeTestTurn(t, dir, 3, living) },
	} {
		t.Run(name, func(t *testing.T) {
			removeTestTurns(t, dir)
			writeTestTurn(t, dir, 3, dead)
			taker := &leaseTaker{dir: dir, ttl: time.Hour}
			taker.link = func(from, to string) error { meanwhile(t); return os.Link(from, to) }
			if _, err := taker.look(); err != nil {
				t.Fatal(err)
			}
			l, err := taker.take()
			if l != nil || err != nil {
				t.Fatalf("take = %v, %v; want to step back", l, err)
			}
			turns, err := readTurns(dir)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, content := range turns {
				found = found || content == living
				if strings.HasPrefix(content, leaseHead) {
					t.Errorf("the slow taker left its file: %v", turns)
				}
			}
			if !found {
				t.Errorf("the living file is gone: %v", turns)
			}
		})
	}
}

func writeTestTurn(t *testing.T, dir string, turn uint64, content string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(turnPath(dir, turn), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func removeTestTurns(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// A network file system may lose the answer to a link that it made, or have no
// links at all.
func TestS11_Links(t *testing.T) {
	tests := []struct {
		name  string
		link  func(from, to string) error
		taken bool
		want  error
	}{
		{"made, but an error", func(from, to string) error { return errors.Join(os.Link(from, to), syscall.EIO) }, true, nil},
		{"made, but said to exist", func(from, to string) error { return errors.Join(os.Link(from, to), fs.ErrExist) }, true, nil},
		{"no links", func(string, string) error { return syscall.EPERM }, true, nil},
		{"unsupported", func(string, string) error { return errors.ErrUnsupported }, true, nil},
		{"stale", func(string, string) error { return syscall.ESTALE }, false, nil},
		{"failed", func(string, string) error { return syscall.EIO }, false, syscall.EIO},
		{"no space", func(string, string) error { return syscall.ENOSPC }, false, syscall.ENOSPC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			taker := &leaseTaker{dir: filepath.Join(t.TempDir(), "a.lease"), ttl: time.Hour, link: tt.link}
			if free, err := taker.look(); !free || err != nil {
				t.Fatalf("look = %v, %v", free, err)
			}
			l, err := taker.take()
			if (l != nil) != tt.taken || !errors.Is(err, tt.want) {
				t.Fatalf("take = %v, %v; want taken %v, %v", l, err, tt.taken, tt.want)
			}
			if l != nil {
				if err := errors.Join(l.keep(), l.keep(), l.release()); err != nil {
					t.Error(err)
				}
			}
			entries, err := os.ReadDir(taker.dir)
			if len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// A heartbeat that cannot be written ends the lease before its TTL does.
func TestS8_NoHeartbeatEndsLease(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	const ttl = 1600 * time.Millisecond
	d := openDir(t, t.TempDir(), DirOptions{LeaseFiles: true, LeaseTTL: ttl})
	l, err := d.Lock(quickly(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	locks := filepath.Join(d.Path(), "locks")
	begun := time.Now()
	// Nobody has taken over: the files cannot be reached.
	if err := os.Rename(locks, locks+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(locks, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Context().Done():
	case <-quickly(t).Done():
		t.Fatal("the lease goes on")
	}
	if took := time.Since(begun); took > ttl {
		t.Errorf("the lease ended after %v, later than its TTL", took)
	}
	if err := d.Store(context.WithoutCancel(l.Context()), "k", nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Store: %v", err)
	}
	if err := l.Unlock(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Unlock: %v", err)
	}
}
