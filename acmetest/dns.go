package acmetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// dnsServer answers for every zone there is, over UDP and TCP on one port.
type dnsServer struct {
	addr    string
	records *records
	udp     *dns.Server
	tcp     *dns.Server
	done    []chan struct{} // closed when a server has ended
}

// startDNS starts a server on a port of 127.0.0.1.
func startDNS(addrs recordsByName) (*dnsServer, error) {
	listener, packets, err := listenBoth()
	if err != nil {
		return nil, err
	}
	s := &dnsServer{addr: listener.Addr().String(), records: newRecords(addrs)}
	s.tcp = &dns.Server{Listener: listener, Handler: s.handler("tcp")}
	s.udp = &dns.Server{PacketConn: packets, Handler: s.handler("udp")}
	for _, server := range []*dns.Server{s.tcp, s.udp} {
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = server.ActivateAndServe() // its listener is fine, so it ends with the shutdown
		}()
		<-started
		s.done = append(s.done, done)
	}
	return s, nil
}

// listenBoth listens on TCP and UDP on the same port of 127.0.0.1.
func listenBoth() (net.Listener, net.PacketConn, error) {
	const tries = 50
	var errs error
	for range tries {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, fmt.Errorf("listening for DNS on TCP: %w", err)
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return listener, packets, nil
		}
		errs = errors.Join(err, listener.Close())
	}
	return nil, nil, fmt.Errorf("listening for DNS on UDP: %w", errs)
}

// close stops both servers and waits for them.
func (s *dnsServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := errors.Join(s.tcp.ShutdownContext(ctx), s.udp.ShutdownContext(ctx))
	for _, done := range s.done {
		<-done
	}
	if err != nil {
		return fmt.Errorf("closing the DNS server: %w", err)
	}
	return nil
}

// handler answers the queries that come over one network.
func (s *dnsServer) handler(network string) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		_ = w.WriteMsg(s.reply(network, query)) // a client that has gone
	})
}

// reply returns the answer to a query that came over network.
func (s *dnsServer) reply(network string, query *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(query)
	m.Authoritative = true
	m.RecursionAvailable = true
	if len(query.Question) != 1 || query.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeRefused
		return m
	}
	question := query.Question[0]
	m.Answer, m.Ns, m.Rcode = s.records.lookup(question.Name, question.Qtype)
	s.records.log(Query{
		Name:             normalName(question.Name),
		Type:             dns.Type(question.Qtype).String(),
		Network:          network,
		RecursionDesired: query.RecursionDesired,
		Time:             time.Now(),
	})
	size := dns.MinMsgSize
	if opt := query.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	if network == "udp" {
		m.Truncate(size)
	}
	return m
}

// normalName returns name in lower case without a final dot.
func normalName(name string) string {
	if dns.IsFqdn(name) {
		name = strings.TrimSuffix(name, ".")
	}
	return strings.ToLower(name)
}
