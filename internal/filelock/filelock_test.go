package filelock_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/filelock"
)

// patience is for what should take no time, on a machine however busy.
const patience = 2 * time.Minute

func open(t *testing.T, dir string, ttl time.Duration) *filelock.Folder {
	t.Helper()
	f := filelock.New(dir, ttl)
	t.Cleanup(f.Close)
	return f
}

func mustLock(t *testing.T, f *filelock.Folder, name string) *filelock.Lock {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := f.Lock(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustUnlock(t *testing.T, l *filelock.Lock) {
	t.Helper()
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

// lockWithin returns how long a lock took, in a bubble's time.
func lockWithin(t *testing.T, f *filelock.Folder, d time.Duration) (*filelock.Lock, time.Duration, error) {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	l, err := f.Lock(ctx, "a")
	return l, time.Since(begun), err
}

// files returns the names in the folder of the lock "a".
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, filelock.Dir("a")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// plant makes a generation of the lock "a".
func plant(t *testing.T, dir string, number int, content string) string {
	t.Helper()
	path := filepath.Join(dir, filelock.Dir("a"), strconv.Itoa(number))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// heldRecord is what a holder writes.
func heldRecord(ttl time.Duration, host string) string {
	return fmt.Sprintf("%-255s\n", fmt.Sprintf(`{"Token":"PLANTED","TTL":%d,"Host":%q,"Beat":7,"Free":false}`, ttl, host))
}

func TestNumbersNeverFall(t *testing.T) {
	dir := t.TempDir()
	f := open(t, filepath.Join(dir, "locks"), 0)
	tokens := make(map[string]bool)
	for i := range 5 {
		l := mustLock(t, f, "a")
		if err := l.Held(); err != nil {
			t.Fatal(err)
		}
		if got, want := files(t, filepath.Join(dir, "locks")), strconv.Itoa(i+1); !slices.Equal(got, []string{want}) {
			t.Errorf("while it is held there is %q, want %s", got, want)
		}
		tokens[l.Token()] = true
		mustUnlock(t, l)
		if err := l.Held(); err == nil || errors.Is(err, filelock.ErrLost) {
			t.Errorf("Held after Unlock: %v", err)
		}
		if err := l.Context().Err(); err == nil {
			t.Error("an unlock did not end the context")
		}
	}
	if len(tokens) != 5 {
		t.Errorf("%d tokens, want 5", len(tokens))
	}
}

func TestNamesHaveLocksOfTheirOwn(t *testing.T) {
	f := open(t, t.TempDir(), 0)
	long := strings.Repeat("A", 1023)
	for _, name := range []string{"", "a", "A", "a/b", "a_b", "..", "con", "ä", "a\u0308", "*.example.com", "\x00\xff", long + "a", long + "b"} {
		defer mustUnlock(t, mustLock(t, f, name))
	}
}

// The order is that in which they came.
func TestWaitersInOneProcessTakeTurns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, dir, 0)
		held := mustLock(t, f, "a")
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				l, err := f.Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				mustUnlock(t, l)
			})
			synctest.Wait()
		}
		mustUnlock(t, held)
		wg.Wait()
		if len(order) != 64 || !slices.IsSorted(order) {
			t.Errorf("the order is %v", order)
		}
	})
}

func TestOneGoroutineAtATime(t *testing.T) {
	dir := t.TempDir()
	folders := []*filelock.Folder{open(t, dir, 0), open(t, dir, 0)}
	inside, turns := 0, 0 // guarded by the lock alone, which -race looks at within one Folder
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			l := mustLock(t, folders[i%2], "a")
			mu.Lock()
			if inside++; inside > 1 {
				t.Errorf("%d hold the lock", inside)
			}
			mu.Unlock()
			if err := l.Held(); err != nil {
				t.Error(err)
			}
			mu.Lock()
			inside--
			turns++
			mu.Unlock()
			mustUnlock(t, l)
		})
	}
	wg.Wait()
	if turns != 64 {
		t.Errorf("%d turns", turns)
	}
}

// An ended context ends waits only (S5).
func TestEndedContext(t *testing.T) {
	dir := t.TempDir()
	f, other := open(t, dir, 0), open(t, dir, 0)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := f.Lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for _, f := range []*filelock.Folder{f, other} {
		if _, err := f.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("Lock with an ended context: %v", err)
		}
	}
	if err := l.Held(); err != nil {
		t.Error(err)
	}
	mustUnlock(t, l)
	mustUnlock(t, mustLock(t, other, "a"))
	if got := files(t, dir); !slices.Equal(got, []string{"2"}) {
		t.Errorf("left behind: %q", got)
	}
}

// A holder is asked for its own TTL, not for that of the one who waits, and those
// who have the kernel's lock beside the heartbeat and those who have not exclude
// each other (F45).
func TestDifferentTTLsAndKinds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var all []*filelock.Folder
		for _, ttl := range []time.Duration{10 * time.Second, time.Second} {
			kernel, alone := open(t, dir, ttl), open(t, dir, ttl)
			filelock.SetLink(alone, func(string, string) error { return errors.ErrUnsupported })
			all = append(all, kernel, alone)
		}
		for i, by := range all {
			held := mustLock(t, by, "a")
			for k, other := range all {
				if k == i {
					continue // which is asked in its turn
				}
				if _, _, err := lockWithin(t, other, 15*time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Lock by %d of what %d holds: %v", k, i, err)
				}
			}
			if err := held.Held(); err != nil {
				t.Error(err)
			}
			mustUnlock(t, held)
		}
	})
}

// What is there is passed when it has not changed for a TTL: its own one, or
// ours when it has none (S2). Times of files play no part.
func TestDeadGenerations(t *testing.T) {
	const ours, theirs = 20 * time.Second, 7 * time.Second
	long := heldRecord(theirs, "another host")
	tests := []struct {
		name, content string
		want          time.Duration
	}{
		{"empty", "", ours},
		{"cut", long[:100], ours},
		{"garbage", "\x00\xff<html>", ours},
		{"huge", strings.Repeat("x", 1<<20), ours},
		{"TTL of a year", heldRecord(365*24*time.Hour, ""), ours},
		{"TTL of nothing", heldRecord(0, ""), ours},
		{"another boot", heldRecord(theirs, "another host"), theirs},
		{"heartbeat only", heldRecord(theirs, ""), theirs},
		{"folder", "", ours},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := plant(t, dir, 41, tt.content)
			future := time.Now().Add(1000 * time.Hour)
			if err := os.Chtimes(path, future, future); err != nil {
				t.Fatal(err)
			}
			if tt.name == "folder" {
				if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				f := open(t, dir, ours)
				l, took, err := lockWithin(t, f, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				if took < tt.want || took > tt.want+time.Second {
					t.Errorf("taken after %v, want %v", took, tt.want)
				}
				if got := files(t, dir); !slices.Equal(got, []string{"42"}) {
					t.Errorf("the lock's folder holds %q, want 42", got)
				}
				mustUnlock(t, l)
			})
		})
	}
}

// A file that changes is alive, whatever it holds.
func TestOddFileThatChanges(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, dir, time.Second)
		path := plant(t, dir, 1, "")
		ticks := time.NewTicker(700 * time.Millisecond)
		defer ticks.Stop()
		done := make(chan struct{})
		defer close(done)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-ticks.C:
				}
				if err := os.WriteFile(path, fmt.Append(nil, i), 0o600); err != nil {
					t.Error(err)
				}
			}
		}()
		if _, _, err := lockWithin(t, f, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock: %v", err)
		}
	})
}

func TestNoNumberLeft(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, 999_999_999_999_999_999, strings.Replace(heldRecord(time.Second, ""), "false}", "true} ", 1))
	_, err := open(t, dir, 0).Lock(t.Context(), "a")
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("Lock: %v; want an error that names the path", err)
	}
}

func TestClose(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	f, other := filelock.New(dir, 0), filelock.New(dir, 0)
	held := mustLock(t, f, "a")
	waiting := make(chan error)
	go func() {
		_, err := f.Lock(context.Background(), "a")
		waiting <- err
	}()
	f.Close()
	if err := <-waiting; !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a wait ended with %v", err)
	}
	<-held.Context().Done()
	if err := held.Unlock(); !errors.Is(err, filelock.ErrLost) || !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Unlock after Close: %v", err)
	}
	if _, err := f.Lock(t.Context(), "b"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Lock after Close: %v", err)
	}
	mustUnlock(t, mustLock(t, other, "a")) // at once
	other.Close()
	f.Close()
}

// Without Close nothing stays either, once nothing is held.
func TestNothingRunsWhenNothingIsHeld(t *testing.T) {
	defer goleak.VerifyNone(t)
	f := filelock.New(t.TempDir(), time.Second)
	for range 3 {
		mustUnlock(t, mustLock(t, f, "a"))
	}
}

func TestDelaysGrow(t *testing.T) {
	for waited, want := range map[time.Duration]time.Duration{
		0:                     time.Millisecond,
		80 * time.Millisecond: 10 * time.Millisecond,
		5 * time.Second:       25 * time.Millisecond,
		20 * time.Second:      50 * time.Millisecond,
		time.Hour:             100 * time.Millisecond,
	} {
		if got := filelock.DelayAfter(waited); got != want {
			t.Errorf("after %v a delay of %v, want %v", waited, got, want)
		}
	}
}
