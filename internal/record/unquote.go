package record

import (
	"bytes"
	"encoding/binary"
)

// Unquote appends what a raw JSON string, quotes included, stands for to dst.
// For what is not a string in ASCII with escapes of one letter it reports false
// and returns dst as it was: encoding/json reads that.
func Unquote(raw, dst []byte) ([]byte, bool) {
	n := len(raw) - 1
	if n < 1 || raw[0] != '"' || raw[n] != '"' || !plainText(raw) {
		return dst, false
	}
	out, raw := dst, raw[1:n]
	for {
		i := bytes.IndexByte(raw, '\\')
		text := raw
		if i >= 0 {
			text = raw[:i]
		}
		if bytes.IndexByte(text, '"') >= 0 {
			return dst, false
		}
		out = append(out, text...)
		if i < 0 {
			return out, true
		}
		if i+1 == len(raw) {
			return dst, false
		}
		c := unescape(raw[i+1])
		if c == 0 {
			return dst, false
		}
		out, raw = append(out, c), raw[i+2:]
	}
}

// unescape returns what stands for a backslash and c in JSON (RFC 8259 §7), or 0
// when that is more than a byte or nothing.
func unescape(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	}
	return 0
}

// plainText reports whether text is ASCII without control characters. DEL is
// none in JSON.
func plainText(text []byte) bool {
	const (
		spaces = 0x2020202020202020
		highs  = 0x8080808080808080
	)
	for len(text) >= 8 {
		// The highest bit of a byte is set when it was, or by the borrow of the
		// subtraction when the byte, or one below it, is less than a space.
		word := binary.LittleEndian.Uint64(text)
		if (word|(word-spaces))&highs != 0 {
			return false
		}
		text = text[8:]
	}
	for _, c := range text {
		if c < ' ' || c >= 0x80 {
			return false
		}
	}
	return true
}
