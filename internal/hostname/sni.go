package hostname

import (
	"net/netip"
	"strings"
)

// MaxSNI is the longest name, in bytes, that [AppendSNI] appends.
const MaxSNI = maxName

// FromSNI returns the normalised form of the server name in a TLS ClientHello
// and reports whether it is one, as [AppendSNI] does. It allocates nothing when s
// is normalised already.
func FromSNI(s string) (string, bool) {
	var buf [MaxSNI]byte
	name, ok := AppendSNI(buf[:0], s)
	if s = strings.TrimSuffix(s, "."); string(name) == s {
		return s, ok
	}
	return string(name), ok
}

// AppendSNI appends the normalised form of the server name in a TLS ClientHello
// to dst and reports whether it is one. It allocates nothing when dst has room
// for MaxSNI bytes. One trailing dot is taken off, letters are lower-cased, and an
// IP address, which RFC 6066 §3 does not allow there but clients send, becomes
// canonical text.
//
// It is for looking a name up, where more is at large than may be asked of a
// CA: it lets hyphens stand anywhere and does not check A-labels. Whoever means
// to order a certificate for the name gives it to [Normalize] first. Everything
// else is refused: the empty name, names too long, wildcards, non-ASCII, spaces,
// control bytes and ports.
func AppendSNI(dst []byte, s string) ([]byte, bool) {
	s = strings.TrimSuffix(s, ".")
	switch formOf(s) {
	case formLower:
		return append(dst, s...), true
	case formUpper:
		n := len(dst)
		dst = append(dst, s...)
		lowerBytes(dst[n:])
		return dst, true
	case formAddress:
		if addr, ok := addressFromSNI(s); ok {
			return addr.AppendTo(dst), true
		}
	}
	return dst, false
}

// form is what a server name looks like.
type form int

const (
	formNone    form = iota // no name
	formLower               // a DNS name as it is stored
	formUpper               // a DNS name with upper-case letters
	formAddress             // perhaps an IP address
)

// class is a set of kinds of bytes.
type class uint8

const (
	classLetter class = 1 << iota // and hyphen and underscore
	classUpper
	classAddress // what only an IP address has
	classOther
	classDigit class = 0
)

// classes has the class of every byte; it is not changed.
var classes = func() (t [256]class) {
	for i := range t {
		switch c := byte(i); {
		case isLDHU(c) && (c < '0' || c > '9'):
			t[i] = classLetter
		case 'A' <= c && c <= 'Z':
			t[i] = classLetter | classUpper
		case c == ':' || c == '[' || c == ']':
			t[i] = classAddress
		case c < '0' || c > '9': // a dot too
			t[i] = classOther
		}
	}
	return t
}()

func formOf(s string) form {
	if s == "" || len(s) > maxName {
		return formNone
	}
	var all, label class // what is in s and in its present label
	start := 0           // of the label
	for i := range len(s) {
		c := s[i]
		if c != '.' {
			label |= classes[c]
			continue
		}
		if n := i - start; n == 0 || n > maxLabel {
			return formNone
		}
		all, label, start = all|label, 0, i+1
	}
	all |= label
	switch n := len(s) - start; {
	case all&classOther != 0, n == 0:
		return formNone
	case all&classAddress != 0, label == classDigit:
		return formAddress
	case n > maxLabel:
		return formNone
	case all&classUpper != 0:
		return formUpper
	}
	return formLower
}

func addressFromSNI(s string) (netip.Addr, bool) {
	if inside, ok := strings.CutPrefix(s, "["); ok {
		if s, ok = strings.CutSuffix(inside, "]"); !ok {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

func isLDHU(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// lowerASCII lower-cases A to Z only: the rest is for idna to map.
func lowerASCII(s string) string {
	b := []byte(s)
	lowerBytes(b)
	return string(b)
}

func lowerBytes(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || '9' < s[i] {
			return false
		}
	}
	return s != ""
}
