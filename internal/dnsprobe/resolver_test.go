package dnsprobe_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/dnsprobe"
)

var resolvers = []struct{ in, want, err string }{
	{"1.1.1.1", "1.1.1.1:53", ""},
	{"1.1.1.1:5353", "1.1.1.1:5353", ""},
	{"1.1.1.1:053", "1.1.1.1:53", ""},
	{"::1", "[::1]:53", ""},
	{"[::1]", "[::1]:53", ""},
	{"[::1]:5353", "[::1]:5353", ""},
	{"[2606:4700:4700:0::1111]:65535", "[2606:4700:4700::1111]:65535", ""},
	{"::ffff:1.1.1.1", "1.1.1.1:53", ""},
	{"fe80::1%eth0", "[fe80::1%eth0]:53", ""},
	{"dns.example.com", "dns.example.com:53", ""},
	{"DNS.Example.com.:1", "dns.example.com:1", ""},
	{"dns.bücher.example:53", "dns.xn--bcher-kva.example:53", ""},
	{"localhost:8053", "localhost:8053", ""},
	{"", "", "empty"},
	{":53", "", "empty"},
	{"dns", "", "single label"},
	{"dns:53", "", "single label"},
	{"1.1.1.1:domain", "", "port"},
	{"1.1.1.1:", "", "port"},
	{"1.1.1.1:0", "", "port"},
	{"1.1.1.1:65536", "", "port"},
	{"1.1.1.1:-1", "", "port"},
	{"1.1.1.1:+53", "", "port"},
	{"1.1.1.1: 53", "", "port"},
	{"1.1.1.1:53:53", "", "host:port"},
	{"udp://1.1.1.1", "", "scheme"},
	{"https://dns.example.com/dns-query", "", "scheme"},
	{"tls:1.1.1.1:853", "", "host:port"},
	{"1.1.1", "", "four numbers"},
	{"999.1.1.1", "", "four numbers"},
	{"dns.example.com/x", "", "path"},
	{"*.example.com", "", "wildcard"},
	{"a b.example.com", "", "space"},
	{"1.1.1.1 8.8.8.8", "", "space"},
	{"1.1.1.1,8.8.8.8", "", "character"},
	{"[::1", "", "host:port"},
	{"[]", "", "brackets"},
	{"[]:53", "", "brackets"},
	{"[dns.example.com]:53", "", "brackets"},
	{"fe80::1%a]", "", "zone"},
	{"::1]:53", "", "host:port"},
}

func TestParseResolver(t *testing.T) {
	for _, c := range resolvers {
		got, err := dnsprobe.ParseResolver(c.in)
		if got != c.want || (err == nil) != (c.err == "") {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "reading resolver ")) {
			t.Errorf("%q: the error %q does not say %q", c.in, err, c.err)
		}
	}
}

func FuzzParseResolver(f *testing.F) {
	for _, c := range resolvers {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := dnsprobe.ParseResolver(s)
		if err != nil {
			return
		}
		if host, port, err := net.SplitHostPort(got); err != nil || host == "" || port == "" {
			t.Errorf("%q gave %q", s, got)
		}
		if again, err := dnsprobe.ParseResolver(got); err != nil || again != got {
			t.Errorf("%q gave %q, and that gave %q, %v", s, got, again, err)
		}
	})
}

func TestTheSystemsResolversAreAddresses(t *testing.T) {
	found := dnsprobe.System()
	if len(found) == 0 {
		t.Error("there are none")
	}
	for _, s := range found {
		if got, err := dnsprobe.ParseResolver(s); err != nil || got != s {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestAQueryHasTwoSecondsOverUDPAndThreeOverTCP(t *testing.T) {
	if udp, tcp := dnsprobe.DefaultBound("udp", "", ""), dnsprobe.DefaultBound("tcp", "", ""); udp != 2*time.Second || tcp != 3*time.Second {
		t.Errorf("got %v and %v", udp, tcp)
	}
}
