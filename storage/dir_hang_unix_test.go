//go:build unix

package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Close comes back although the file system does not answer (F48).
func TestDirCloseWhenFileSystemHangs(t *testing.T) {
	defer goleak.VerifyNone(t, leakOptions()...)
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d.patience = 100 * time.Millisecond
	l, err := d.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path(), locksDir, namesIn(t, filepath.Join(d.Path(), locksDir))[0], "1")
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), d.Path()) {
		t.Errorf("Close: %v", err)
	}
	if err := LeaseErr(l.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("the lease after Close: %v", err)
	}
	pipe, err := os.OpenFile(path, os.O_WRONLY, 0) // lets it go on
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pipe.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}
