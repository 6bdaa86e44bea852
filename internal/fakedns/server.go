package fakedns

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Server is one server of a Net.
type Server struct {
	net  *Net
	host string
	udp  net.PacketConn
	tcp  net.Listener

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond // the log has grown
	closed   bool
	conns    map[net.Conn]bool
	zones    map[string]*zone
	upstream []*Server // not empty: a resolver over these
	negative map[question]negative
	now      time.Duration
	hook     func(*Exchange)
	log      []Query
}

// Query is one query that came in.
type Query struct {
	Name  string
	Type  uint16
	RD    bool   // recursion is desired
	Proto string // "udp", "tcp", or "recursion" from another Server that is a resolver
}

func newServer(n *Net, host string) *Server {
	s := &Server{
		net: n, host: host, conns: make(map[net.Conn]bool),
		zones: make(map[string]*zone), negative: make(map[question]negative),
	}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return net.JoinHostPort(s.host, s.net.Port) }

// Host returns the server's IP address.
func (s *Server) Host() string { return s.host }

// Zone makes the server authoritative for a zone with these records, and forgets
// what it had of it. They are lines of a zone file whose names are relative to the
// zone: "@ NS ns1", "ns1 A 127.0.0.1", "*.sub CNAME other.example.". Without a SOA
// line there is one whose minimum is 60 s. It panics about a line it cannot read.
func (s *Server) Zone(name string, lines ...string) {
	apex := dns.CanonicalName(name)
	z := newZone(apex, lines)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones[apex] = z
}

// DropZone ends that the server is authoritative for a zone.
func (s *Server) DropZone(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zones, dns.CanonicalName(name))
}

// Add adds records, which are not there twice. Lines have full names: "a.example A 127.0.0.1".
func (s *Server) Add(lines ...string) { s.add(".", lines) }

func (s *Server) add(origin string, lines []string) {
	s.edit(parse(origin, lines), (*zone).add)
}

// Remove removes the records with these names, types and data.
func (s *Server) Remove(lines ...string) { s.edit(parse(".", lines), (*zone).remove) }

// Set replaces all records of one type at name.
func (s *Server) Set(name string, qtype uint16, lines ...string) {
	name = dns.CanonicalName(name)
	rrs := parse(".", lines)
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zoneOf(name)
	z.drop(name, func(rr dns.RR) bool { return rr.Header().Rrtype == qtype })
	for _, rr := range rrs {
		z.add(rr)
	}
}

// AddTXT adds a TXT record with the very bytes of value, in chunks of 255.
func (s *Server) AddTXT(name, value string) { s.edit([]dns.RR{txt(name, value)}, (*zone).add) }

// RemoveTXT removes what AddTXT added.
func (s *Server) RemoveTXT(name, value string) { s.edit([]dns.RR{txt(name, value)}, (*zone).remove) }

func txt(name, value string) dns.RR {
	var data []byte
	for chunk := range slices.Chunk([]byte(value), 255) {
		data = append(append(data, byte(len(chunk))), chunk...)
	}
	if value == "" {
		data = []byte{0}
	}
	return parse(".", []string{fmt.Sprintf("%s 300 IN TXT \\# %d %s", dns.Fqdn(name), len(data), hex.EncodeToString(data))})[0]
}

func (s *Server) edit(rrs []dns.RR, how func(*zone, dns.RR)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rr := range rrs {
		z := s.zoneOf(rr.Header().Name)
		if z == nil {
			panic("fakedns: no zone for " + rr.Header().Name)
		}
		how(z, rr)
	}
}

// zoneOf returns the longest of the server's zones that name is in; s.mu is held.
func (s *Server) zoneOf(name string) *zone {
	for {
		if z := s.zones[name]; z != nil {
			return z
		}
		if name == "." {
			return nil
		}
		name = parentOf(name)
	}
}

// Queries returns what came in so far, oldest first.
func (s *Server) Queries() []Query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Await returns once there were n queries with this name and type; "" is any name,
// dns.TypeNone any type. It fails when ctx ends before.
func (s *Server) Await(ctx context.Context, n int, name string, qtype uint16) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		found := 0
		for _, q := range s.log {
			if (name == "" || q.Name == plain(name)) && (qtype == dns.TypeNone || q.Type == qtype) {
				found++
			}
		}
		if found >= n {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for query %d of %q at %s: %w", n, name, s.Addr(), context.Cause(ctx))
		}
		s.changed.Wait()
	}
}

func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.udp != nil {
		s.udp.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
	for c := range s.conns {
		c.Close()
	}
}

func (s *Server) serveUDP() {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			if s.isClosed() {
				return
			}
			continue // such as a client whose port is closed
		}
		m := new(dns.Msg)
		if m.Unpack(buf[:n]) != nil || len(m.Question) != 1 {
			continue
		}
		s.net.wg.Go(func() {
			for _, b := range s.exchange(m, "udp").packets() {
				_, _ = s.udp.WriteTo(b, from)
			}
		})
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		if s.closed {
			c.Close()
		}
		s.mu.Unlock()
		s.net.wg.Go(func() {
			s.serveConn(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Server) serveConn(c net.Conn) {
	for {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		m := new(dns.Msg)
		if m.Unpack(b) != nil || len(m.Question) != 1 {
			return
		}
		x := s.exchange(m, "tcp")
		if x.Hangup {
			return
		}
		if x.Stream != nil {
			x.Stream(c)
			return
		}
		for _, b := range x.packets() {
			if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
				return
			}
		}
	}
}

func plain(name string) string {
	return strings.TrimSuffix(dns.CanonicalName(name), ".")
}
