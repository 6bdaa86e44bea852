//go:build unix

package durable

import (
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Nothing that is no file keeps a reader waiting.
func TestReadFileOfOddThings(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	paths := []string{fifo, "/dev/null"}
	socket := filepath.Join(dir, "s")
	if l, err := net.Listen("unix", socket); err == nil { // a long path has none
		defer l.Close()
		paths = append(paths, socket)
	}
	for _, path := range paths {
		read := make(chan error, 1)
		go func() { _, err := ReadFile(path, 10); read <- err }()
		select {
		case err := <-read:
			if !errors.Is(err, ErrNotRegular) {
				t.Errorf("ReadFile(%q): %v, want ErrNotRegular", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("ReadFile(%q) waits", path)
		}
	}
}
