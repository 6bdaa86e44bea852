//go:build !windows

package durable

import (
	"errors"
	"os"
	"syscall"
)

// dirHandle is an open folder that can be flushed.
type dirHandle struct{ *os.File }

// Sync flushes the folder. A file system without such a call says EINVAL or
// ENOTSUP; its names are as durable as it makes them.
func (d dirHandle) Sync() error {
	err := d.File.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

func openFolder(dir string) (folder, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return dirHandle{f}, nil
}

func rename(from, to string) error { return os.Rename(from, to) }
func flushName(string) error       { return nil }
func removeName(path string) error { return os.Remove(path) }

func openRead(path string) (*os.File, error) { return os.Open(path) }
