package storage

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/certwright/certwright/internal/keypath"
)

// How a Dir names its files, beside what package keypath says of their elements:
// the value at a key is a file that ends in ".rec"; a folder never does, since
// its last letter is escaped then, so that a key can hold a value and be a
// prefix. The folder "locks" at the top is not a key's.
const recordExt = ".rec"

var fileNames = keypath.Scheme{Mark: '%', Lead: "+"}

// recordPath returns the path of key's file, relative to the storage's folder.
func recordPath(key string) string {
	elems := fileNames.Elements(key)
	last := len(elems) - 1
	return filepath.Join(filepath.Join(folders(elems[:last])...), elems[last]+recordExt)
}

// folderPath returns the path of the folder that holds what is below prefix,
// and what is below longer components that begin alike.
func folderPath(prefix string) string {
	if prefix == "" {
		return "."
	}
	return filepath.Join(folders(fileNames.Elements(prefix))...)
}

// folders makes folder names of elements.
func folders(elems []string) []string {
	for i, e := range elems {
		if strings.HasSuffix(e, recordExt) {
			elems[i] = e[:len(e)-1] + fileNames.EscapeByte(e[len(e)-1])
		}
	}
	if len(elems) > 0 && elems[0] == locksDir {
		elems[0] = fileNames.EscapeByte(locksDir[0]) + locksDir[1:]
	}
	return elems
}

// recordKey returns the key whose value is in the file at path, relative to the
// storage's folder. It reports false for a file that no key leads to.
func recordKey(path string) (string, bool) {
	rest, ok := strings.CutSuffix(filepath.ToSlash(path), recordExt)
	if !ok {
		return "", false
	}
	key := fileNames.Key(rest)
	return key, ValidKey(key) && recordPath(key) == path
}

// leadsToRecords reports whether the folder's entry at path, relative to the
// storage's, is a folder that can have records in it or below, so that others
// need not be looked into: lost+found, say.
func leadsToRecords(path string, e fs.DirEntry) bool {
	return e.IsDir() && path != locksDir && !strings.HasSuffix(path, recordExt) && fileNames.CanName(e.Name())
}
