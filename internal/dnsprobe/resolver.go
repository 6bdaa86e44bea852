package dnsprobe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/internal/hostname"
)

const dnsPort = "53"

// ParseResolver reads a resolver as a person writes it: an IP address or a name,
// with or without a port from 1 to 65535, such as "1.1.1.1", "[::1]:53" and
// "dns.example.com:5353". It returns host:port; the port is 53 if none is given.
// An error says what to write instead.
func ParseResolver(s string) (hostport string, err error) {
	host, port, err := SplitServer(s)
	if err == nil {
		host, err = resolverHost(host)
	}
	if err != nil {
		return "", fmt.Errorf("reading resolver %q: %w", s, err)
	}
	return net.JoinHostPort(host, port), nil
}

// SplitServer takes apart how a person writes a server: host or host:port, an IPv6
// address with brackets or alone. The port is 53 if none is given. What the host is
// it does not say.
func SplitServer(s string) (host, port string, err error) {
	switch {
	case s == "":
		return "", "", errors.New("it is empty; write an address such as 1.1.1.1")
	case strings.Contains(s, "//"):
		return "", "", errors.New("it has a scheme; write only the host, or host:port, of a server that speaks DNS over UDP and TCP")
	}
	host, port = s, dnsPort
	if bare, ok := strings.CutSuffix(s, "]"); ok && strings.HasPrefix(s, "[") {
		host = bare[1:]
	} else if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", "", errors.New("it is not host:port; write an IPv6 address as [::1]:53")
		}
	}
	// Atoi takes a sign, which no port has.
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strings.Trim(port, "0123456789") != "" {
		return "", "", fmt.Errorf("its port is %q; write a number from 1 to 65535", port)
	} else {
		port = strconv.Itoa(n)
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.HasPrefix(s, "[") {
		return "", "", errors.New("what is in brackets is no IPv6 address")
	}
	return host, port, nil
}

// resolverHost brings the host of a resolver to the form in which it is dialled.
func resolverHost(host string) (string, error) {
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && strings.ContainsAny(addr.Zone(), "[]:%/ "):
		return "", errors.New("its zone is no interface's name")
	case err == nil:
		return addr.Unmap().String(), nil
	}
	if host, err = hostname.Normalize(host); err != nil {
		return "", err
	}
	switch {
	case hostname.IsWildcard(host):
		return "", errors.New("a server's name has no wildcard")
	case !strings.Contains(host, ".") && host != "localhost":
		return "", errors.New("it is a single label; write an IP address or the full name of the server")
	}
	return host, nil
}

// system returns the resolvers of /etc/resolv.conf, two public ones if there are
// none.
func system() []string {
	var found []string
	if conf, err := dns.ClientConfigFromFile("/etc/resolv.conf"); err == nil {
		for _, s := range conf.Servers {
			if hostport, err := ParseResolver(s); err == nil {
				found = append(found, hostport)
			}
		}
	}
	if len(found) == 0 {
		return []string{"8.8.8.8:53", "1.1.1.1:53"}
	}
	return found
}

// server is somebody to ask: a name for people, and the addresses as host:port.
type server struct {
	name  string // "" if it is only known by its address
	addrs []string
}

// called returns how people are told of the server at addr.
func (s server) called(addr string) string {
	switch {
	case s.name == "":
		return addr
	case addr == "":
		return s.name
	}
	return s.name + " (" + addr + ")"
}

// resolvers returns the configured resolvers, or else the system's, and for each
// why it has no address.
func (p *Prober) resolvers(ctx context.Context) ([]server, []error) {
	list := p.options.Resolvers
	if len(list) == 0 {
		list = p.options.System()
	}
	servers, errs := make([]server, len(list)), make([]error, len(list))
	var wg sync.WaitGroup
	for i, hostport := range list {
		wg.Go(func() { servers[i], errs[i] = p.resolver(ctx, hostport) })
	}
	wg.Wait()
	return servers, errs
}

// resolver finds the addresses of one resolver; a name is looked up as the system
// does it.
func (p *Prober) resolver(ctx context.Context, hostport string) (server, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return server{}, fmt.Errorf("reading resolver %q: %w", hostport, err)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return server{addrs: []string{hostport}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.bound("tcp", hostport, host))
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return server{name: hostport}, fmt.Errorf("finding the address of resolver %q: %w", hostport, err)
	}
	s := server{name: host}
	for _, ip := range ips {
		s.addrs = append(s.addrs, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return s, nil
}
