// Package keypath turns storage keys into names that any file system and any
// object store can hold, and back.
//
// A component of a key keeps a-z, 0-9, "-", "_" where it does not begin an
// escape, and any "." that stands between two other characters; every other byte
// is an escape: a mark and two hexadecimal digits. So names differ where upper
// and lower case do not, or where Unicode is normalised, and none begins or ends
// with a dot. A component that Windows keeps for a device has its first letter
// escaped. One of more than 200 escaped bytes goes on in an element below.
package keypath

import (
	"encoding/hex"
	"strings"
)

// maxElement is the longest element, in bytes, before its lead and what the
// caller puts at its end.
const maxElement = 200

// Scheme is how keys are written. It is immutable and safe for concurrent use.
type Scheme struct {
	// Mark begins an escape: "%" or "_".
	Mark byte

	// Lead begins an element that continues a long component. It must be
	// nothing that an escaped component begins with.
	Lead string
}

// Elements escapes the components of key and splits the long ones.
func (s Scheme) Elements(key string) []string {
	var elems []string
	for c := range strings.SplitSeq(key, "/") {
		rest, lead := s.Escape(c), ""
		for len(rest) > maxElement {
			cut := maxElement
			if rest[cut-1] == '.' {
				cut-- // no name ends with a dot
			}
			elems = append(elems, lead+rest[:cut])
			rest, lead = rest[cut:], s.Lead
		}
		elems = append(elems, lead+rest)
	}
	return elems
}

// Escape escapes a component of a key, or any other text.
func (s Scheme) Escape(c string) string {
	var b strings.Builder
	for i := range len(c) {
		dot := c[i] == '.' && i > 0 && i < len(c)-1 && c[i+1] != '.'
		if dot || s.isPlain(c[i]) && !(i == 0 && isDevice(c)) {
			b.WriteByte(c[i])
		} else {
			b.WriteString(s.EscapeByte(c[i]))
		}
	}
	return b.String()
}

// EscapeByte returns the escape that stands for ch.
func (s Scheme) EscapeByte(ch byte) string {
	return string(s.Mark) + hex.EncodeToString([]byte{ch})
}

// Key returns the key of elements that are joined by slashes. What is no escape
// stays: only when Elements gives the same elements were they a key's.
func (s Scheme) Key(path string) string {
	path = strings.ReplaceAll(path, "/"+s.Lead, "")
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == s.Mark && i+2 < len(path) {
			if ch, err := hex.DecodeString(path[i+1 : i+3]); err == nil {
				b.Write(ch)
				i += 2
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// CanName reports whether an element of a path, without what the caller puts at
// its end, may come of a key.
func (s Scheme) CanName(element string) bool {
	rest := strings.TrimPrefix(element, s.Lead)
	for i := range len(rest) {
		if !s.isPlain(rest[i]) && rest[i] != '.' && rest[i] != s.Mark {
			return false
		}
	}
	return !strings.HasPrefix(rest, ".") || rest != element
}

func (s Scheme) isPlain(ch byte) bool {
	return 'a' <= ch && ch <= 'z' || '0' <= ch && ch <= '9' || ch == '-' || ch == '_' && s.Mark != '_'
}

// isDevice reports whether Windows takes a lower-case file name for a device: it
// does so whatever follows the first dot.
func isDevice(name string) bool {
	stem, _, _ := strings.Cut(name, ".")
	switch stem {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(stem) == 4 && (stem[:3] == "com" || stem[:3] == "lpt") && '0' <= stem[3] && stem[3] <= '9'
}
