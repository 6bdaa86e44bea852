package dnsprovider

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/libdns/libdns"
)

// A candidate is a place where a record may have to be written.
type candidate struct {
	place

	// listed: the provider has said that the zone is its own.
	// strange: the zone may well be somebody else's: the target of a CNAME is in
	// it, which a wildcard may have caused, or it is a zone of its own at the name
	// or below the listed one.
	listed, strange bool
}

// places goes through where a record for name may have to be written, the likeliest
// first: at the end of its CNAMEs, then at name itself; in the zone that is
// configured, or listed by the provider, or found by SOA, or its parents. A zone that
// may be somebody else's is among them only if the provider can edit it, or if it
// cannot say.
func (s *Solver) places(ctx context.Context, name fqdn, warn, failed func(error)) iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		for _, n := range s.namesFor(ctx, name, warn, failed) {
			aliased, failed := n != name && s.Target == "", failed
			if aliased {
				all := failed
				failed = func(err error) { all(fmt.Errorf("%q is a CNAME to %q: %w", name, n, err)) }
			}
			for c := range s.zonesFor(ctx, n, aliased, warn, failed) {
				if c.strange && !s.mayEdit(ctx, c, name, warn) {
					failed(fmt.Errorf("not writing TXT %q in zone %q: %s cannot edit that zone", c.rel, c.zone, providerName(s.Provider)))
					continue
				}
				if !yield(c) {
					return
				}
			}
		}
	}
}

// namesFor are the names at which a record for name may have to be written.
func (s *Solver) namesFor(ctx context.Context, name fqdn, warn, failed func(error)) []fqdn {
	if target, _ := s.target(); target != "" { // Check has looked at it
		return []fqdn{target}
	}
	path, err := s.dns().Follow(ctx, string(name))
	if err != nil {
		warn(err)
		failed(err)
		return []fqdn{name}
	}
	if len(path) > 0 {
		if last := plain(path[len(path)-1]); last != name {
			return []fqdn{last, name}
		}
	}
	return []fqdn{name}
}

// zonesFor goes through the zones that name may be in.
func (s *Solver) zonesFor(ctx context.Context, name fqdn, aliased bool, warn, failed func(error)) iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		if z, _ := s.zone(); z != "" {
			if p, ok := at(z, name); ok {
				yield(candidate{place: p, listed: true})
			} else {
				failed(fmt.Errorf("%q is not in Zone, %q", name, z))
			}
			return
		}
		listed, isListed := s.listed(ctx, name, warn)
		found, err := s.zoneOf(ctx, name)
		if err != nil && !isListed {
			failed(err)
			return
		}
		for z := found; z != ""; z = s.above(ctx, z) {
			if isListed && len(z) <= len(listed) {
				break
			}
			p, ok := at(z, name)
			if !ok {
				break
			}
			if !yield(candidate{place: p, strange: aliased || isListed || fqdn(z) == name && s.Target == ""}) {
				return
			}
		}
		if isListed {
			p, _ := at(listed, name)
			yield(candidate{place: p, listed: true})
		}
	}
}

// zoneOf is the zone that name is in by its SOA record.
func (s *Solver) zoneOf(ctx context.Context, name fqdn) (zone, error) {
	found, err := s.dns().Zone(ctx, string(name))
	if err != nil {
		return "", err
	}
	z := zone(plain(found))
	if !z.holds(name) {
		return "", fmt.Errorf("finding the zone of %q: %q does not hold it; set Zone", name, clip(found))
	}
	return z, nil
}

// above is the next zone above z, empty when there is none that could be anybody's.
func (s *Solver) above(ctx context.Context, z zone) zone {
	parent := fqdn(z).parent()
	if !strings.Contains(string(parent), ".") {
		return ""
	}
	found, err := s.zoneOf(ctx, parent)
	if err != nil || !strings.Contains(string(found), ".") {
		return ""
	}
	return found
}

// mayEdit reports whether a zone that may be somebody else's is to be tried. One that
// the provider can read is. One that it cannot read is not when it can read, or lists,
// the zone of name itself: a provider that can read neither does not read at all, and
// says by the writing whether it may.
func (s *Solver) mayEdit(ctx context.Context, c candidate, name fqdn, warn func(error)) bool {
	if _, ok := s.Provider.(libdns.RecordGetter); ok {
		if _, err := s.read(ctx, c.zone); err == nil {
			return true
		}
	}
	if _, ok := s.listed(ctx, name, warn); ok {
		return false
	}
	own, err := s.zoneOf(ctx, name)
	if err == nil && own == c.zone {
		own = s.above(ctx, own)
	}
	if err != nil || own == "" {
		return true
	}
	_, err = s.read(ctx, own)
	return err != nil
}
