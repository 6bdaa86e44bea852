package acmetest_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"

	"github.com/certwright/certwright/acmetest"
)

// ask sends one question to a CA's DNS server.
func ask(t *testing.T, ca *acmetest.CA, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	reply, _, err := (&dns.Client{Net: network}).Exchange(query, ca.DNSAddr())
	if err != nil {
		t.Fatalf("asking for %s %s over %s: %v", name, dns.Type(qtype), network, err)
	}
	return reply
}

// data returns the records of a section without their headers.
func data(section []dns.RR) []string {
	var list []string
	for _, rr := range section {
		list = append(list, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return list
}

func TestDNSAnswers(t *testing.T) {
	loopback, other, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	ca := acmetest.StartWith(t, acmetest.Options{Records: map[string][]netip.Addr{
		"Given.example.com.": {other, six},
		"mapped.example.com": {netip.AddrFrom16(other.As16())},
	}})
	ca.SetRecord("none.example.com")
	ca.SetRecord("*.wild.example.com", other)
	ca.SetRecord("own.wild.example.com", loopback)
	ca.SetTXT("txt.example.com", "one", "two")
	ca.SetTXT("long.example.com", strings.Repeat("x", 300))
	ca.SetCNAME("alias.example.com", "given.example.com")
	ca.SetCNAME("*.example.net", "lb.vendor.example")
	ca.SetTXT("_acme-challenge.own.example.net", "mine")
	ca.AddZone("deep.zone.example.org")

	soa := func(zone string) string {
		return "ns." + zone + ". hostmaster." + zone + ". 1 3600 600 86400 0"
	}
	tests := []struct {
		name      string
		qtype     uint16
		answer    []string
		authority []string
	}{
		{"any.example.com", dns.TypeA, []string{"127.0.0.1"}, nil},
		{"any.example.com", dns.TypeAAAA, nil, []string{soa("example.com")}},
		{"_acme-challenge.any.example.com", dns.TypeA, nil, []string{soa("example.com")}},
		{"GIVEN.example.com", dns.TypeA, []string{"192.0.2.7"}, nil},
		{"given.example.com", dns.TypeAAAA, []string{"2001:db8::7"}, nil},
		{"mapped.example.com", dns.TypeA, []string{"192.0.2.7"}, nil},
		{"none.example.com", dns.TypeA, nil, []string{soa("example.com")}},
		{"a.b.wild.example.com", dns.TypeA, []string{"192.0.2.7"}, nil},
		{"own.wild.example.com", dns.TypeA, []string{"127.0.0.1"}, nil},
		{"txt.example.com", dns.TypeTXT, []string{`"one"`, `"two"`}, nil},
		{"long.example.com", dns.TypeTXT, []string{`"` + strings.Repeat("x", 255) + `" "` + strings.Repeat("x", 45) + `"`}, nil},
		{"alias.example.com", dns.TypeA, []string{"given.example.com.", "192.0.2.7"}, nil},
		{"alias.example.com", dns.TypeCNAME, []string{"given.example.com."}, nil},
		{"_acme-challenge.www.example.net", dns.TypeTXT, []string{"lb.vendor.example."}, []string{soa("vendor.example")}},
		{"_acme-challenge.own.example.net", dns.TypeTXT, []string{`"mine"`}, nil},
		{"example.com", dns.TypeSOA, []string{soa("example.com")}, nil},
		{"www.example.com", dns.TypeSOA, nil, []string{soa("example.com")}},
		{"deep.zone.example.org", dns.TypeSOA, []string{soa("deep.zone.example.org")}, nil},
		{"_acme-challenge.deep.zone.example.org", dns.TypeSOA, nil, []string{soa("deep.zone.example.org")}},
		{"zone.example.org", dns.TypeSOA, nil, []string{soa("example.org")}},
		{"example.com", dns.TypeNS, []string{"ns.example.com."}, nil},
		{"www.example.com", dns.TypeNS, nil, []string{soa("example.com")}},
		{"localhost", dns.TypeSOA, []string{soa("localhost")}, nil},
		{"example.com", dns.TypeCAA, nil, []string{soa("example.com")}},
	}
	for _, tt := range tests {
		for _, network := range []string{"udp", "tcp"} {
			reply := ask(t, ca, network, tt.name, tt.qtype)
			answer, authority := data(reply.Answer), data(reply.Ns)
			if reply.Rcode != dns.RcodeSuccess || !slices.Equal(answer, tt.answer) || !slices.Equal(authority, tt.authority) {
				t.Errorf("%s %s: rcode %d, answer %q, authority %q; want %q and %q",
					tt.name, dns.Type(tt.qtype), reply.Rcode, answer, authority, tt.answer, tt.authority)
			}
		}
	}
}

func TestDNSTextRecords(t *testing.T) {
	ca := acmetest.Start(t)
	const name = "_acme-challenge.example.com"
	steps := []struct {
		do   func()
		want []string
	}{
		{func() { ca.AddTXT(name, "a") }, []string{"a"}},
		{func() { ca.AddTXT(strings.ToUpper(name)+".", "b") }, []string{"a", "b"}},
		{func() { ca.AddTXT(name, "a") }, []string{"a", "b"}},
		{func() { ca.DeleteTXT(name, "c") }, []string{"a", "b"}},
		{func() { ca.DeleteTXT(name, "a") }, []string{"b"}},
		{func() { ca.SetTXT(name, "d", "e") }, []string{"d", "e"}},
		{func() { ca.SetTXT(name) }, nil},
	}
	for i, step := range steps {
		step.do()
		if got := ca.TXT(name); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

func TestDNSRotation(t *testing.T) {
	ca := acmetest.Start(t)
	a, b, c := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
	ca.Rotate("lb.example.com", a, b, c)
	for _, first := range []netip.Addr{a, b, c, a} {
		got := data(ask(t, ca, "tcp", "lb.example.com", dns.TypeA).Answer)
		if len(got) != 3 || got[0] != first.String() {
			t.Errorf("answer %q, want one that starts with %v", got, first)
		}
		ask(t, ca, "tcp", "lb.example.com", dns.TypeAAAA) // must not move the others on
	}
}

// TestValidatorFollowsRotation has a name at two addresses of which only one
// answers the challenge: of the three validations some meet the other.
func TestValidatorFollowsRotation(t *testing.T) {
	if probe, err := net.Listen("tcp", "127.0.0.2:0"); err != nil {
		t.Skip("this host has no 127.0.0.2")
	} else if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	ca := acmetest.Start(t)
	ca.Rotate("lb.example.com", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"))
	u := newUser(t, ca, acme.ChallengeTypeHTTP01)
	_, err := u.order(t, nil, "lb.example.com")
	var problem acme.Problem
	if !errors.As(err, &problem) || problem.Type != acme.ProblemTypeConnection {
		t.Errorf("with one node deaf: %v, want a connection problem", err)
	}
	u.solver.listen(t, "127.0.0.2")
	verify(t, u.issue(t, "lb.example.com"), ca.Roots(), "lb.example.com")
}

func TestD10_RcodeInjection(t *testing.T) {
	ca := acmetest.Start(t)
	u := newUser(t, ca, acme.ChallengeTypeDNS01)
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeNameError, dns.RcodeRefused} {
		ca.SetRcode("_acme-challenge.Example.com.", rcode)
		if got := ask(t, ca, "udp", "_acme-challenge.example.com", dns.TypeTXT); got.Rcode != rcode || len(got.Answer) != 0 {
			t.Errorf("rcode %d, answer %v; want rcode %d", got.Rcode, got.Answer, rcode)
		}
		if got := ask(t, ca, "udp", "example.com", dns.TypeSOA); got.Rcode != dns.RcodeSuccess {
			t.Errorf("the parent has rcode %d too", got.Rcode)
		}
	}
	_, err := u.order(t, nil, "example.com")
	var problem acme.Problem
	if !errors.As(err, &problem) || problem.Type != acme.ProblemTypeUnauthorized {
		t.Errorf("issuing: %v, want unauthorized", err)
	}
	ca.SetRcode("_acme-challenge.example.com", dns.RcodeSuccess)
	verify(t, u.issue(t, "example.com"), ca.Roots(), "example.com")
}

func TestDNSTruncation(t *testing.T) {
	ca := acmetest.Start(t)
	values := []string{strings.Repeat("a", 200), strings.Repeat("b", 200), strings.Repeat("c", 200)}
	ca.SetTXT("big.example.com", values...)
	if reply := ask(t, ca, "udp", "big.example.com", dns.TypeTXT); !reply.Truncated || len(reply.Answer) == 3 {
		t.Errorf("over UDP: truncated %v with %d answers", reply.Truncated, len(reply.Answer))
	}
	if reply := ask(t, ca, "tcp", "big.example.com", dns.TypeTXT); reply.Truncated || len(reply.Answer) != 3 {
		t.Errorf("over TCP: truncated %v with %d answers", reply.Truncated, len(reply.Answer))
	}
	query := new(dns.Msg).SetQuestion("big.example.com.", dns.TypeTXT).SetEdns0(4096, false)
	reply, _, err := (&dns.Client{UDPSize: 4096}).Exchange(query, ca.DNSAddr())
	if err != nil || reply.Truncated || len(reply.Answer) != 3 || reply.IsEdns0() == nil {
		t.Errorf("over UDP with EDNS: %v, %v", reply, err)
	}
}

func TestDNSQueriesAndResolver(t *testing.T) {
	ca := acmetest.Start(t)
	ca.SetTXT("txt.example.com", "value")
	got, err := ca.Resolver().LookupTXT(context.Background(), "TXT.example.com.")
	if err != nil || !slices.Equal(got, []string{"value"}) {
		t.Errorf("resolving: %q, %v", got, err)
	}
	ask(t, ca, "tcp", "Other.example.com", dns.TypeCAA)
	seen := func(name, typ, network string) bool {
		return slices.ContainsFunc(ca.Queries(), func(q acmetest.Query) bool {
			return q.Name == name && q.Type == typ && q.Network == network && q.RecursionDesired && !q.Time.IsZero()
		})
	}
	if !seen("txt.example.com", "TXT", "udp") || !seen("other.example.com", "CAA", "tcp") {
		t.Errorf("queries are %+v", ca.Queries())
	}
}
