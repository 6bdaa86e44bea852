package hostname

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	arpa4 = ".in-addr.arpa"
	arpa6 = ".ip6.arpa"
)

// FromReverseName returns the IP address whose reverse-mapping name is s, and
// reports whether s is one: what a CA puts into the SNI when it validates an IP
// identifier by tls-alpn-01 (RFC 8738 §6). Case and one trailing dot do not
// matter; a name that stands for a whole block of addresses is not one.
func FromReverseName(s string) (netip.Addr, bool) {
	s = lowerASCII(strings.TrimSuffix(s, "."))
	if rest, ok := strings.CutSuffix(s, arpa4); ok {
		return fromReverse4(rest)
	}
	if rest, ok := strings.CutSuffix(s, arpa6); ok {
		return fromReverse6(rest)
	}
	return netip.Addr{}, false
}

func fromReverse4(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, false
	}
	b := addr.As4()
	return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true
}

func fromReverse6(s string) (netip.Addr, bool) {
	if len(s) != 63 { // 32 digits with a dot between each two
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		if i > 0 && s[2*i-1] != '.' {
			return netip.Addr{}, false
		}
		v, err := strconv.ParseUint(s[2*i:2*i+1], 16, 8)
		if err != nil {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(v) << (4 * (i % 2))
	}
	addr := netip.AddrFrom16(b)
	// The reverse name of an IPv4-mapped address is the one of the IPv4 address.
	return addr, !addr.Is4In6()
}
