package fakedns_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/fakedns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(t *testing.T, s *fakedns.Server, proto, name, qtype string, rd bool) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	m.RecursionDesired = rd
	c := dns.Client{Net: proto, Timeout: time.Minute}
	r, _, err := c.ExchangeContext(t.Context(), m, s.Addr())
	if err != nil {
		t.Fatalf("asking %s for %s %s: %v", s.Addr(), qtype, name, err)
	}
	return r
}

// text is an answer as one line: code, AA, and each section's records without
// their TTL.
func text(r *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[r.Rcode])
	if r.Authoritative {
		b.WriteString(" aa")
	}
	for _, section := range [][]dns.RR{r.Answer, r.Ns, r.Extra} {
		b.WriteString(" |")
		for _, rr := range section {
			f := strings.Fields(rr.String())
			b.WriteString(" " + strings.Join(append(f[:1:1], f[3:]...), ",") + ";")
		}
	}
	return strings.ReplaceAll(b.String(), "ns1.example.com.,hostmaster.example.com.,1,3600,600,86400,60", "…")
}

func TestAnAuthoritativeServerAnswersAsRFC1034Says(t *testing.T) {
	s := fakedns.New(t, "127.0.0.1").Server("127.0.0.1")
	s.Zone("example.com", "@ NS ns1", "ns1 A 127.0.0.1", "ns1 AAAA ::1", "a.b TXT one", "c CNAME a.b", "out CNAME x.example.net.",
		"*.w TXT wild", "*.wc CNAME a.b", "d DNAME b", "l DNAME "+strings.Repeat(strings.Repeat("y", 49)+".", 4), "sub NS ns.sub", "ns.sub A 127.0.0.2", "tosub CNAME x.sub")
	const soa = "example.com.,SOA,…;"
	const referral = " sub.example.com.,NS,ns.sub.example.com.; | ns.sub.example.com.,A,127.0.0.2;"
	for _, c := range []struct{ name, qtype, want string }{
		{"example.com", "SOA", "NOERROR aa | " + soa + " | |"},
		{"example.com", "NS", "NOERROR aa | example.com.,NS,ns1.example.com.; | |"},
		{"A.b.Example.com", "TXT", `NOERROR aa | a.b.example.com.,TXT,"one"; | |`},
		{"a.b.example.com", "A", "NOERROR aa | | " + soa + " |"},
		{"b.example.com", "TXT", "NOERROR aa | | " + soa + " |"},
		{"no.example.com", "TXT", "NXDOMAIN aa | | " + soa + " |"},
		{"c.example.com", "TXT", `NOERROR aa | c.example.com.,CNAME,a.b.example.com.; a.b.example.com.,TXT,"one"; | |`},
		{"c.example.com", "CNAME", "NOERROR aa | c.example.com.,CNAME,a.b.example.com.; | |"},
		{"out.example.com", "TXT", "NOERROR aa | out.example.com.,CNAME,x.example.net.; | |"},
		{"x.y.w.example.com", "TXT", `NOERROR aa | x.y.w.example.com.,TXT,"wild"; | |`},
		{"w.example.com", "TXT", "NOERROR aa | | " + soa + " |"},
		{"x.wc.example.com", "TXT", `NOERROR aa | x.wc.example.com.,CNAME,a.b.example.com.; a.b.example.com.,TXT,"one"; | |`},
		{"a.d.example.com", "TXT", `NOERROR aa | d.example.com.,DNAME,b.example.com.; a.d.example.com.,CNAME,a.b.example.com.; a.b.example.com.,TXT,"one"; | |`},
		{strings.Repeat("x", 60) + ".l.example.com", "A", "YXDOMAIN aa | l.example.com.,DNAME," + strings.Repeat(strings.Repeat("y", 49)+".", 4) + "; | |"},
		{"sub.example.com", "SOA", "NOERROR | |" + referral},
		{"x.sub.example.com", "TXT", "NOERROR | |" + referral},
		{"tosub.example.com", "TXT", "NOERROR aa | tosub.example.com.,CNAME,x.sub.example.com.; |" + referral},
		{"example.net", "TXT", "REFUSED | | |"},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			if got := text(ask(t, s, proto, c.name, c.qtype, false)); got != c.want {
				t.Errorf("%s %s over %s:\n got %s\nwant %s", c.qtype, c.name, proto, got, c.want)
			}
		}
	}
}

func TestRecordsChangeWhileItRuns(t *testing.T) {
	n := fakedns.New(t, "127.0.0.1", "127.0.0.2")
	one, two := n.Server("127.0.0.1"), n.Server("127.0.0.2")
	n.Serve("example.com", []*fakedns.Server{one, two})
	value := "a \"quoted\" \\ back\x00\xff;" + strings.Repeat("x", 300)
	one.AddTXT("t.example.com", value)
	one.AddTXT("t.example.com", value)
	one.Add("t.example.com TXT other")
	r := ask(t, one, "tcp", "t.example.com", "TXT", false)
	if len(r.Answer) != 2 || len(r.Answer[0].(*dns.TXT).Txt) != 2 {
		t.Fatalf("got %v", r.Answer)
	}
	if r := ask(t, one, "udp", "t.example.com", "TXT", false); r.Truncated || len(r.Answer) != 2 {
		t.Fatalf("cut, or not both values:\n%v", r)
	}
	if got := text(ask(t, two, "udp", "t.example.com", "TXT", false)); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Fatalf("the other server has it too: %s", got)
	}
	one.RemoveTXT("t.example.com", value)
	one.Set("u.example.com", dns.TypeA, "u.example.com A 127.0.0.3")
	one.Set("u.example.com", dns.TypeA, "u.example.com A 127.0.0.4")
	for name, want := range map[string]string{
		"TXT t.example.com": `NOERROR aa | t.example.com.,TXT,"other"; | |`,
		"A u.example.com":   "NOERROR aa | u.example.com.,A,127.0.0.4; | |",
	} {
		qtype, name, _ := strings.Cut(name, " ")
		if got := text(ask(t, one, "udp", name, qtype, false)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	one.AddTXT("big.example.com", strings.Repeat("x", 1000))
	if r := ask(t, one, "udp", "big.example.com", "TXT", false); !r.Truncated {
		t.Error("more than 512 bytes over UDP without EDNS are not cut")
	}
}

func TestAResolverGoesToTheLongestZoneAndKeepsNegativeAnswers(t *testing.T) {
	n := fakedns.New(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	parent, child, resolver := n.Server("127.0.0.1"), n.Server("127.0.0.2"), n.Server("127.0.0.3")
	n.Serve("example.com", []*fakedns.Server{parent}, "c CNAME t.sub")
	n.Serve("sub.example.com", []*fakedns.Server{child})
	n.Delegate(parent, "sub.example.com", child)
	resolver.Recurse(parent, child)

	if got := text(ask(t, resolver, "udp", "c.example.com", "TXT", false)); got != "REFUSED | | |" {
		t.Fatalf("without RD: %s", got)
	}
	for range 2 {
		if r := ask(t, resolver, "udp", "c.example.com", "TXT", true); r.Rcode != dns.RcodeNameError || r.Authoritative || len(r.Ns) != 1 || r.Ns[0].Header().Ttl != 60 {
			t.Fatalf("got %v", r)
		}
		child.AddTXT("t.sub.example.com", "v")
	}
	resolver.Advance(59 * time.Second)
	if r := ask(t, resolver, "udp", "t.sub.example.com", "TXT", true); r.Rcode != dns.RcodeNameError || r.Ns[0].Header().Ttl != 1 {
		t.Fatalf("got %v", r)
	}
	resolver.Advance(time.Second)
	want := `NOERROR | c.example.com.,CNAME,t.sub.example.com.; t.sub.example.com.,TXT,"v"; | |`
	if got := text(ask(t, resolver, "tcp", "c.example.com", "TXT", true)); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if got := text(ask(t, resolver, "udp", "example.net", "TXT", true)); got != "SERVFAIL | | |" {
		t.Fatalf("a name that nobody serves: %s", got)
	}
	child.Hook(fakedns.Rcode(dns.RcodeRefused))
	if got := text(ask(t, resolver, "udp", "t.sub.example.com", "TXT", true)); got != "SERVFAIL | | |" {
		t.Fatalf("a zone whose servers refuse: %s", got)
	}
	child.Hook(nil)
	child.DropZone("Sub.example.com.")
	if got := text(ask(t, resolver, "udp", "t.sub.example.com", "TXT", true)); got != "SERVFAIL | | |" {
		t.Fatalf("a zone whose servers have it no more: %s", got)
	}
}

func TestAHookAnswersAnything(t *testing.T) {
	s := fakedns.New(t, "::1").Server("::1")
	s.Zone("example.com")
	s.Hook(func(x *fakedns.Exchange) {
		switch x.Proto {
		case "udp":
			x.Reply.Truncated = true
		case "tcp":
			x.Stream = func(w io.Writer) { _, _ = w.Write([]byte{0, 3, 1}) }
		}
	})
	if r := ask(t, s, "udp", "example.com", "SOA", false); !r.Truncated {
		t.Error("not truncated")
	}
	c := dns.Client{Net: "tcp"}
	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeSOA)
	if _, _, err := c.ExchangeContext(t.Context(), m, s.Addr()); err == nil {
		t.Error("a broken message was read")
	}
	s.Hook(func(x *fakedns.Exchange) { x.Raw = []byte("garbage") })
	c.Net = "udp"
	if _, _, err := c.ExchangeContext(t.Context(), m, s.Addr()); err == nil {
		t.Error("garbage was read")
	}
	s.Hook(func(x *fakedns.Exchange) { x.First, x.Reply = [][]byte{[]byte("garbage")}, nil })
	if _, _, err := c.ExchangeContext(t.Context(), m, s.Addr()); err == nil {
		t.Error("garbage was read")
	}
	s.Hook(fakedns.Rcode(dns.RcodeServerFailure, "x.example.com"))
	if got := text(ask(t, s, "udp", "x.example.com", "SOA", false)); got != "SERVFAIL | | |" {
		t.Error(got)
	}
	s.Hook(fakedns.Silence("x.example.com"))
	if got := text(ask(t, s, "udp", "example.com", "A", true)); !strings.HasPrefix(got, "NOERROR aa") {
		t.Error(got)
	}
	if err := s.Await(t.Context(), 6, "", dns.TypeNone); err != nil {
		t.Fatal(err)
	}
	if got := s.Queries()[5]; got != (fakedns.Query{Name: "example.com", Type: dns.TypeA, RD: true, Proto: "udp"}) {
		t.Errorf("noted %+v", got)
	}
}

func TestWaitingForAQueryEndsWithIt(t *testing.T) {
	s := fakedns.New(t, "127.0.0.1").Server("127.0.0.1")
	done := make(chan error)
	go func() { done <- s.Await(t.Context(), 2, "a.example.com", dns.TypeTXT) }()
	ask(t, s, "udp", "a.example.com", "TXT", false)
	ask(t, s, "udp", "a.example.com", "A", false)
	ask(t, s, "udp", "a.example.com", "TXT", false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Await(ctx, 9, "", dns.TypeNone) }()
	cancel()
	if err := <-done; err == nil {
		t.Fatal("nine queries were seen")
	}
}
