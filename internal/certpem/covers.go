package certpem

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// The kinds of GeneralName that count (RFC 5280 §4.2.1.6).
const (
	tagDNSName   = der.Tag(2 | 0x80)
	tagIPAddress = der.Tag(7 | 0x80)
)

// Covers returns an error that names the first of names, which are normalised,
// that the leaf is not good for. The rule is that of [Verify].
func (f Facts) Covers(names []string) error {
	for _, name := range names {
		if !f.covers(name) {
			return fmt.Errorf("the leaf does not cover %q", name)
		}
	}
	return nil
}

func (f *Facts) covers(name string) bool {
	rest := cryptobyte.String(f.names)
	var value cryptobyte.String
	var tag der.Tag
	for rest.ReadAnyASN1(&value, &tag) {
		switch {
		case tag == tagDNSName && dnsCovers(value, name), tag == tagIPAddress && ipCovers(value, name):
			return true
		}
	}
	return false
}

// dnsCovers is covers for a name as it stands in a certificate.
func dnsCovers(pattern []byte, name string) bool {
	pattern = bytes.TrimSuffix(pattern, []byte("."))
	if len(pattern) == 0 {
		return false
	}
	if equalLower(pattern, name) {
		return true
	}
	if len(pattern) < 2 || string(pattern[:2]) != "*." || strings.HasPrefix(name, "*.") {
		return false
	}
	label, parent, found := strings.Cut(name, ".")
	return found && label != "" && equalLower(pattern[2:], parent) && !isAddr(name)
}

func ipCovers(ip []byte, name string) bool {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	var text [64]byte
	return string(addr.Unmap().AppendTo(text[:0])) == name
}

// isAddr reports whether name is an IP address. Asking netip of every name
// would cost an allocation for each that is none.
func isAddr(name string) bool {
	last := name[len(name)-1]
	if strings.IndexByte(name, ':') < 0 && (last < '0' || last > '9') {
		return false
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// equalLower reports whether text in lower case is name.
func equalLower(text []byte, name string) bool {
	if len(text) != len(name) {
		return false
	}
	for i, c := range text {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
