package dnsprovider_test

import (
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/fakedns"
	"github.com/miekg/dns"
)

// A Manager, a Solver and servers: delegations by NS and by CNAME, and a server that
// lacks the record for a while, which Status names.
func TestStatusNamesTheServerThatLacksTheRecord(t *testing.T) {
	w := newWriter("example.com")
	n, resolver, ns1, ns2 := network(t, w)
	publish(w, ns1)
	s := &dnsprovider.Solver{Provider: w}
	probe(s, n, resolver)
	m := newManaged(t, w)
	mgr := m.start(m.config(s))
	if err := mgr.ManageAsync([]string{"*.example.com"}); err != nil {
		t.Fatal(err)
	}
	if err := ns2.Await(t.Context(), 2, "_acme-challenge.example.com", dns.TypeTXT); err != nil {
		t.Fatal(err)
	}
	if doing := mgr.Status()[0].Doing; !strings.Contains(doing, "ns2.example.com (127.0.0.3:"+n.Port+") shows no TXT record; 1 of 2 servers show it") {
		t.Errorf("Doing %q", doing)
	}
	for _, r := range w.records("example.com") {
		ns2.AddTXT("_acme-challenge.example.com", strings.TrimPrefix(r, "_acme-challenge "))
	}
	if err := mgr.ManageSync(t.Context(), []string{"*.example.com"}); err != nil {
		t.Error(err)
	}
	want(t, "records", w.records("example.com"), []string{})
}

func TestDelegationsThroughAManager(t *testing.T) {
	for what, tt := range map[string]struct {
		zone   string
		line   string
		where  string
		cnames map[string]string
	}{
		"CNAME":         {"acme.example.net", "_acme-challenge.www CNAME www.acme.example.net.", "acme.example.net", map[string]string{"_acme-challenge.www.example.com": "www.acme.example.net"}},
		"two CNAMEs":    {"acme.example.net", "_acme-challenge.www CNAME a\na CNAME www.acme.example.net.", "acme.example.net", map[string]string{"_acme-challenge.www.example.com": "www.acme.example.net"}},
		"CNAME to apex": {"acme.example.net", "_acme-challenge.www CNAME ACME.example.net.", "acme.example.net", map[string]string{"_acme-challenge.www.example.com": "acme.example.net"}},
		"NS":            {"_acme-challenge.www.example.com", "_acme-challenge.www NS ns1._acme-challenge.www", "_acme-challenge.www.example.com", nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWriter(tt.zone)
			n := fakedns.New(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
			resolver, ns1, ns2 := n.Server("127.0.0.1"), n.Server("127.0.0.2"), n.Server("127.0.0.3")
			n.Serve("example.com", []*fakedns.Server{ns1}, strings.Split(tt.line, "\n")...)
			n.Serve(tt.zone, []*fakedns.Server{ns2})
			resolver.Recurse(ns1, ns2)
			publish(w, ns2)
			m := newManaged(t, w)
			m.cnames = tt.cnames
			for _, p := range []dnsprovider.Provider{w, &fakeGetter{fakeWriter: w}, &fakeLister{fakeWriter: w, list: []string{tt.zone + "."}}} {
				s := &dnsprovider.Solver{Provider: p}
				probe(s, n, resolver)
				conf := m.config(s)
				conf.Issuers[0].(*certwright.ACME).Timeout = 20 * time.Second
				mgr := m.start(conf)
				if err := mgr.ManageSync(t.Context(), []string{"www.example.com"}); err != nil {
					t.Error(err)
				}
				if err := mgr.Renew(t.Context(), "www.example.com"); err != nil {
					t.Error(err)
				}
				m.stop(mgr)
				want(t, "records", w.records(tt.where), []string{})
			}
			if n := len(w.made("append " + tt.zone)); n < 3 || n != len(w.made("append")) {
				t.Errorf("appends %q", w.made("append"))
			}
		})
	}
}
