package hostname

import (
	"net/netip"
	"strings"
)

// IsIP reports whether a normalised name is an IP address.
func IsIP(name string) bool {
	_, ok := address(name)
	return ok
}

// IsWildcard reports whether a normalised name begins with "*.".
func IsWildcard(name string) bool {
	return strings.HasPrefix(name, wildcard)
}

// Parent returns a normalised name without its first label, "" when it has one
// label only. It allocates nothing. The parent of an IP address has no meaning.
func Parent(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return parent
}

// Covers reports whether a certificate for pattern is good for name, both
// normalised: they are equal, or pattern is a wildcard and name has exactly one
// label in its place (RFC 9525 §6.3). A wildcard covers no IP address and no
// other wildcard.
func Covers(pattern, name string) bool {
	if pattern == name {
		return true
	}
	if !IsWildcard(pattern) || IsWildcard(name) || IsIP(name) {
		return false
	}
	label, parent, found := strings.Cut(name, ".")
	return found && label != "" && parent == pattern[len(wildcard):]
}

// IsPublic reports whether a public CA could issue a certificate for a
// normalised name by its form alone. It could not for single labels, for the
// special-use names localhost, test, invalid and example (RFC 6761), local
// (RFC 6762), home.arpa (RFC 8375), onion (RFC 7686), alt (RFC 9476) and
// internal (reserved by ICANN for private use), and for addresses that are not
// reachable from everywhere (RFC 6890): private, loopback, link-local, shared
// (RFC 6598), unique local, unspecified, multicast, benchmarking and reserved
// ones. A wildcard is as public as what it stands on.
func IsPublic(name string) bool {
	name = strings.TrimPrefix(name, wildcard)
	if addr, ok := address(name); ok {
		return isPublicAddr(addr)
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return false
	}
	switch name[dot+1:] {
	case "localhost", "local", "internal", "test", "invalid", "onion", "example", "alt":
		return false
	}
	return name != "home.arpa" && !strings.HasSuffix(name, ".home.arpa")
}

func isPublicAddr(addr netip.Addr) bool {
	addr = addr.Unmap()
	if addr.Is6() {
		// RFC 4291 §2.4 and the IANA registry: only 2000::/3 is given out for
		// global unicast, so this leaves out all of the special kinds at once.
		return addr.As16()[0]&0xe0 == 0x20
	}
	b := addr.As4()
	switch {
	case addr.IsPrivate(), addr.IsLoopback(), addr.IsLinkLocalUnicast():
		return false
	case b[0] == 0, b[0] >= 224: // this network; multicast and reserved
		return false
	case b[0] == 100 && b[1]&0xc0 == 64: // 100.64.0.0/10, RFC 6598
		return false
	case b[0] == 198 && b[1]&0xfe == 18: // 198.18.0.0/15, RFC 2544
		return false
	}
	return true
}

// address reads a name that can be an address; it spares all others the error
// value that netip would allocate.
func address(name string) (netip.Addr, bool) {
	if name == "" {
		return netip.Addr{}, false
	}
	last := name[len(name)-1]
	if (last < '0' || '9' < last) && !strings.Contains(name, ":") {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(name)
	return addr, err == nil && addr.Zone() == ""
}
