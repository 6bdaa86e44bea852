package fakedns

import (
	"time"

	"github.com/miekg/dns"
)

const maxSteps = 16 // CNAMEs that a server follows for one query

type question struct {
	name  string
	qtype uint16 // dns.TypeNone: all types, as NXDOMAIN says
}

// negative is an answer in a resolver's cache that says that there is nothing.
type negative struct {
	soa  *dns.SOA
	ends time.Duration
}

// Recurse makes the server a resolver: what it has no zone for it asks the one of
// the servers with the longest zone that the name is in, the next of those if there
// is no answer. SERVFAIL is the answer if none has one. It keeps negative answers
// as long as their SOA record says, by a clock that only Advance moves.
func (s *Server) Recurse(over ...*Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upstream = over
}

// Advance moves the clock of the resolver's cache.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += d
}

// recurse answers with what the other servers say, CNAMEs followed.
func (s *Server) recurse(r *dns.Msg, name string, qtype uint16) {
	for range maxSteps {
		if s.cached(r, name, qtype) {
			return
		}
		a := s.ask(name, qtype)
		if a == nil {
			break
		}
		r.Rcode = a.Rcode
		r.Answer = append(r.Answer, a.Answer...)
		last := lastName(name, qtype, a.Answer)
		if s.note(r, a, last, qtype) || last == name || has(a.Answer, last, qtype) {
			return
		}
		name = last
	}
	r.Rcode, r.Answer, r.Ns = dns.RcodeServerFailure, nil, nil
}

// ask returns the answer of the first server that is authoritative, nil if none is.
func (s *Server) ask(name string, qtype uint16) *dns.Msg {
	s.mu.Lock()
	upstream := s.upstream
	s.mu.Unlock()
	for apex := name; ; apex = parentOf(apex) {
		for _, u := range upstream {
			if !u.serves(apex) {
				continue
			}
			m := new(dns.Msg).SetQuestion(name, qtype)
			m.RecursionDesired = false
			a := u.exchange(m, "recursion").Reply
			if a != nil && a.Authoritative && (a.Rcode == dns.RcodeSuccess || a.Rcode == dns.RcodeNameError) {
				return a
			}
		}
		if apex == "." {
			return nil
		}
	}
}

func (s *Server) serves(apex string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zones[apex] != nil
}

// lastName is where the CNAMEs of an answer lead.
func lastName(name string, qtype uint16, answer []dns.RR) string {
	for range maxSteps {
		next := ""
		for _, rr := range answer {
			if c, ok := rr.(*dns.CNAME); ok && qtype != dns.TypeCNAME && dns.CanonicalName(c.Hdr.Name) == name {
				next = dns.CanonicalName(c.Target)
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	return name
}

func has(answer []dns.RR, name string, qtype uint16) bool {
	for _, rr := range answer {
		if rr.Header().Name == name && rr.Header().Rrtype == qtype {
			return true
		}
	}
	return false
}

// note keeps a negative answer and passes its SOA record on. It reports whether a
// is one.
func (s *Server) note(r, a *dns.Msg, name string, qtype uint16) bool {
	if len(a.Ns) == 0 {
		return false
	}
	soa, ok := a.Ns[0].(*dns.SOA)
	if !ok {
		return false
	}
	r.Ns = []dns.RR{dns.Copy(soa)}
	if a.Rcode == dns.RcodeNameError {
		qtype = dns.TypeNone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.negative[question{name, qtype}] = negative{soa, s.now + time.Duration(soa.Hdr.Ttl)*time.Second}
	return true
}

// cached answers from the cache if it can.
func (s *Server) cached(r *dns.Msg, name string, qtype uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range []question{{name, dns.TypeNone}, {name, qtype}} {
		kept, ok := s.negative[key]
		if !ok || s.now >= kept.ends {
			continue
		}
		soa := dns.Copy(kept.soa)
		soa.Header().Ttl = uint32((kept.ends - s.now) / time.Second)
		r.Ns = []dns.RR{soa}
		if r.Rcode = dns.RcodeSuccess; key.qtype == dns.TypeNone {
			r.Rcode = dns.RcodeNameError
		}
		return true
	}
	return false
}
