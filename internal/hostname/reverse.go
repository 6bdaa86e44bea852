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

// ReverseName returns the reverse-mapping name of an IP address, without a
// trailing dot: what a CA puts into the SNI when it validates an IP identifier
// by tls-alpn-01 (RFC 8738 §6). IPv4-mapped IPv6 addresses count as IPv4, a
// zone is left out, and the zero Addr gives "".
func ReverseName(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case ip.Is4():
		b := ip.As4()
		out := make([]byte, 0, len("255.255.255.255")+len(arpa4))
		for i := 3; i >= 0; i-- {
			out = strconv.AppendUint(out, uint64(b[i]), 10)
			out = append(out, '.')
		}
		return string(append(out, arpa4[1:]...))
	case ip.Is6():
		const hex = "0123456789abcdef"
		b := ip.As16()
		out := make([]byte, 0, 64+len(arpa6))
		for i := 15; i >= 0; i-- {
			out = append(out, hex[b[i]&15], '.', hex[b[i]>>4], '.')
		}
		return string(append(out, arpa6[1:]...))
	}
	return ""
}

// FromReverseName returns the IP address whose [ReverseName] is s, and reports
// whether s is one. Case and one trailing dot do not matter; a name that stands
// for a whole block of addresses is not one.
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
