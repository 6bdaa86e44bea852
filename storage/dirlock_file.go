//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package storage

import (
	"errors"
	"io/fs"
	"os"
)

// fileID tells a file from others.
type fileID struct{ info fs.FileInfo }

func (f *fileID) same(g *fileID) bool { return os.SameFile(f.info, g.info) }

// readID reads what is at path into id.
func readID(path string, id *fileID) (err error) {
	id.info, err = os.Stat(path)
	return err
}

// lockFile is an open lock file.
type lockFile struct {
	file *os.File
	id   fileID
}

func newLockFile(f *os.File) (*lockFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &lockFile{f, fileID{info}}, nil
}

// close closes the file, which unlocks it. It is the last call.
func (f *lockFile) close() error { return f.file.Close() }
