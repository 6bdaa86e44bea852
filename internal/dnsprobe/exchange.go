package dnsprobe

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ednsSize is the size of a UDP answer that no path breaks into fragments.
const ednsSize = 1232

// query is one question. recurse is for a resolver; a zone's own server may refuse
// a query with it.
type query struct {
	name    string // canonical
	qtype   uint16
	recurse bool
}

func (q query) String() string { return dns.TypeToString[q.qtype] + " of " + plain(q.name) }

// ask asks a server: all its addresses over UDP, one after the other, then over
// TCP, until one answers. Without an answer addr is the last that was asked.
func (p *Prober) ask(ctx context.Context, s server, q query) (r *dns.Msg, addr string, err error) {
	var errs []error
	addrs := s.addrs
	for _, network := range []string{"udp", "tcp"} {
		for i := range addrs {
			addr = addrs[i]
			if r, err = p.exchange(ctx, network, addr, q); err == nil {
				return r, addr, nil
			}
			if ctx.Err() != nil {
				return nil, addr, context.Cause(ctx)
			}
			errs = append(errs, fmt.Errorf("%s over %s: %w", addr, strings.ToUpper(network), err))
			if errors.Is(err, errCut) {
				addrs = addrs[i:] // those before it are dead
				break
			}
		}
	}
	return nil, addr, joined(errs)
}

var errCut = errors.New("the answer is cut")

// exchange asks one address. A server that does not know EDNS is asked without it
// (RFC 6891 §6.2.2).
func (p *Prober) exchange(ctx context.Context, network, addr string, q query) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(q.name, q.qtype).SetEdns0(ednsSize, false)
	m.RecursionDesired = q.recurse
	r, err := p.once(ctx, network, addr, m)
	if err == nil && (r.Rcode == dns.RcodeFormatError || r.Rcode == dns.RcodeNotImplemented) && r.IsEdns0() == nil {
		m.Extra = nil
		r, err = p.once(ctx, network, addr, m)
	}
	if err == nil && r.Truncated {
		return nil, errCut
	}
	return r, err
}

// once sends m and waits for its answer, when fewer than maxQueries are under way.
func (p *Prober) once(ctx context.Context, network, addr string, m *dns.Msg) (*dns.Msg, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	bound := p.bound(network, addr, plain(m.Question[0].Name))
	within, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	r, err := roundTrip(within, network, addr, m)
	var late net.Error
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &late) && late.Timeout():
		return nil, fmt.Errorf("no answer within %v", bound)
	}
	return nil, err
}

func roundTrip(ctx context.Context, network, addr string, m *dns.Msg) (*dns.Msg, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-stopped
		}
	}()
	c := &dns.Conn{Conn: conn, UDPSize: dns.DefaultMsgSize} // some send more than they may
	if err := c.WriteMsg(m); err != nil {
		return nil, err
	}
	var wrong error // what came that is no answer
	for {
		b, err := c.ReadMsgHeader(nil)
		if err != nil && !errors.Is(err, dns.ErrShortRead) {
			return nil, cmp.Or(wrong, err)
		}
		r, err := parse(m, b)
		if err == nil {
			return r, nil
		}
		wrong = fmt.Errorf("no answer, and what came is none: %w", err)
		if network == "tcp" {
			return nil, wrong // nobody else speaks on this connection
		}
	}
}

// parse reads the answer to m. An error says that b is none.
func parse(m *dns.Msg, b []byte) (*dns.Msg, error) {
	r := new(dns.Msg)
	err := r.Unpack(b)
	if err != nil && !(r.Truncated && r.Id == m.Id) { // a cut answer may end anywhere
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	answered := r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError
	switch {
	case r.Id != m.Id:
		return nil, errors.New("it has another ID")
	case !r.Response || r.Opcode != dns.OpcodeQuery:
		return nil, errors.New("it is no response")
	case r.Truncated:
		return r, nil
	case len(r.Question) == 0 && !answered:
		return r, nil // some send only the header when they refuse
	case len(r.Question) != 1 || !sameQuestion(r.Question[0], m.Question[0]):
		return nil, errors.New("it is for another question")
	case answered && !whole(r, b):
		return nil, errors.New("it is damaged: records are missing")
	}
	return r, nil
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && dns.CanonicalName(a.Name) == dns.CanonicalName(b.Name)
}

// whole reports whether r has as many records as the header of b says
// (RFC 1035 §4.1.1), which [dns.Msg.Unpack] does not mind.
func whole(r *dns.Msg, b []byte) bool {
	for i, section := range [][]dns.RR{r.Answer, r.Ns, r.Extra} {
		if len(section) != int(binary.BigEndian.Uint16(b[6+2*i:])) {
			return false
		}
	}
	return true
}
