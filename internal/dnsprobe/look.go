package dnsprobe

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// More servers of a zone, and addresses of a server, than anybody has are not asked.
const (
	maxServers   = 32
	maxAddresses = 8
)

// Answer is what one server has as TXT.
type Answer struct {
	Server string        // such as "ns1.example.com (192.0.2.1:53)"
	Values []string      // the texts, each of its chunks joined; none with Err nil: the server says that there is none
	Err    error         // it gave no answer: dead, lame (not authoritative), SERVFAIL, REFUSED, …
	Cached time.Duration // > 0: a negative answer from a resolver's cache, good for so long still
}

// Look asks for TXT at name, side by side: all servers of zone, or all
// Options.Resolvers if there are any. There is one Answer each, in the order of the
// servers' names or of the resolvers. An error means that it is not known whom to
// ask.
func (p *Prober) Look(ctx context.Context, zone, name string) ([]Answer, error) {
	at, err := canonical(name)
	if err != nil {
		return nil, fmt.Errorf("looking for TXT: %w", err)
	}
	if len(p.options.Resolvers) > 0 {
		return p.lookAtResolvers(ctx, query{at, dns.TypeTXT, true}), nil
	}
	apex, err := canonical(zone)
	if err != nil {
		return nil, fmt.Errorf("looking for TXT at %q: the zone: %w", name, err)
	}
	answers, err := p.lookAtZone(ctx, apex, query{at, dns.TypeTXT, false})
	if err != nil {
		return nil, fmt.Errorf("finding the servers of zone %q: %w", zone, err)
	}
	return answers, nil
}

func (p *Prober) lookAtResolvers(ctx context.Context, q query) []Answer {
	servers, errs := p.resolvers(ctx)
	answers := make([]Answer, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		if errs[i] != nil {
			answers[i] = Answer{Server: s.called(""), Err: errs[i]}
			continue
		}
		wg.Go(func() { answers[i] = p.texts(ctx, s, q) })
	}
	wg.Wait()
	return answers
}

func (p *Prober) lookAtZone(ctx context.Context, apex string, q query) ([]Answer, error) {
	r, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	m, err := r.resolve(ctx, apex, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	names := nameServers(m, apex)
	if len(names) == 0 {
		return nil, errors.New("it has no NS records; is it a zone?")
	}
	answers := make([]Answer, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			addrs, err := r.addresses(ctx, name, m.Extra)
			if err != nil {
				answers[i] = Answer{Server: plain(name), Err: err}
				return
			}
			answers[i] = p.texts(ctx, server{plain(name), addrs}, q)
		})
	}
	wg.Wait()
	return answers, nil
}

// nameServers returns the names of a zone's servers, sorted.
func nameServers(m *dns.Msg, apex string) []string {
	var names []string
	for _, rr := range m.Answer {
		if ns, ok := rr.(*dns.NS); ok && dns.CanonicalName(ns.Hdr.Name) == apex {
			names = append(names, dns.CanonicalName(ns.Ns))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), maxServers)]
}

// addresses finds where a zone's server is, IPv4 first: by look-up, or if that finds
// nothing among what came with its name (glue).
func (r *run) addresses(ctx context.Context, name string, glue []dns.RR) ([]string, error) {
	types := []uint16{dns.TypeA, dns.TypeAAAA}
	found, errs := make([][]dns.RR, len(types)), make([]error, len(types))
	var wg sync.WaitGroup
	for i, qtype := range types {
		wg.Go(func() {
			var m *dns.Msg
			if m, errs[i] = r.resolve(ctx, name, qtype); errs[i] == nil {
				found[i] = m.Answer
			}
		})
	}
	wg.Wait()
	addrs := r.p.dialable(slices.Concat(found...))
	if len(addrs) == 0 {
		addrs = r.p.dialable(slices.DeleteFunc(slices.Clone(glue), func(rr dns.RR) bool {
			return dns.CanonicalName(rr.Header().Name) != name
		}))
	}
	if len(addrs) > 0 {
		return addrs[:min(len(addrs), maxAddresses)], nil
	}
	if err := joined(errs); err != nil {
		return nil, fmt.Errorf("finding the addresses of %s: %w", plain(name), err)
	}
	return nil, fmt.Errorf("finding the addresses of %s: it has none", plain(name))
}

// dialable returns the addresses in A and AAAA records with the port.
func (p *Prober) dialable(rrs []dns.RR) []string {
	var addrs []string
	for _, rr := range rrs {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if ip != nil {
			addrs = append(addrs, net.JoinHostPort(ip.String(), p.options.Port))
		}
	}
	return addrs
}

// texts asks one server for TXT.
func (p *Prober) texts(ctx context.Context, s server, q query) Answer {
	m, addr, err := p.ask(ctx, s, q)
	a := Answer{Server: s.called(addr), Err: err}
	if err != nil {
		return a
	}
	if q.recurse {
		a.Err = fromResolver(m)
	} else {
		a.Err = fromOwner(m)
	}
	if a.Err != nil {
		return a
	}
	last := lastName(m, q.name)
	for _, rr := range m.Answer {
		if t, ok := rr.(*dns.TXT); ok && dns.CanonicalName(t.Hdr.Name) == last && a.Err == nil {
			var text string
			text, a.Err = textOf(t)
			a.Values = append(a.Values, text)
		}
	}
	switch {
	case len(a.Values) > 0:
	case !q.recurse && last != q.name:
		a.Err = fmt.Errorf("it has a CNAME there, to %s, and no TXT of that", plain(last))
	case q.recurse && !m.Authoritative:
		a.Cached = negativeTTL(m)
	}
	return a
}

// fromOwner says why m is not what a zone's own server has to say.
func fromOwner(m *dns.Msg) error {
	switch {
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return fmt.Errorf("it answers %s", rcode(m))
	case isReferral(m):
		return errors.New("it is not authoritative for the name: it refers to other servers")
	case !m.Authoritative:
		return errors.New("it is not authoritative for the zone (lame)")
	}
	return nil
}

// lastName returns where the CNAMEs in an answer lead.
func lastName(m *dns.Msg, name string) string {
	for range maxSteps {
		next, err := step(m, name)
		if err != nil || next == "" {
			break
		}
		name = next
	}
	return name
}

// textOf returns the bytes of a TXT record, its chunks joined. The record itself
// has them in presentation form, with escapes.
func textOf(t *dns.TXT) (string, error) {
	var wire dns.RFC3597
	err := wire.ToRFC3597(t)
	b, hexErr := hex.DecodeString(wire.Rdata)
	if err = cmp.Or(err, hexErr); err != nil {
		return "", fmt.Errorf("reading its TXT record: %w", err)
	}
	var text []byte
	for len(b) > 0 { // each chunk has its length in front (RFC 1035 §3.3)
		n := min(1+int(b[0]), len(b))
		text, b = append(text, b[1:n]...), b[n:]
	}
	return string(text), nil
}

// negativeTTL is how long the answer that there is nothing holds (RFC 2308 §5).
func negativeTTL(m *dns.Msg) time.Duration {
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeSOA && rr.Header().Ttl <= math.MaxInt32 { // RFC 2181 §8
			return time.Duration(rr.Header().Ttl) * time.Second
		}
	}
	return 0
}
