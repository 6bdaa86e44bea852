package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/dnsprovider"
	"github.com/libdns/libdns"
)

// fakeAll can read and list.
type fakeAll struct {
	fakeGetter
	lister *fakeLister
}

func (a *fakeAll) ListZones(ctx context.Context) ([]libdns.Zone, error) {
	return a.lister.ListZones(ctx)
}

// Where a record is written, whatever the provider can say.
func TestWhereARecordIsWritten(t *testing.T) {
	const name = "_acme-challenge.www.example.com"
	for what, tt := range map[string]struct {
		own    []string          // zones of the provider
		others []string          // zones of others
		cnames map[string]string // "" is one that cannot be followed
		set    func(*dnsprovider.Solver)
		want   string   // zone and relative name
		never  string   // what is never called
		list   []string // not nil: the lister's first page
		only   string   // "get", "list", "none": only such providers
	}{
		"in the zone by SOA":                        {own: []string{"example.com"}, want: "example.com. _acme-challenge.www"},
		"in the deeper zone":                        {own: []string{"example.com", "www.example.com"}, want: "www.example.com. _acme-challenge", list: []string{"example.com", "www.example.com"}},
		"in the deeper zone, the list being cut":    {own: []string{"example.com", "www.example.com"}, want: "www.example.com. _acme-challenge", only: "get"},
		"in the parent of somebody else's zone":     {own: []string{"example.com"}, others: []string{"www.example.com"}, want: "example.com. _acme-challenge.www"},
		"at the zone's own name":                    {own: []string{"example.com", name}, want: name + ". @", list: []string{name + ".", "example.com."}},
		"not at a name that is delegated to others": {own: []string{"example.com"}, others: []string{name}, want: "example.com. _acme-challenge.www"},
		"at the end of the CNAMEs": {
			own: []string{"example.com", "acme.example"}, cnames: map[string]string{name: "hop.example.net", "hop.example.net": "x.acme.example"},
			want: "acme.example. x", list: []string{"acme.example", "example.com"},
		},
		"not where a wildcard CNAME leads": {
			own: []string{"example.com"}, others: []string{"vendor.net"}, cnames: map[string]string{name: "lb.vendor.net"},
			want: "example.com. _acme-challenge.www",
		},
		"not where a stale CNAME leads": {
			own: []string{"example.com"}, cnames: map[string]string{name: "x.dead.example"},
			want: "example.com. _acme-challenge.www",
		},
		"at the name when nobody can say where the CNAME leads": {
			own: []string{"example.com"}, cnames: map[string]string{name: ""},
			want: "example.com. _acme-challenge.www",
		},
		"in the zone that is set": {
			own: []string{"example.com", "www.example.com"}, set: func(s *dnsprovider.Solver) { s.Zone = "Example.com." },
			want: "example.com. _acme-challenge.www", never: "list",
		},
		"at the target that is set": {
			own: []string{"acme.example", "example.com"}, set: func(s *dnsprovider.Solver) { s.Target = "Y.acme.example." },
			want: "acme.example. y",
		},
		"at the target that is a zone": {
			own: []string{"acme.example", "example.com"}, set: func(s *dnsprovider.Solver) { s.Target = "acme.example" },
			want: "acme.example. @",
		},
		"at the target in the zone that is set": {
			own: []string{"acme.example"}, set: func(s *dnsprovider.Solver) { s.Target, s.Zone = "y.z.acme.example", "acme.example" },
			want: "acme.example. y.z",
		},
		"at the original name if the CNAME leads out of the zone that is set": {
			own: []string{"acme.example", "example.com"}, cnames: map[string]string{name: "x.acme.example"}, set: func(s *dnsprovider.Solver) { s.Zone = "example.com" },
			want: "example.com. _acme-challenge.www",
		},
	} {
		for _, kind := range []string{"none", "get", "refused", "list", "list fails", "both"} {
			if tt.only != "" && tt.only != kind {
				continue
			}
			t.Run(what+", provider: "+kind, func(t *testing.T) {
				w := newWriter(tt.own...)
				lister := &fakeLister{fakeWriter: w, list: tt.list}
				if tt.list == nil {
					lister.list = []string{"example.com.", "unrelated.example"}
				}
				getter := &fakeGetter{fakeWriter: w}
				var p dnsprovider.Provider = w
				switch kind {
				case "get":
					p = getter
				case "refused":
					getter.refuses = true
					p = getter
				case "list fails":
					lister.fail = errors.New("403")
					p = lister
				case "list":
					p = lister
				case "both":
					p = &fakeAll{*getter, lister}
				}
				s, d := newSolver(w, p)
				d.cnames, d.zones = tt.cnames, tt.others
				if tt.set != nil {
					tt.set(s)
				}
				c := newChallenge("www.example.com", "A")
				mustPresent(t, s, c)
				zone, rel, _ := strings.Cut(tt.want, " ")
				calls := w.made("append")
				if len(calls) == 0 || calls[len(calls)-1] != fmt.Sprintf("append %s %s=A", zone, rel) {
					t.Errorf("calls %q, want the last to be in zone %s at %s", calls, zone, rel)
				}
				if tt.never != "" {
					want(t, "calls", w.made(tt.never), nil)
				}
				if err := s.Wait(t.Context(), c.now()); err != nil {
					t.Error(err)
				}
				d.cnames, d.zones, s.Zone, s.Target = nil, nil, "", "" // another configuration
				mustCleanUp(t, s, c)
				if n := len(w.made("delete")); n != 1 {
					t.Errorf("%d deletes: %q", n, w.made("delete"))
				}
				want(t, "records", w.records(strings.TrimSuffix(zone, ".")), []string{})
			})
		}
	}
}

// Zones of others are not written to if the provider can read its own.
func TestOthersZonesAreLeftAlone(t *testing.T) {
	const name = "_acme-challenge.example.com"
	for _, cname := range []string{"", "lb.vendor.net"} {
		w := newWriter("example.com")
		s, d := newSolver(w, &fakeGetter{fakeWriter: w})
		d.zones = []string{"vendor.net"}
		if cname == "" {
			d.zones = []string{name}
		} else {
			d.cnames[name] = cname
		}
		mustPresent(t, s, newChallenge("example.com", "A"))
		want(t, "appends", w.made("append"), []string{"append example.com. _acme-challenge=A"})
	}
}

// All that was tried is told together.
func TestNoZoneCanBeWritten(t *testing.T) {
	w := newWriter()
	s, d := newSolver(w, w)
	d.zones = []string{"a.example.com", "example.com", "vendor.net"}
	d.cnames["_acme-challenge.a.example.com"] = "lb.vendor.net"
	err := s.Present(t.Context(), newChallenge("a.example.com", "A").now())
	wantError(t, err,
		`TXT "lb" in zone "vendor.net"`, `for "_acme-challenge.a.example.com"`,
		`TXT "_acme-challenge" in zone "a.example.com" with dnsprovider_test: no zone "a.example.com."`,
		`TXT "_acme-challenge.a" in zone "example.com" with dnsprovider_test: no zone "example.com."`)
	d.zones = nil
	d.cnames["_acme-challenge.a.example.com"] = "lb.dead.example"
	wantError(t, s.Present(t.Context(), newChallenge("a.example.com", "B").now()), "SERVFAIL", "lb.dead.example", `finding the zone of "_acme-challenge.a.example.com"`)
}

// A list of zones is asked for once a minute, whoever needs it, and one that fails or
// hangs costs a warning.
func TestTheListOfZonesIsOnlyAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		l := &fakeLister{fakeWriter: w, list: []string{"example.com", "..", ""}}
		s, d := newSolver(w, l)
		d.zones = []string{"never"}
		done := make(chan error)
		for i := range 50 {
			go func() { done <- s.Present(t.Context(), newChallenge(fmt.Sprintf("n%d.example.com", i), "A").now()) }()
		}
		for range 50 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		want(t, "lists", w.made("list"), []string{"list"})
		time.Sleep(61 * time.Second)
		release := make(chan struct{})
		w.before = func(_ context.Context, call string) error {
			if call == "list" {
				<-release
			}
			return nil
		}
		c := newChallenge("late.example.com", "A")
		start := time.Now()
		mustPresent(t, s, c)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("a list that hangs cost %v", took)
		}
		if !strings.Contains(c.log(), "listing the zones of dnsprovider_test: no answer within 10s") {
			t.Errorf("log %q", c.log())
		}
		start = time.Now()
		mustPresent(t, s, newChallenge("later.example.com", "A"))
		time.Sleep(61 * time.Second)
		mustPresent(t, s, newChallenge("last.example.com", "A"))
		if took := time.Since(start); took > 62*time.Second {
			t.Errorf("a list that still hangs cost %v", took)
		}
		if n := len(w.made("list")); n != 2 {
			t.Errorf("%d lists", n)
		}
		close(release)
	})
}
