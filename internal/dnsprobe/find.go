package dnsprobe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxSteps is how many CNAMEs are followed from one name.
const maxSteps = 16

// Follow follows the CNAMEs (and DNAMEs) of name: path begins with name and ends
// with the last target. More than 16 steps and a loop are errors, and so is that
// nobody can say; the text has the path until then.
func (p *Prober) Follow(ctx context.Context, name string) (path []string, err error) {
	at, err := canonical(name)
	if err != nil {
		return nil, fmt.Errorf("following the CNAMEs of a name: %w", err)
	}
	path = []string{plain(at)}
	failed := func(err error) ([]string, error) {
		return nil, fmt.Errorf("following the CNAMEs %s: %w", strings.Join(path, " → "), err)
	}
	r, err := p.start(ctx)
	if err != nil {
		return failed(err)
	}
	for {
		m, err := r.resolve(ctx, at, dns.TypeCNAME)
		if err != nil {
			return failed(err)
		}
		target, err := step(m, at)
		if err != nil {
			return failed(err)
		}
		if target == "" {
			return path, nil
		}
		seen := slices.Contains(path, plain(target))
		path = append(path, plain(target))
		switch {
		case seen:
			return failed(errors.New("they lead round in a circle; mend the records"))
		case len(path) > maxSteps+1:
			return failed(fmt.Errorf("there are more than %d; write the record's name as the target of the first", maxSteps))
		}
		at = target
	}
}

// step returns where m says that a CNAME at name leads, canonical, and "" if there
// is none. A DNAME counts as the CNAME that it makes (RFC 6672 §2.2).
func step(m *dns.Msg, name string) (string, error) {
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == name {
			return canonical(c.Target)
		}
	}
	for _, rr := range m.Answer {
		d, ok := rr.(*dns.DNAME)
		if !ok {
			continue
		}
		owner := dns.CanonicalName(d.Hdr.Name)
		if below, ok := strings.CutSuffix(name, "."+owner); ok {
			return canonical(below + "." + d.Target)
		}
	}
	return "", nil
}

// Zone returns the zone that name is in: the name of the first SOA record from name
// upwards, so a name that is delegated is its own zone. Where no resolver has an
// answer the search goes on above, but no top-level domain is returned then. Only a
// SOA record of the very name that was asked for counts: a CNAME in the way is not
// followed.
func (p *Prober) Zone(ctx context.Context, name string) (zone string, err error) {
	at, err := canonical(name)
	if err != nil {
		return "", fmt.Errorf("finding the zone of a name: %w", err)
	}
	r, err := p.start(ctx)
	if err != nil {
		return "", fmt.Errorf("finding the zone of %q: %w", name, err)
	}
	var errs []error
	for ; at != ""; at = parent(at) {
		m, err := r.resolve(ctx, at, dns.TypeSOA)
		if ctx.Err() != nil {
			return "", fmt.Errorf("finding the zone of %q: %w", name, err)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeSOA && dns.CanonicalName(rr.Header().Name) == at
		}) {
			continue
		}
		if len(errs) > 0 && parent(at) == "" {
			errs = append(errs, fmt.Errorf("what is left is %q, which is nobody's zone", plain(at)))
			break
		}
		return plain(at), nil
	}
	if len(errs) == 0 {
		errs = []error{errors.New("neither it nor a name above it has a SOA record")}
	}
	return "", fmt.Errorf("finding the zone of %q: %w", name, joined(errs))
}
