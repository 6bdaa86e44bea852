package dnsprobe_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/fakedns"
)

const txtName = "_acme-challenge.example.com"

// zoneAt makes a world with servers of example.com at the hosts, and a resolver over
// them.
func zoneAt(t *testing.T, hosts ...string) (*world, []*fakedns.Server) {
	w := newWorld(t, hosts...)
	var servers []*fakedns.Server
	for _, h := range hosts {
		servers = append(servers, w.Server(h))
	}
	w.Serve("example.com", servers)
	w.resolver.Recurse(servers...)
	return w, servers
}

func look(t *testing.T, p *dnsprobe.Prober) []dnsprobe.Answer {
	t.Helper()
	answers, err := p.Look(t.Context(), "example.com", txtName)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func TestEachServerOfAZoneIsAskedForTXTWithoutRD(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2", "127.0.0.3")
	for _, s := range servers {
		s.Hook(func(x *fakedns.Exchange) {
			if x.RD {
				fakedns.Rcode(dns.RcodeRefused)(x)
			}
		})
	}
	servers[0].AddTXT(txtName, "foreign")
	servers[0].AddTXT(txtName, "ours")
	answers := look(t, w.prober())
	if len(answers) != 2 {
		t.Fatalf("got %+v", answers)
	}
	one, two := answers[0], answers[1]
	if one.Server != "ns1.example.com ("+servers[0].Addr()+")" || one.Err != nil || !slices.Equal(one.Values, []string{"foreign", "ours"}) {
		t.Errorf("the first: %+v", one)
	}
	if two.Server != "ns2.example.com ("+servers[1].Addr()+")" || two.Err != nil || len(two.Values) != 0 || two.Cached != 0 {
		t.Errorf("the second: %+v", two)
	}
	for _, q := range w.resolver.Queries() {
		if q.Type == dns.TypeTXT || q.Name == txtName {
			t.Errorf("the resolver was asked too, whose cache is not to know: %+v", q)
		}
	}
	for _, name := range []string{"", "a..b"} {
		if _, err := w.prober().Look(t.Context(), "example.com", name); err == nil {
			t.Errorf("TXT at %q was looked for", name)
		}
		if _, err := w.prober().Look(t.Context(), name, "example.com"); err == nil {
			t.Errorf("servers of %q were looked for", name)
		}
	}
}

func TestTheTextIsWhatTheWireHas(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	values := []string{
		"plain", "", `"quoted"`, `back\slash`, `\"both\"`, `\065`, "semi;colon", " space ", "tab\tand\nline",
		"\x00\x01\x7f\x80\xff", "ümlaut", strings.Repeat("x", 255), strings.Repeat("y", 256), strings.Repeat(`"\`, 400),
	}
	for _, v := range values {
		servers[0].AddTXT(txtName, v)
	}
	for what, p := range map[string]*dnsprobe.Prober{"its server": w.prober(), "a resolver": w.through("127.0.0.1")} {
		if a := look(t, p); a[0].Err != nil || !slices.Equal(a[0].Values, values) {
			t.Errorf("from %s: got %q, %v", what, a[0].Values, a[0].Err)
		}
	}
	servers[0].Set(txtName, dns.TypeTXT, txtName+` TXT "in " "three" " chunks"`)
	if a := look(t, w.prober()); !slices.Equal(a[0].Values, []string{"in three chunks"}) {
		t.Errorf("got %+v", a)
	}
}

func TestAServerThatGivesNoAnswerSaysWhy(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	for _, s := range servers {
		s.AddTXT(txtName, "v")
	}
	refer := func(x *fakedns.Exchange) {
		ns, _ := dns.NewRR("example.com. NS ns.elsewhere.example.")
		x.Reply.Authoritative, x.Reply.Answer, x.Reply.Ns = false, nil, []dns.RR{ns}
	}
	for _, c := range []struct {
		hook func(*fakedns.Exchange)
		err  string
	}{
		{fakedns.Rcode(dns.RcodeServerFailure), "SERVFAIL"},
		{fakedns.Rcode(dns.RcodeRefused), "REFUSED"},
		{fakedns.Rcode(dns.RcodeNotAuth), "NOTAUTH"},
		{fakedns.Rcode(dns.RcodeFormatError), "FORMERR"},
		{fakedns.Rcode(99), "RCODE 99"},
		{fakedns.Lame, "not authoritative"},
		{refer, "refers to other servers"},
	} {
		servers[1].Hook(c.hook)
		a := look(t, w.prober())
		if a[1].Err == nil || !strings.Contains(a[1].Err.Error(), c.err) || a[1].Values != nil {
			t.Errorf("want %s: got %+v", c.err, a[1])
		}
		if a[0].Err != nil || a[2].Err != nil || len(a[0].Values) != 1 || len(a[2].Values) != 1 {
			t.Errorf("%s of another: got %+v", c.err, a)
		}
	}
	w.silent(servers[1], "udp", "tcp")
	a := look(t, w.prober())
	if a[1].Err == nil || strings.Count(a[1].Err.Error(), "no answer within 1ms") != 2 || strings.Contains(a[1].Err.Error(), "\n") {
		t.Errorf("one dead of three: %v", a[1].Err)
	}
	if a[0].Err != nil || a[2].Err != nil {
		t.Errorf("one dead of three: %+v", a)
	}
	w.resolver.Hook(fakedns.Rcode(dns.RcodeServerFailure))
	if a := look(t, w.through("127.0.0.1")); a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "SERVFAIL") {
		t.Errorf("a resolver: %+v", a)
	}
}

func TestAServersAddressesAreTriedInTurn(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3", "::1")
	dead, alive, six := w.Server("127.0.0.2"), w.Server("127.0.0.3"), w.Server("::1")
	w.silent(dead, "udp", "tcp")
	origin := w.resolver
	for _, s := range []*fakedns.Server{alive, six} {
		s.Zone("example.com", "_acme-challenge TXT "+s.Host())
	}
	for _, c := range []struct{ records, want, value string }{
		{"ns A 127.0.0.2\nns A 127.0.0.3", alive.Addr(), "127.0.0.3"},
		{"ns A 127.0.0.2\nns AAAA ::1", six.Addr(), "::1"},
		{"ns AAAA ::1", six.Addr(), "::1"},
		{"ns AAAA ::1\nns A 127.0.0.3", alive.Addr(), "127.0.0.3"},
		{"ns CNAME other\nother A 127.0.0.3", alive.Addr(), "127.0.0.3"},
		{"ns A 127.0.0.99\nns AAAA ::1", six.Addr(), "::1"}, // nobody listens there
	} {
		origin.Zone("example.com", "@ NS ns.example.net.")
		origin.Zone("example.net", strings.Split(c.records, "\n")...)
		a := look(t, w.prober())
		if want := "ns.example.net (" + c.want + ")"; len(a) != 1 || a[0].Server != want || a[0].Err != nil || !slices.Equal(a[0].Values, []string{c.value}) {
			t.Errorf("%q: got %+v, want %s", c.records, a, want)
		}
	}
}

func TestOnlyIPv6(t *testing.T) {
	w := newWorld(t, "::1")
	six := w.Server("::1")
	w.Serve("example.com", []*fakedns.Server{six}, "_acme-challenge TXT v")
	p := w.prober("::1")
	if a := look(t, p); a[0].Server != "ns1.example.com ("+six.Addr()+")" || !slices.Equal(a[0].Values, []string{"v"}) {
		t.Errorf("got %+v", a)
	}
	if zone, err := p.Zone(t.Context(), txtName); zone != "example.com" || err != nil {
		t.Errorf("got %q, %v", zone, err)
	}
}

func TestServersWithoutAddresses(t *testing.T) {
	w := newWorld(t, "127.0.0.2")
	alive := w.Server("127.0.0.2")
	alive.Zone("example.com", "_acme-challenge TXT v")
	w.resolver.Zone("example.com", "@ NS none", "@ NS ns.dead.example.", "@ NS z.example.net.", "@ NS Z.Example.net.")
	w.resolver.Zone("example.net", "z A 127.0.0.2")
	a := look(t, w.prober())
	if len(a) != 3 {
		t.Fatalf("got %+v", a)
	}
	if a[0].Server != "none.example.com" || a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "it has none") {
		t.Errorf("no address: %+v", a[0])
	}
	if a[1].Server != "ns.dead.example" || a[1].Err == nil || !strings.Contains(a[1].Err.Error(), "REFUSED") {
		t.Errorf("its zone is dead: %+v", a[1])
	}
	if a[2].Err != nil || !slices.Equal(a[2].Values, []string{"v"}) {
		t.Errorf("in another zone: %+v", a[2])
	}
}

// The resolver cannot look up the server's name, but had its address with the NS.
func TestGlueIsUsedWhereThereIsNothingElse(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	alive := w.Server("127.0.0.2")
	alive.Zone("example.com", "_acme-challenge TXT v")
	w.resolver.Zone("example.com", "@ NS ns.example.com.")
	w.resolver.Hook(func(x *fakedns.Exchange) {
		if x.Type != dns.TypeNS {
			fakedns.Rcode(dns.RcodeServerFailure)(x)
			return
		}
		x.Reply.Answer = append(x.Reply.Answer, dns.Copy(x.Reply.Answer[0])) // twice the same
		x.Reply.Answer[1].(*dns.NS).Ns = "NS.Example.com."
		for _, s := range []string{"other.example.com. A 127.0.0.3", "NS.example.com. A 127.0.0.2"} {
			rr, _ := dns.NewRR(s)
			x.Reply.Extra = append(x.Reply.Extra, rr)
		}
	})
	a := look(t, w.prober())
	if len(a) != 1 || a[0].Err != nil || a[0].Server != "ns.example.com ("+alive.Addr()+")" || !slices.Equal(a[0].Values, []string{"v"}) {
		t.Errorf("got %+v", a)
	}
}

func TestWhomToAskIsNotKnown(t *testing.T) {
	w := newWorld(t)
	w.resolver.Zone("example.com")
	_, err := w.prober().Look(t.Context(), "example.com", txtName)
	if err == nil || !strings.Contains(err.Error(), "no NS records") || !strings.Contains(err.Error(), `"example.com"`) {
		t.Errorf("got %v", err)
	}
	w.resolver.Hook(fakedns.Rcode(dns.RcodeRefused))
	_, err = w.prober().Look(t.Context(), "example.com", txtName)
	if err == nil || !strings.Contains(err.Error(), "REFUSED") || !strings.Contains(err.Error(), w.resolver.Addr()) {
		t.Errorf("got %v", err)
	}
}

func TestAliasesOnTheWayToTXT(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	servers[0].Add(txtName+" CNAME a.t.example.com", "t.example.com DNAME u.example.com", "a.u.example.com TXT v", "other.example.com TXT no")
	for what, p := range map[string]*dnsprobe.Prober{"its server": w.prober(), "a resolver": w.through("127.0.0.1")} {
		if a := look(t, p); a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) {
			t.Errorf("within the zone, from %s: %+v", what, a)
		}
	}
	servers[0].Set(txtName, dns.TypeCNAME, txtName+" CNAME a.example.net")
	if a := look(t, w.prober()); a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "CNAME") || !strings.Contains(a[0].Err.Error(), "a.example.net") {
		t.Errorf("out of the zone: %+v", a)
	}
	servers[0].Zone("example.net", "b TXT x")
	if a := look(t, w.through("127.0.0.1")); a[0].Err != nil || a[0].Values != nil || a[0].Cached != time.Minute {
		t.Errorf("a resolver says that the target has none: %+v", a)
	}
}

// Records of other names, and who else may know, stand beside the answer.
func TestWhatStandsBesideTheAnswerDoesNotCount(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	rr := func(s string) dns.RR {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	servers[0].AddTXT(txtName, "v")
	beside := func(x *fakedns.Exchange) {
		x.Reply.Answer = append(x.Reply.Answer, rr("other.example.com. TXT no"))
		x.Reply.Ns = append(x.Reply.Ns, rr("example.com. NS ns1.example.com."))
	}
	servers[0].Hook(onWire(beside))
	w.resolver.Hook(beside)
	for what, p := range map[string]*dnsprobe.Prober{"its server": w.prober(), "a resolver": w.through("127.0.0.1")} {
		if a := look(t, p); a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) {
			t.Errorf("from %s: %+v", what, a)
		}
	}
	servers[0].Hook(onWire(func(x *fakedns.Exchange) {
		x.Reply.Answer, x.Reply.Ns = nil, []dns.RR{rr("example.com. NS ns1.example.com.")}
	}))
	if a := look(t, w.prober()); a[0].Err != nil || a[0].Values != nil {
		t.Errorf("nothing, with AA and NS: %+v", a)
	}
}

func TestAHundredLooksSideBySide(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2", "127.0.0.3")
	for i := range 100 {
		for _, s := range servers {
			s.AddTXT(fmt.Sprintf("n%d.example.com", i), fmt.Sprint(i))
		}
	}
	p := w.prober()
	p.Slots(7)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			a, err := p.Look(t.Context(), "example.com", fmt.Sprintf("n%d.example.com", i))
			if err != nil || len(a) != 2 {
				t.Errorf("got %+v, %v", a, err)
				return
			}
			for _, a := range a {
				if a.Err != nil || !slices.Equal(a.Values, []string{fmt.Sprint(i)}) {
					t.Errorf("%d: got %+v", i, a)
				}
			}
		})
	}
	wg.Wait()
}

func TestOnlySoManyQueriesAreUnderWay(t *testing.T) {
	w, _ := zoneAt(t, "127.0.0.2")
	p := w.through("127.0.0.1")
	p.Slots(3)
	var mu sync.Mutex
	under, most, full := 0, 0, make(chan struct{})
	w.resolver.Hook(func(*fakedns.Exchange) {
		mu.Lock()
		under++
		if most = max(most, under); under == 3 && most == 3 {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		<-full
		mu.Lock()
		under--
		mu.Unlock()
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { look(t, p) })
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if most != 3 {
		t.Errorf("%d were under way at once", most)
	}
}

func TestAZoneWithTooManyServersIsBounded(t *testing.T) {
	w := newWorld(t)
	lines := []string{"ns A 127.0.0.1"}
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("@ NS ns%d", i))
	}
	w.resolver.Zone("example.com", lines...)
	if a := look(t, w.prober()); len(a) != 32 {
		t.Errorf("%d servers were asked", len(a))
	}
}
