package filelock_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/filelock"
)

// A network file system may lose the answer to a call that gave a file its name
// (S11).
func TestLostAnswerToLink(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, time.Hour)
	filelock.SetLink(f, func(old, name string) error {
		return errors.Join(os.Link(old, name), errors.New("no answer"))
	})
	for range 3 {
		mustUnlock(t, mustLock(t, f, "a"))
	}
	if got := files(t, dir); !slices.Equal(got, []string{"3"}) {
		t.Errorf("left behind: %q", got)
	}
}

// Where files have but one name there is the heartbeat alone.
func TestWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		one, other := open(t, dir, time.Minute), open(t, dir, time.Minute)
		for _, f := range []*filelock.Folder{one, other} {
			filelock.SetLink(f, func(old, name string) error {
				return &os.LinkError{Op: "link", Old: old, New: name, Err: errors.ErrUnsupported}
			})
		}
		l := mustLock(t, one, "a")
		if _, _, err := lockWithin(t, other, 30*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock beside a holder: %v", err)
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
}

// A taker that was slow between its look and its try makes way.
func TestSlowTaker(t *testing.T) {
	free := strings.Replace(heldRecord(time.Minute, ""), `false}`, `true} `, 1)
	another := func(t *testing.T, dir string) {
		mustRemove(t, filepath.Join(dir, filelock.Dir("a")))
		plant(t, dir, 1, heldRecord(time.Minute, ""))
	}
	for name, tt := range map[string]struct {
		seen      int
		meanwhile func(t *testing.T, dir string)
		left      string
	}{
		"same number":          {0, func(t *testing.T, dir string) { plant(t, dir, 1, heldRecord(time.Minute, "")) }, "1"},
		"higher number":        {0, func(t *testing.T, dir string) { plant(t, dir, 9, heldRecord(time.Minute, "")) }, "9"},
		"another folder":       {0, another, "1"},
		"folder with a number": {5, another, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.seen > 0 {
				plant(t, dir, tt.seen, free)
			}
			synctest.Test(t, func(t *testing.T) {
				f := open(t, dir, time.Minute)
				once := sync.OnceFunc(func() { tt.meanwhile(t, dir) })
				filelock.SetCreate(f, func(path string, create func(string) (*os.File, error)) (*os.File, error) {
					once()
					return create(path)
				})
				if _, _, err := lockWithin(t, f, time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Lock: %v", err)
				}
				if got := files(t, dir); !slices.Equal(got, []string{tt.left}) {
					t.Errorf("there is %q, want %s", got, tt.left)
				}
			})
		})
	}
}

// The folder of locks may be removed between a look and a try.
func TestFolderVanishesBeforeTry(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	f := open(t, dir, 0)
	tries := 0
	filelock.SetCreate(f, func(path string, create func(string) (*os.File, error)) (*os.File, error) {
		if tries++; tries < 3 {
			mustRemove(t, dir)
		}
		file, err := create(path)
		if (tries < 3) != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("try %d: %v", tries, err)
		}
		return file, err
	})
	mustUnlock(t, mustLock(t, f, "a"))
}
