package dnsprovider_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/fakedns"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// publish has servers show what a provider has in their zones.
func publish(w *fakeWriter, servers ...*fakedns.Server) {
	var mu sync.Mutex
	names := map[string]bool{}
	w.changed = func(zone string, records []libdns.TXT) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range servers {
			for name := range names {
				if strings.HasSuffix("."+name, "."+zone) {
					s.Set(name, dns.TypeTXT)
				}
			}
			for _, r := range records {
				name := libdns.AbsoluteName(r.Name, zone)
				names[name] = true
				s.AddTXT(name, r.Text)
			}
		}
	}
}

// network is a resolver, and two servers of example.com, whose records w has.
func network(t *testing.T, w *fakeWriter, lines ...string) (n *fakedns.Net, resolver, ns1, ns2 *fakedns.Server) {
	t.Helper()
	n = fakedns.New(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	resolver, ns1, ns2 = n.Server("127.0.0.1"), n.Server("127.0.0.2"), n.Server("127.0.0.3")
	n.Serve("example.com", []*fakedns.Server{ns1, ns2}, lines...)
	resolver.Recurse(ns1, ns2)
	publish(w, ns1, ns2)
	return n, resolver, ns1, ns2
}

// probe has s look things up in a fake network.
func probe(s *dnsprovider.Solver, n *fakedns.Net, resolver *fakedns.Server) {
	if len(s.Resolvers) == 0 { // they have their ports
		s.Probe(dnsprobe.New(dnsprobe.Options{Port: n.Port, System: func() []string { return []string{resolver.Addr()} }}))
	}
}

// A name and its wildcard, with a secondary server that is late (D1, D7).
func TestOverRealServers(t *testing.T) {
	w := newWriter("example.com")
	n, resolver, ns1, ns2 := network(t, w)
	ns1.AddTXT("_acme-challenge.example.com", "foreign")
	ns2.AddTXT("_acme-challenge.example.com", "foreign")
	w.put("example.com", "_acme-challenge", "foreign")
	publish(w, ns1)
	s := &dnsprovider.Solver{Provider: &fakeGetter{fakeWriter: w}}
	probe(s, n, resolver)
	a, b := newChallenge("example.com", "A"), newChallenge("example.com", "B")
	mustPresent(t, s, a, b)
	waits := make(chan error)
	for _, c := range []*challenge{a, b} {
		go func() { waits <- s.Wait(t.Context(), c.now()) }()
	}
	if err := ns2.Await(t.Context(), 2, "_acme-challenge.example.com", dns.TypeTXT); err != nil {
		t.Fatal(err)
	}
	ns2.AddTXT("_acme-challenge.example.com", "A")
	ns2.AddTXT("_acme-challenge.example.com", "B")
	for range 2 {
		if err := <-waits; err != nil {
			t.Error(err)
		}
	}
	mustCleanUp(t, s, a, b)
	want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
	for _, server := range []*fakedns.Server{resolver, ns1, ns2} {
		for _, q := range server.Queries() {
			if q.Proto != "recursion" && q.RD != (server == resolver) {
				t.Errorf("RD %v at %s for %s", q.RD, server.Addr(), q.Name)
			}
		}
	}
	for _, c := range []*challenge{a, b} {
		if said := strings.Join(c.progress(), "\n"); !strings.Contains(said, "ns2.example.com (127.0.0.3:"+n.Port+") shows \"foreign\"") || !strings.Contains(said, "1 of 2 servers show it") {
			t.Errorf("progress %q", said)
		}
	}
}

// A resolver that was asked too early says for as long as the zone's SOA record has
// it that there is nothing (D9). The zone's own servers know.
func TestNegativeCaching(t *testing.T) {
	for _, only := range []bool{false, true} {
		t.Run(fmt.Sprint("Resolvers: ", only), func(t *testing.T) {
			w := newWriter("example.com")
			n, resolver, _, _ := network(t, w, "@ 300 SOA ns1 mail 1 2 3 4 300", "www A 192.0.2.1")
			s := &dnsprovider.Solver{Provider: w, Timeout: 100 * time.Millisecond}
			if only {
				s.Resolvers = []string{resolver.Addr()}
			}
			probe(s, n, resolver)
			if _, err := dnsprobe.New(dnsprobe.Options{Resolvers: []string{resolver.Addr()}}).Look(t.Context(), "", "_acme-challenge.www.example.com"); err != nil {
				t.Fatal(err)
			}
			c := newChallenge("www.example.com", "A")
			mustPresent(t, s, c)
			if err := s.Wait(t.Context(), c.now()); err != nil {
				t.Error(err)
			}
			if log := c.log(); only != strings.Contains(log, "negative caching), for another 5m0s") {
				t.Errorf("log %q", log)
			}
			if only {
				resolver.Advance(301 * time.Second)
				c := newChallenge("www.example.com", "A")
				if err := s.Wait(t.Context(), c.now()); err != nil || c.log() != "" {
					t.Errorf("error %v, log %q", err, c.log())
				}
			}
			mustCleanUp(t, s, c)
		})
	}
}

// SOA queries that are answered by SERVFAIL, and a CNAME into a zone that is dead, do
// not keep a record from being written (D10).
func TestZonesThatAreHardToFind(t *testing.T) {
	for what, tt := range map[string]struct {
		lines []string
		hook  func(*fakedns.Exchange)
	}{
		"SERVFAIL below":   {hook: fakedns.Rcode(dns.RcodeServerFailure, "_acme-challenge.www.example.com", "www.example.com")},
		"REFUSED below":    {hook: fakedns.Rcode(dns.RcodeRefused, "_acme-challenge.www.example.com", "www.example.com")},
		"stale CNAME":      {lines: []string{"_acme-challenge.www CNAME x.dead.example."}},
		"wildcard CNAME":   {lines: []string{"* CNAME lb.vendor.net."}},
		"CNAMEs in a loop": {lines: []string{"_acme-challenge.www CNAME a", "a CNAME _acme-challenge.www"}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWriter("example.com")
			n, resolver, ns1, _ := network(t, w, tt.lines...)
			n.Serve("vendor.net", []*fakedns.Server{ns1}, "lb A 192.0.2.1")
			resolver.Hook(tt.hook)
			s := &dnsprovider.Solver{Provider: w}
			probe(s, n, resolver)
			c := newChallenge("www.example.com", "A")
			mustPresent(t, s, c)
			want(t, "records", w.records("example.com"), []string{"_acme-challenge.www A"})
			if len(tt.lines) == 0 || what == "wildcard CNAME" { // nothing hides the record
				if err := s.Wait(t.Context(), c.now()); err != nil || len(c.progress()) > 0 {
					t.Errorf("error %v, progress %q", err, c.progress())
				}
			}
			mustCleanUp(t, s, c)
		})
	}
}

// An inside view has a name as a zone of its own; the provider knows better, and so
// does who sets Zone or Resolvers (D13).
func TestSplitViews(t *testing.T) {
	for what, set := range map[string]func(s *dnsprovider.Solver, w *fakeWriter, outside *fakedns.Server){
		"Zone":      func(s *dnsprovider.Solver, _ *fakeWriter, _ *fakedns.Server) { s.Zone = "example.com" },
		"Resolvers": func(s *dnsprovider.Solver, _ *fakeWriter, o *fakedns.Server) { s.Resolvers = []string{o.Addr()} },
		"list": func(s *dnsprovider.Solver, w *fakeWriter, _ *fakedns.Server) {
			s.Provider = &fakeLister{fakeWriter: w, list: []string{"example.com"}}
		},
		"getter": func(s *dnsprovider.Solver, w *fakeWriter, _ *fakedns.Server) { s.Provider = &fakeGetter{fakeWriter: w} },
		"trying": func(*dnsprovider.Solver, *fakeWriter, *fakedns.Server) {},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWriter("example.com")
			n := fakedns.New(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
			inside, outside, ns1 := n.Server("127.0.0.1"), n.Server("127.0.0.2"), n.Server("127.0.0.3")
			n.Serve("example.com", []*fakedns.Server{ns1}, "@ 0 SOA ns1 mail 1 2 3 4 0")
			n.Serve("corp.example.com", []*fakedns.Server{inside})
			inside.Recurse(ns1)
			outside.Recurse(ns1)
			publish(w, ns1)
			s := &dnsprovider.Solver{Provider: w}
			set(s, w, outside)
			probe(s, n, inside)
			c := newChallenge("corp.example.com", "A")
			mustPresent(t, s, c)
			want(t, "records", w.records("example.com"), []string{"_acme-challenge.corp A"})
			if err := s.Wait(t.Context(), c.now()); err != nil {
				t.Error(err)
			}
			if what == "Zone" || what == "list" {
				want(t, "appends", w.made("append"), []string{"append example.com. _acme-challenge.corp=A"})
			}
			mustCleanUp(t, s, c)
		})
	}
}
