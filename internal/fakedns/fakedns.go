// Package fakedns has DNS servers for tests: authoritative ones, resolvers, and
// such as do what a test tells them. They listen on loopback only, share one port,
// and end with the test.
//
// Names are given and told with or without a final dot, and told in lower case
// without one. All methods are safe for concurrent use.
package fakedns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// Net is a set of servers at different addresses and one port.
type Net struct {
	Port    string
	servers []*Server
	wg      sync.WaitGroup
}

// New starts a server at each of the hosts, such as "127.0.0.1" and "::1", over
// UDP and TCP. They refuse all queries until they have data. The test is skipped
// where the machine lacks such an address.
func New(t testing.TB, hosts ...string) *Net {
	t.Helper()
	n := new(Net)
	for tries := 1; ; tries++ {
		err := n.listen(t.Context(), hosts)
		if err == nil {
			break
		}
		n.close()
		if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Skipf("this machine lacks a loopback address: %v", err)
		}
		if tries == 100 {
			t.Fatalf("finding a port that is free at %q: %v", hosts, err)
		}
	}
	for _, s := range n.servers {
		n.wg.Go(s.serveUDP)
		n.wg.Go(s.serveTCP)
	}
	t.Cleanup(n.close)
	return n
}

// listen opens all sockets with the port that the first of them got.
func (n *Net) listen(ctx context.Context, hosts []string) error {
	var lc net.ListenConfig
	n.servers, n.Port = nil, "0"
	for _, host := range hosts {
		s := newServer(n, host)
		n.servers = append(n.servers, s)
		var err error
		if s.udp, err = lc.ListenPacket(ctx, "udp", net.JoinHostPort(host, n.Port)); err != nil {
			return err
		}
		n.Port = strconv.Itoa(s.udp.LocalAddr().(*net.UDPAddr).Port)
		if s.tcp, err = lc.Listen(ctx, "tcp", net.JoinHostPort(host, n.Port)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Net) close() {
	for _, s := range n.servers {
		s.close()
	}
	n.wg.Wait()
}

// Server returns the server at host, which New was given.
func (n *Net) Server(host string) *Server {
	for _, s := range n.servers {
		if s.host == host {
			return s
		}
	}
	panic("fakedns: no server at " + host)
}

// Serve makes the servers authoritative for zone: each has a SOA record and the NS
// records ns1, ns2, … of the zone with their addresses, and the zone file's lines.
func (n *Net) Serve(zone string, servers []*Server, lines ...string) {
	for i, s := range servers {
		lines = append(lines, nsLines(i+1, s.host)...)
	}
	for _, s := range servers {
		s.Zone(zone, lines...)
	}
}

// Delegate has parent, which is authoritative for a zone above zone, delegate zone
// to ns1, ns2, … of the zone at the servers' addresses.
func (n *Net) Delegate(parent *Server, zone string, servers ...*Server) {
	var lines []string
	for i, s := range servers {
		lines = append(lines, nsLines(i+1, s.host)...)
	}
	parent.add(dns.Fqdn(zone), lines)
}

func nsLines(i int, host string) []string {
	ns := "ns" + strconv.Itoa(i)
	kind := " A "
	if netip.MustParseAddr(host).Is6() {
		kind = " AAAA "
	}
	return []string{"@ NS " + ns, ns + kind + host}
}
