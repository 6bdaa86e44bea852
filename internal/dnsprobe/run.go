package dnsprobe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

// run is the look-ups of one call through resolvers.
type run struct {
	p *Prober

	mu      sync.Mutex // guards servers
	servers []server   // one address each; those that did not answer come last
}

// start begins a run with the configured resolvers, or else the system's. It fails
// if no resolver has an address.
func (p *Prober) start(ctx context.Context) (*run, error) {
	r := &run{p: p}
	servers, errs := p.resolvers(ctx)
	for _, s := range servers {
		for _, addr := range s.addrs {
			r.servers = append(r.servers, server{name: s.name, addrs: []string{addr}})
		}
	}
	if len(r.servers) == 0 {
		return nil, joined(append(errs, errors.New("there is no resolver to ask")))
	}
	return r, nil
}

// resolve returns the answer of the first resolver that has one: NOERROR or
// NXDOMAIN.
func (r *run) resolve(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	r.mu.Lock()
	servers := slices.Clone(r.servers)
	r.mu.Unlock()
	q := query{name, qtype, true}
	var errs []error
	for _, s := range servers {
		m, addr, err := r.p.ask(ctx, s, q)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("asking for %v: %w", q, context.Cause(ctx))
		}
		if err != nil {
			r.last(addr)
			errs = append(errs, err)
			continue
		}
		if err = fromResolver(m); err == nil {
			return m, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.called(addr), err))
	}
	return nil, fmt.Errorf("asking for %v: %w", q, joined(errs))
}

// last puts the resolver at addr behind all others.
func (r *run) last(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.servers {
		if s.addrs[0] == addr {
			r.servers = append(slices.Delete(slices.Clone(r.servers), i, i+1), s)
			return
		}
	}
}

// fromResolver says why m is not what a resolver has found.
func fromResolver(m *dns.Msg) error {
	switch {
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return fmt.Errorf("it answers %s", rcode(m))
	case isReferral(m):
		return errors.New("it is no resolver: it refers to other servers")
	}
	return nil
}

// isReferral reports whether m only says who else may know (RFC 2308 §2.2).
func isReferral(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeSuccess && !m.Authoritative && len(m.Answer) == 0 &&
		slices.ContainsFunc(m.Ns, isType(dns.TypeNS)) && !slices.ContainsFunc(m.Ns, isType(dns.TypeSOA))
}

func isType(t uint16) func(dns.RR) bool {
	return func(rr dns.RR) bool { return rr.Header().Rrtype == t }
}

func rcode(m *dns.Msg) string {
	if text, ok := dns.RcodeToString[m.Rcode]; ok {
		return text
	}
	return fmt.Sprintf("RCODE %d", m.Rcode)
}
