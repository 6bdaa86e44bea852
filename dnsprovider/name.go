package dnsprovider

import (
	"errors"
	"strings"

	"github.com/certwright/certwright/internal/hostname"
)

// A fqdn is an absolute name: lower-case ASCII, without the final dot.
type fqdn string

// A zone is the absolute name of a zone's apex, written as a fqdn is.
type zone string

// A relative is a name as seen from its zone: "@" is the apex itself.
type relative string

// apex is the relative name of a zone itself.
const apex relative = "@"

// plain makes a fqdn of what a DNS server or a provider says.
func plain(s string) fqdn { return fqdn(strings.ToLower(strings.Trim(s, ". "))) }

// parseName reads a name that a person or a CA wrote.
func parseName(s string) (fqdn, error) {
	name, err := hostname.Normalize(s)
	if err != nil {
		return "", err
	}
	if hostname.IsWildcard(name) {
		return "", errors.New(`it begins with "*."; write the name alone`)
	}
	if hostname.IsIP(name) {
		return "", errors.New("it is an IP address; write a DNS name")
	}
	return fqdn(name), nil
}

// parent is the name without its first label, empty when it has but one.
func (n fqdn) parent() fqdn {
	_, rest, _ := strings.Cut(string(n), ".")
	return fqdn(rest)
}

// holds reports whether name is in the zone or is the zone itself.
func (z zone) holds(name fqdn) bool {
	rest, ok := strings.CutSuffix(string(name), string(z))
	return ok && z != "" && (rest == "" || strings.HasSuffix(rest, "."))
}

// dotted is the zone as libdns wants it.
func (z zone) dotted() string { return string(z) + "." }

// A place is a name and the zone that it is written in. It is made by at alone.
type place struct {
	zone zone
	name fqdn // held by zone
	rel  relative
}

// at computes what a name is in a zone; ok says whether it is in there at all. All
// that is written, looked for or deleted has its names from here.
func at(z zone, name fqdn) (p place, ok bool) {
	if !z.holds(name) {
		return place{}, false
	}
	rel := relative(strings.TrimSuffix(strings.TrimSuffix(string(name), string(z)), "."))
	if rel == "" {
		rel = apex
	}
	return place{zone: z, name: name, rel: rel}, true
}

// absolute is the inverse of at. Providers do not all keep to relative names: those
// with a final dot, and those that end in the zone already, are taken as absolute.
func (z zone) absolute(name string) fqdn {
	n := plain(name)
	switch {
	case n == "" || n == fqdn(apex):
		return fqdn(z)
	case strings.HasSuffix(name, ".") || z.holds(n):
		return n
	}
	return n + "." + fqdn(z)
}
