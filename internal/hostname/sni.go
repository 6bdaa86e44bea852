package hostname

import (
	"net/netip"
	"strings"
)

// FromSNI returns the normalised form of the server name in a TLS ClientHello
// and reports whether it is one. It allocates nothing when s is normalised
// already. One trailing dot is taken off, letters are lower-cased, and an IP
// address, which RFC 6066 §3 does not allow there but clients send, comes back
// as canonical text.
//
// It is for looking a name up, where more is at large than may be asked of a
// CA: it lets hyphens stand anywhere and does not check A-labels. Whoever means
// to order a certificate for the name gives it to [Normalize] first. Everything
// else is refused: the empty name, names too long, wildcards, non-ASCII, spaces,
// control bytes and ports.
func FromSNI(s string) (string, bool) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > maxName {
		return "", false
	}
	label, number, upper := 0, true, false
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label, number = 0, true
			continue
		case c == ':' || c == '[':
			return addressFromSNI(s)
		case 'A' <= c && c <= 'Z':
			upper = true
		case !isLDHU(c):
			return "", false
		}
		number = number && '0' <= c && c <= '9'
		if label++; label > maxLabel {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	if number {
		return addressFromSNI(s)
	}
	if upper {
		s = lowerASCII(s)
	}
	return s, true
}

func addressFromSNI(s string) (string, bool) {
	if inside, ok := strings.CutPrefix(s, "["); ok {
		if s, ok = strings.CutSuffix(inside, "]"); !ok {
			return "", false
		}
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return "", false
	}
	if addr.Is4() {
		return s, true // netip takes IPv4 in canonical form only
	}
	return addr.Unmap().String(), true
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
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return lowerASCIIFrom(s, i)
		}
	}
	return s
}

func lowerASCIIFrom(s string, first int) string {
	b := []byte(s)
	for i := first; i < len(b); i++ {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || '9' < s[i] {
			return false
		}
	}
	return s != ""
}
