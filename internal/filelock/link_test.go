package filelock_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/filelock"
)

// A network file system may lose the answer to a link that it made, and some
// file systems have no links (S11).
func TestLinks(t *testing.T) {
	failed := errors.New("failed")
	tests := []struct {
		name string
		link func(oldname, newname string) error
		want error
	}{
		{"made, but an error", func(o, n string) error { return errors.Join(os.Link(o, n), failed) }, nil},
		{"made, but said to exist", func(o, n string) error { return errors.Join(os.Link(o, n), fs.ErrExist) }, nil},
		{"unsupported", func(string, string) error { return errors.ErrUnsupported }, nil},
		{"failed", func(string, string) error { return failed }, failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f, other := open(t, dir, time.Minute), open(t, dir, time.Minute)
				filelock.SetLink(f, tt.link)
				filelock.SetLink(other, tt.link)
				l, err := f.Lock(t.Context(), "a")
				if !errors.Is(err, tt.want) {
					t.Fatalf("Lock: %v, want %v", err, tt.want)
				}
				if err != nil {
					return
				}
				if _, _, err := lockWithin(t, other, 90*time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Lock of what is held: %v", err)
				}
				if err := l.Held(); err != nil {
					t.Error(err)
				}
				mustUnlock(t, l)
				mustUnlock(t, mustLock(t, other, "a"))
				if got := files(t, dir); !slices.Equal(got, []string{"2"}) {
					t.Errorf("left behind: %q", got)
				}
			})
		})
	}
}

// A taker that was slow between its look and its link makes way.
func TestSlowTaker(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, dir string){
		"same number":   func(t *testing.T, dir string) { plant(t, dir, 1, heldRecord(time.Minute, "")) },
		"higher number": func(t *testing.T, dir string) { plant(t, dir, 9, heldRecord(time.Minute, "")) },
		"another folder": func(t *testing.T, dir string) {
			mustRemove(t, filepath.Join(dir, filelock.Dir("a")))
			plant(t, dir, 1, heldRecord(time.Minute, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				f := open(t, dir, time.Minute)
				once := sync.OnceFunc(func() { meanwhile(t, dir) })
				filelock.SetLink(f, func(o, n string) error { once(); return os.Link(o, n) })
				if _, _, err := lockWithin(t, f, time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Lock: %v", err)
				}
			})
		})
	}
}
