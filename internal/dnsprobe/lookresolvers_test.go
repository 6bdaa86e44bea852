package dnsprobe_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/fakedns"
)

func TestResolversThatAreSetAreAskedAloneAndWithRD(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	servers[0].AddTXT(txtName, "v")
	w.resolver.Hook(func(x *fakedns.Exchange) {
		if !x.RD {
			x.Reply.Rcode, x.Reply.Answer = dns.RcodeRefused, nil
		}
	})
	a := look(t, w.through("127.0.0.1"))
	if len(a) != 1 || a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) || a[0].Server != w.resolver.Addr() {
		t.Errorf("got %+v", a)
	}
	for _, q := range servers[0].Queries() {
		if q.Proto != "recursion" {
			t.Errorf("the zone's server was asked: %+v", q)
		}
	}
}

func TestAResolverMayHaveAName(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	servers[0].AddTXT(txtName, "v")
	// No query leaves the machine for no..host. Where localhost is ::1 too, nobody is there.
	a := look(t, w.proberWith(dnsprobe.Options{Resolvers: []string{"localhost:" + w.Port, "no..host:53"}}))
	if len(a) != 2 || a[0].Err != nil || a[0].Server != "localhost ("+w.resolver.Addr()+")" || !slices.Equal(a[0].Values, []string{"v"}) {
		t.Errorf("got %+v", a)
	}
	if a[1].Err == nil || a[1].Server != "no..host:53" || !strings.Contains(a[1].Err.Error(), "no..host:53") {
		t.Errorf("got %+v", a[1])
	}
	p := w.proberWith(dnsprobe.Options{Resolvers: []string{"no..host:53"}})
	if _, err := p.Zone(t.Context(), txtName); err == nil || !strings.Contains(err.Error(), "no..host") {
		t.Errorf("got %v", err)
	}
}

func TestANegativeAnswerFromACacheSaysHowLongItHolds(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	servers[0].Set("example.com", dns.TypeSOA, "example.com. 3600 SOA ns1 h 1 2 3 4 300")
	servers[0].Add("empty.example.com A 192.0.2.1")
	for _, name := range []string{"no.example.com", "empty.example.com"} {
		p := w.through("127.0.0.1")
		want := []time.Duration{300 * time.Second, 300 * time.Second, 200 * time.Second}
		for i, left := range want {
			if i == 2 {
				w.resolver.Advance(100 * time.Second)
			}
			a, err := p.Look(t.Context(), "example.com", name)
			if err != nil || a[0].Err != nil || a[0].Cached != left || len(a[0].Values) != 0 {
				t.Errorf("look %d at %s: got %+v, %v, want %v", i, name, a, err, left)
			}
			servers[0].AddTXT(name, "late")
		}
		w.resolver.Advance(200 * time.Second)
		if a, err := p.Look(t.Context(), "example.com", name); err != nil || a[0].Cached != 0 || !slices.Equal(a[0].Values, []string{"late"}) {
			t.Errorf("after it ended at %s: got %+v, %v", name, a, err)
		}
	}
}

func TestWhatIsNoTimeToKeepANegativeAnswer(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	for what, hook := range map[string]func(*fakedns.Exchange){
		"authoritative": func(x *fakedns.Exchange) { x.Reply.Authoritative = true },
		"no SOA":        func(x *fakedns.Exchange) { x.Reply.Ns = nil },
		"a negative TTL": func(x *fakedns.Exchange) {
			x.Reply.Ns[0].Header().Ttl = 1 << 31
		},
	} {
		w.resolver.Hook(hook)
		if a := look(t, w.through("127.0.0.1")); a[0].Err != nil || a[0].Cached != 0 || len(a[0].Values) != 0 {
			t.Errorf("%s: got %+v", what, a)
		}
	}
	w.resolver.Hook(nil)
	servers[0].Hook(nil)
	if a := look(t, w.prober()); a[0].Cached != 0 || a[0].Err != nil {
		t.Errorf("from the zone's own server: got %+v", a)
	}
}
