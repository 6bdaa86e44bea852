package fakedns

import (
	"io"
	"slices"

	"github.com/miekg/dns"
)

// Exchange is one query and what is about to be answered. A hook changes it.
type Exchange struct {
	Query
	Msg    *dns.Msg          // the query as it came
	Reply  *dns.Msg          // nil: no answer
	First  [][]byte          // messages that are sent before the answer
	Raw    []byte            // not nil: sent instead of Reply, as one message
	Hangup bool              // TCP: the connection is closed without an answer
	Stream func(w io.Writer) // TCP, not nil: writes to the connection instead, which is closed then
}

// Hook has f called for each query from now on, after the ordinary answer was made
// and before it is sent; nil ends that. It may be called by several goroutines. What
// comes from another Server that is a resolver ("recursion") passes it too; of that
// only Reply counts.
func (s *Server) Hook(f func(*Exchange)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Rcode is a hook that answers queries of the names, or of all without any, with
// that code and nothing else.
func Rcode(code int, names ...string) func(*Exchange) {
	return func(x *Exchange) {
		if x.isFor(names) && x.Reply != nil {
			x.Reply.Rcode, x.Reply.Authoritative = code, false
			x.Reply.Answer, x.Reply.Ns, x.Reply.Extra = nil, nil, nil
		}
	}
}

// Silence is a hook that does not answer queries of the names, or none at all
// without any.
func Silence(names ...string) func(*Exchange) {
	return func(x *Exchange) {
		if x.isFor(names) {
			x.Reply = nil
		}
	}
}

// Lame is a hook for a server that is not authoritative: it answers without AA.
func Lame(x *Exchange) {
	if x.Reply != nil {
		x.Reply.Authoritative = false
	}
}

func (x *Exchange) isFor(names []string) bool {
	return len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return plain(n) == x.Name })
}

// exchange makes the answer to m, notes the query, and lets the hook change it.
func (s *Server) exchange(m *dns.Msg, proto string) *Exchange {
	q := m.Question[0]
	x := &Exchange{Query: Query{Name: plain(q.Name), Type: q.Qtype, RD: m.RecursionDesired, Proto: proto}, Msg: m}
	x.Reply = s.reply(m)
	s.mu.Lock()
	hook := s.hook
	s.log = append(s.log, x.Query)
	s.changed.Broadcast()
	s.mu.Unlock()
	if hook != nil {
		hook(x)
	}
	return x
}

// packets returns what is sent. Over UDP the answer is cut to what the query allows.
func (x *Exchange) packets() [][]byte {
	switch {
	case x.Raw != nil:
		return append(x.First, x.Raw)
	case x.Reply == nil:
		return x.First
	}
	opt, size := x.Msg.IsEdns0(), dns.MaxMsgSize
	if opt != nil && x.Reply.IsEdns0() == nil {
		x.Reply.SetEdns0(1232, false)
	}
	if x.Proto == "udp" {
		size = dns.MinMsgSize
		if opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
	}
	truncated := x.Reply.Truncated
	x.Reply.Truncate(size)
	x.Reply.Truncated = x.Reply.Truncated || truncated
	b, err := x.Reply.Pack()
	if err != nil {
		panic("fakedns: packing an answer: " + err.Error())
	}
	return append(x.First, b)
}

// reply is the ordinary answer: from the server's zones, else by recursion.
func (s *Server) reply(m *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(m)
	q := m.Question[0]
	name := dns.CanonicalName(q.Name)
	s.mu.Lock()
	z, upstream := s.zoneOf(name), s.upstream
	s.mu.Unlock()
	r.RecursionAvailable = len(upstream) > 0
	switch {
	case z != nil:
		s.authoritative(r, name, q.Qtype)
	case len(upstream) > 0 && m.RecursionDesired:
		s.recurse(r, name, q.Qtype)
	default:
		r.Rcode = dns.RcodeRefused
	}
	return r
}

// authoritative answers from the server's zones, through at most 16 CNAMEs.
func (s *Server) authoritative(r *dns.Msg, name string, qtype uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Authoritative = true
	for range maxSteps {
		z := s.zoneOf(name)
		if z == nil {
			return
		}
		if name = z.lookup(r, name, qtype); name == "" {
			return
		}
	}
}
