package dnsprobe_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/fakedns"
)

const (
	data    = -1 // NOERROR and a SOA record
	nothing = -2 // NOERROR without
	late    = -3 // no answer
)

var outcomes = []int{
	data, nothing, late, dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeRefused,
	dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeNotAuth, dns.RcodeBadVers, 99,
}

// answering has a resolver answer like that at one name.
func answering(w *world, s *fakedns.Server, name string, outcome int) {
	w.late = func(_, addr, n string) bool { return outcome == late && n == name && addr == s.Addr() }
	s.Hook(func(x *fakedns.Exchange) {
		if x.Name != name {
			return
		}
		switch outcome {
		case late:
			x.Reply = nil
		case data:
			soa, _ := dns.NewRR(dns.Fqdn(name) + " SOA a. b. 1 2 3 4 5")
			x.Reply.Rcode, x.Reply.Answer = 0, []dns.RR{soa}
		case nothing:
			x.Reply.Rcode, x.Reply.Answer = 0, nil
		default:
			fakedns.Rcode(outcome)(x)
		}
	})
}

// Each rcode at each label, with one resolver and with a second that is well.
func TestTheZoneIsFoundWhateverIsAnsweredOnTheWay(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	second, origin := w.Server("127.0.0.2"), w.Server("127.0.0.3")
	origin.Zone("com")
	origin.Zone("example.com", "a.b TXT x")
	w.resolver.Recurse(origin)
	second.Recurse(origin)
	name := "_acme-challenge.a.b.example.com"
	for at := name; at != ""; _, at, _ = strings.Cut(at, ".") {
		for _, outcome := range outcomes {
			answering(w, w.resolver, at, outcome)
			want, wantOfTwo, wantErr := "example.com", "example.com", false
			switch {
			case outcome == data && at != "com":
				want, wantOfTwo = at, at
			case at != "example.com":
			case outcome == nothing || outcome == dns.RcodeNameError:
				want, wantOfTwo = "com", "com"
			default:
				want, wantErr = "", true
			}
			t.Run(fmt.Sprintf("%s %d", at, outcome), func(t *testing.T) {
				got, err := w.prober().Zone(t.Context(), name)
				if got != want || (err != nil) != wantErr {
					t.Errorf("one resolver: got %q, %v, want %q", got, err, want)
				}
				if wantErr && !strings.Contains(err.Error(), "SOA of example.com: ") {
					t.Errorf("the error does not name the label: %v", err)
				}
				if got, err := w.prober("127.0.0.1", "127.0.0.2").Zone(t.Context(), name); got != wantOfTwo || err != nil {
					t.Errorf("two resolvers: got %q, %v, want %q", got, err, wantOfTwo)
				}
			})
		}
	}
}

func TestTheZoneIsTheOneThatHasTheName(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	parent, child := w.Server("127.0.0.2"), w.Server("127.0.0.3")
	parent.Zone("com")
	w.Serve("example.com", []*fakedns.Server{parent}, "*.wild CNAME x.example.net.", "alias CNAME example.net.", "deep.er.sub TXT x",
		"dead NS ns.dead", "ns.dead A 127.0.0.9")
	parent.Zone("example.net")
	w.Serve("_acme-challenge.own.example.com", []*fakedns.Server{child})
	w.Delegate(parent, "_acme-challenge.own.example.com", child)
	w.resolver.Recurse(parent, child)
	for _, c := range []struct{ name, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.com.", "example.com"},
		{"sub.example.com", "example.com"},
		{"_acme-challenge.deep.er.sub.example.com", "example.com"},
		{"not.there.example.com", "example.com"},
		{"_acme-challenge.own.example.com", "_acme-challenge.own.example.com"},
		{"x._acme-challenge.own.example.com", "_acme-challenge.own.example.com"},
		{"own.example.com", "example.com"},
		{"a.wild.example.com", "example.com"}, // its CNAME is not followed
		{"alias.example.com", "example.com"},  // to an apex: the SOA that comes with it is another's
		{"x.dead.example.com", "example.com"}, // delegated to servers that are dead
		{"com", "com"},
		{"other.com", "com"},
	} {
		if got, err := w.prober().Zone(t.Context(), c.name); got != c.want || err != nil {
			t.Errorf("the zone of %s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"", ".", "a..example.com", "a b.example.com", strings.Repeat("a", 64) + ".com"} {
		if _, err := w.prober().Zone(t.Context(), name); err == nil || !strings.Contains(err.Error(), "no DNS name") {
			t.Errorf("the zone of %q: %v", name, err)
		}
	}
	w.resolver.Hook(fakedns.Rcode(dns.RcodeNameError))
	if _, err := w.prober().Zone(t.Context(), "a.example.org"); err == nil || !strings.Contains(err.Error(), `"a.example.org"`) || !strings.Contains(err.Error(), "SOA") {
		t.Errorf("a name in no zone: %v", err)
	}
}

// A resolver inside may say that a sub-domain is its own zone; another does not.
func TestTwoViewsOfAZone(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	inside, outside := w.Server("127.0.0.1"), w.Server("127.0.0.2")
	origin := w.Server("127.0.0.3")
	origin.Zone("example.com", "host.corp A 192.0.2.1")
	outside.Recurse(origin)
	inside.Recurse(origin)
	inside.Zone("corp.example.com", "host A 10.0.0.1")
	for host, want := range map[string]string{"127.0.0.1": "corp.example.com", "127.0.0.2": "example.com"} {
		if got, err := w.prober(host).Zone(t.Context(), "host.corp.example.com"); got != want || err != nil {
			t.Errorf("through %s: got %q, %v, want %q", host, got, err, want)
		}
	}
}

// chain returns zone lines with n CNAMEs from c0 to the last.
func chain(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("c%d CNAME c%d", i, i+1))
	}
	return lines
}

func TestCNAMEsAreFollowed(t *testing.T) {
	w := newWorld(t, "127.0.0.2")
	origin := w.Server("127.0.0.2")
	origin.Zone("example.com", append(chain(16),
		"plain TXT x", "one CNAME Plain", "two CNAME one", "away CNAME x.Example.NET.", "*.wild CNAME t.example.net.", "d DNAME e.example.net.")...)
	origin.Zone("example.net", "x CNAME y", `odd CNAME a\.b\200.example.net.`)
	w.resolver.Recurse(origin)
	var sixteen []string
	for i := range 17 {
		sixteen = append(sixteen, fmt.Sprintf("c%d.example.com", i))
	}
	for _, want := range [][]string{
		{"plain.example.com"},
		{"no.example.com"},
		{"example.com"},
		{"one.example.com", "plain.example.com"},
		{"two.example.com", "one.example.com", "plain.example.com"},
		{"away.example.com", "x.example.net", "y.example.net"},
		{"_acme-challenge.wild.example.com", "t.example.net"},
		{"a.b.d.example.com", "a.b.e.example.net"},
		{"d.example.com"},
		{"odd.example.net", `a\.b\200.example.net`},
		sixteen,
	} {
		if got, err := w.prober().Follow(t.Context(), strings.ToUpper(want[0])+"."); err != nil || !slices.Equal(got, want) {
			t.Errorf("from %s:\n got %q, %v\nwant %q", want[0], got, err, want)
		}
	}
	for _, q := range w.resolver.Queries() {
		if !q.RD {
			t.Fatalf("a resolver was asked without RD: %+v", q)
		}
	}
	// A DNAME whose CNAME the server left out.
	w.resolver.Hook(func(x *fakedns.Exchange) {
		x.Reply.Answer = slices.DeleteFunc(x.Reply.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeCNAME })
	})
	if got, err := w.prober().Follow(t.Context(), "a.d.example.com"); err != nil || !slices.Equal(got, []string{"a.d.example.com", "a.e.example.net"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhereCNAMEsCannotBeFollowedTheErrorHasThePath(t *testing.T) {
	w := newWorld(t, "127.0.0.2")
	origin := w.Server("127.0.0.2")
	origin.Zone("example.com", append(chain(17), "self CNAME self", "a CNAME b", "b CNAME a", "far CNAME a",
		"_acme-challenge CNAME x.dead.example.", "d DNAME "+strings.Repeat(strings.Repeat("y", 49)+".", 4)+"example.")...)
	w.resolver.Recurse(origin)
	for _, c := range []struct{ name, path, cause string }{
		{"self.example.com", "self.example.com → self.example.com", "circle"},
		{"a.example.com", "a.example.com → b.example.com → a.example.com", "circle"},
		{"far.example.com", "far.example.com → a.example.com → b.example.com → a.example.com", "circle"},
		{"c0.example.com", "c15.example.com → c16.example.com → c17.example.com", "more than 16"},
		{"_acme-challenge.example.com", "_acme-challenge.example.com → x.dead.example", "SERVFAIL"},
		{strings.Repeat("x", 60) + ".d.example.com", "x.d.example.com", "SERVFAIL"},
		{"", "", "no DNS name"},
	} {
		path, err := w.prober().Follow(t.Context(), c.name)
		if err == nil || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.cause) {
			t.Errorf("from %s: got %q, %v\nwant %q and %q", c.name, path, err, c.path, c.cause)
		}
	}
	w.resolver.Hook(func(x *fakedns.Exchange) {
		dname, _ := dns.NewRR("d.example.com. DNAME " + strings.Repeat(strings.Repeat("y", 49)+".", 4))
		x.Reply.Rcode, x.Reply.Answer = 0, []dns.RR{dname}
	})
	if path, err := w.prober().Follow(t.Context(), strings.Repeat("x", 60)+".d.example.com"); err == nil || !strings.Contains(err.Error(), "no DNS name") {
		t.Errorf("a DNAME to a name that is too long: got %q, %v", path, err)
	}
}

func TestADeadResolverCostsItsTimeOnce(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	second, origin := w.Server("127.0.0.2"), w.Server("127.0.0.3")
	origin.Zone("example.com", chain(10)...)
	second.Recurse(origin)
	w.silent(w.resolver, "udp", "tcp")
	tries := 0
	before := w.late
	w.late = func(network, addr, name string) bool {
		if addr == w.resolver.Addr() {
			tries++
		}
		return before(network, addr, name)
	}
	p := w.prober("127.0.0.1", "127.0.0.2")
	if path, err := p.Follow(t.Context(), "c0.example.com"); err != nil || len(path) != 11 {
		t.Fatalf("got %q, %v", path, err)
	}
	if tries != 2 {
		t.Errorf("the dead resolver was asked %d times, not once each over UDP and TCP", tries)
	}
	if zone, err := p.Zone(t.Context(), "x.a.b.example.com"); err != nil || zone != "example.com" {
		t.Fatalf("got %q, %v", zone, err)
	}
	if tries != 4 {
		t.Errorf("the dead resolver was asked %d times in a second call", tries-2)
	}
}

func TestWhatIsNoResolverCountsAsNoAnswer(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	second, origin := w.Server("127.0.0.2"), w.Server("127.0.0.3")
	w.Serve("example.com", []*fakedns.Server{origin})
	w.resolver.Zone("com") // refers to others below it
	w.Delegate(w.resolver, "example.com", origin)
	second.Recurse(origin)
	if zone, err := w.prober("127.0.0.1", "127.0.0.2").Zone(t.Context(), "a.example.com"); zone != "example.com" || err != nil {
		t.Errorf("got %q, %v", zone, err)
	}
	if zone, err := w.prober("127.0.0.1").Zone(t.Context(), "a.example.com"); err == nil || !strings.Contains(err.Error(), "no resolver") {
		t.Errorf("got %q, %v", zone, err)
	}
}

func TestWithoutAResolverNothingIsFound(t *testing.T) {
	p := dnsprobe.New(dnsprobe.Options{System: func() []string { return nil }})
	_, zoneErr := p.Zone(t.Context(), "example.com")
	_, followErr := p.Follow(t.Context(), "example.com")
	_, lookErr := p.Look(t.Context(), "example.com", "example.com")
	for _, err := range []error{zoneErr, followErr, lookErr} {
		if err == nil || !strings.Contains(err.Error(), "no resolver to ask") || !strings.Contains(err.Error(), "example.com") {
			t.Errorf("got %v", err)
		}
	}
}

func TestAQueryThatWaitsForOthersEndsWithTheContext(t *testing.T) {
	w := newWorld(t)
	p := w.prober()
	p.Slots(0)
	cause := errors.New("called off")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := p.Zone(ctx, "a.example.com"); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if q := w.resolver.Queries(); len(q) != 0 {
		t.Errorf("asked: %+v", q)
	}
}

func TestEverythingEndsWithTheContext(t *testing.T) {
	w := newWorld(t)
	cause := errors.New("called off")
	for _, network := range []string{"udp", "tcp"} {
		for what, call := range map[string]func(context.Context, *dnsprobe.Prober) error{
			"Zone": func(ctx context.Context, p *dnsprobe.Prober) error {
				_, err := p.Zone(ctx, "a.example.com")
				return err
			},
			"Follow": func(ctx context.Context, p *dnsprobe.Prober) error {
				_, err := p.Follow(ctx, "a.example.com")
				return err
			},
			"Look": func(ctx context.Context, p *dnsprobe.Prober) error {
				_, err := p.Look(ctx, "example.com", "a.example.com")
				return err
			},
			"Look at resolvers": func(ctx context.Context, _ *dnsprobe.Prober) error {
				answers, _ := w.through("127.0.0.1").Look(ctx, "example.com", "a.example.com")
				return answers[0].Err
			},
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			w.resolver.Hook(func(x *fakedns.Exchange) {
				if x.Proto == network {
					cancel(cause)
				}
				x.Reply.Truncated = x.Proto == "udp"
				if x.Proto == network {
					x.Reply = nil
				}
			})
			if err := call(ctx, w.prober()); !errors.Is(err, cause) {
				t.Errorf("%s over %s: got %v", what, network, err)
			}
		}
	}
}
