package durable

import (
	"io/fs"
	"os"
)

// system is the calls that a replacement makes, so that a test can let any one
// of them fail.
type system struct {
	mkdir     func(dir string, perm fs.FileMode) error
	stat      func(path string) (fs.FileInfo, error)
	create    func(path string, perm fs.FileMode) (file, error)
	openDir   func(dir string) (folder, error)
	rename    func(from, to string) error
	flushName func(path string) error
	remove    func(path string) error
}

// file is a temporary file while it is written.
type file interface {
	Write(p []byte) (int, error)
	Sync() error
	Close() error
}

// folder is an open folder.
type folder interface {
	Sync() error
	Close() error
}

// osSystem is the operating system's calls.
func osSystem() system {
	return system{
		mkdir: os.Mkdir,
		stat:  os.Stat,
		create: func(path string, perm fs.FileMode) (file, error) {
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		},
		openDir:   openFolder,
		rename:    rename,
		flushName: flushName,
		remove:    removeName,
	}
}
