package storage

import (
	"encoding/hex"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/certwright/certwright/internal/durable"
)

// How a Dir names its files:
//
//   - A component keeps a-z, 0-9, "-", "_" and any "." that stands between two
//     other characters; every other byte is %xx in lower case. So names differ
//     on file systems that fold case or normalise Unicode, and none begins or
//     ends with a dot.
//   - A component that Windows keeps for a device has its first letter escaped.
//   - A component of more than 200 escaped bytes goes on in a folder below,
//     whose name starts with "+".
//   - The value at a key is a file that ends in ".rec"; a folder never does: its
//     last letter is escaped then. So a key can hold a value and be a prefix.
//   - The folder "locks" at the top is not a key's.
const (
	recordExt  = ".rec"
	maxElement = 200
	hexDigits  = "0123456789abcdef"
)

// recordPath returns the path of key's file, relative to the storage's folder.
func recordPath(key string) string {
	elems := pathElements(key)
	last := len(elems) - 1
	closeFolders(elems[:last])
	elems[last] += recordExt
	return filepath.Join(elems...)
}

// folderPath returns the path of the folder that holds what is below prefix,
// and what is below longer components that begin alike.
func folderPath(prefix string) string {
	if prefix == "" {
		return "."
	}
	elems := pathElements(prefix)
	closeFolders(elems)
	return filepath.Join(elems...)
}

// pathElements escapes the components of key and splits the long ones.
func pathElements(key string) []string {
	var elems []string
	for c := range strings.SplitSeq(key, "/") {
		rest, lead := escapeComponent(c), ""
		for len(rest) > maxElement {
			cut := maxElement
			if rest[cut-1] == '.' {
				cut-- // no name ends with a dot
			}
			elems = append(elems, lead+rest[:cut])
			rest, lead = rest[cut:], "+"
		}
		elems = append(elems, lead+rest)
	}
	return elems
}

// closeFolders makes folder names of elements that are not values.
func closeFolders(elems []string) {
	for i, e := range elems {
		if strings.HasSuffix(e, recordExt) {
			elems[i] = e[:len(e)-1] + escapeByte(e[len(e)-1])
		}
	}
	if len(elems) > 0 && elems[0] == locksDir {
		elems[0] = escapeByte(locksDir[0]) + locksDir[1:]
	}
}

// escapeComponent escapes one component of a key. The result has no "." at
// either end and never two in a row.
func escapeComponent(c string) string {
	if isPlainComponent(c) {
		return c
	}
	var b strings.Builder
	for i := range len(c) {
		if isPlainAt(c, i) {
			b.WriteByte(c[i])
		} else {
			b.WriteString(escapeByte(c[i]))
		}
	}
	s := b.String()
	if durable.IsDevice(s) {
		s = escapeByte(s[0]) + s[1:]
	}
	return s
}

// isPlainComponent reports whether a component needs no escape.
func isPlainComponent(c string) bool {
	for i := range len(c) {
		if !isPlainAt(c, i) {
			return false
		}
	}
	return !durable.IsDevice(c)
}

// isPlainAt reports whether the byte at i of a component needs no escape.
func isPlainAt(c string, i int) bool {
	return isPlain(c[i]) || c[i] == '.' && i > 0 && i < len(c)-1 && c[i+1] != '.'
}

func isPlain(ch byte) bool {
	return 'a' <= ch && ch <= 'z' || '0' <= ch && ch <= '9' || ch == '-' || ch == '_'
}

func escapeByte(ch byte) string {
	return string([]byte{'%', hexDigits[ch>>4], hexDigits[ch&15]})
}

// recordKey returns the key whose value is in the file at path, relative to the
// storage's folder. It reports false for a file that no key leads to.
func recordKey(path string) (string, bool) {
	rest, ok := strings.CutSuffix(filepath.ToSlash(path), recordExt)
	if !ok {
		return "", false
	}
	key := unescape(strings.ReplaceAll(rest, "/+", ""))
	if !ValidKey(key) || recordPath(key) != path {
		return "", false
	}
	return key, true
}

// unescape replaces %xx by its byte; what is not an escape stays.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if ch, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.Write(ch)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// leadsToRecords reports whether the folder's entry at path, relative to the
// storage's, is a folder that can have records in it or below, so that others
// need not be looked into: lost+found, say.
func leadsToRecords(path string, e fs.DirEntry) bool {
	name := e.Name()
	if !e.IsDir() || path == locksDir || name[0] == '.' || strings.HasSuffix(name, recordExt) {
		return false
	}
	rest := strings.TrimPrefix(name, "+")
	return (rest == name || path != name) && !strings.ContainsFunc(rest, func(r rune) bool {
		return r > unicode.MaxASCII || !isPlain(byte(r)) && r != '.' && r != '%'
	})
}
