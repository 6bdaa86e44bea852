package dnsprovider_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
)

func TestCheckNamesTheFieldAndTheCure(t *testing.T) {
	p := newWriter()
	var none *fakeWriter
	for _, tt := range []struct {
		s           *dnsprovider.Solver
		typ, names  string
		field, text string // empty: nothing is wrong
	}{
		{s: &dnsprovider.Solver{Provider: p}, typ: "dns-01"},
		{s: &dnsprovider.Solver{Provider: p}, typ: "dns-account-01", names: "*.example.com"},
		{s: &dnsprovider.Solver{Provider: p}, typ: "dns-persist-01"},
		{s: &dnsprovider.Solver{}, typ: "dns-persist-01", names: "example.com"},
		{s: &dnsprovider.Solver{}, typ: "dns-01", field: "Provider", text: "dns-01 needs a libdns provider"},
		{s: &dnsprovider.Solver{}, typ: "dns-account-01", field: "Provider", text: "libdns provider"},
		{s: &dnsprovider.Solver{Provider: none}, typ: "dns-01", field: "Provider", text: "it is nil"},
		{s: &dnsprovider.Solver{Provider: p}, typ: "http-01", field: "Provider", text: `does not solve "http-01"`},
		{s: &dnsprovider.Solver{Provider: p}, typ: "", field: "Provider", text: "it is for dns-01"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "example.org."}, typ: "dns-01"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "example.org"}, typ: "dns-01", names: "*.a.example.org"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "_acme-challenge.example.org"}, typ: "dns-01", names: "example.org"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "_validation-persist.example.org"}, typ: "dns-persist-01", names: "example.org"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "example.org"}, typ: "dns-01", names: "192.0.2.1"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "example.org"}, typ: "dns-01", names: "*.example.com", field: "Zone", text: `"example.org" is no suffix of "*.example.com"`},
		{s: &dnsprovider.Solver{Provider: p, Zone: "example.org"}, typ: "dns-01", names: "badexample.org", field: "Zone", text: "no suffix"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "a b"}, typ: "dns-01", field: "Zone", text: "space"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "192.0.2.1"}, typ: "dns-01", field: "Zone", text: "IP address"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "*.example.org"}, typ: "dns-01", field: "Zone", text: `"*."`},
		{s: &dnsprovider.Solver{Provider: p, Zone: "a.example", Target: "x.A.example."}, typ: "dns-01", names: "example.com"},
		{s: &dnsprovider.Solver{Provider: p, Zone: "a.example", Target: "b.example"}, typ: "dns-01", field: "Zone", text: `no suffix of Target, "b.example"`},
		{s: &dnsprovider.Solver{Provider: p, Target: "https://a.example"}, typ: "dns-01", field: "Target", text: "URL"},
		{s: &dnsprovider.Solver{Provider: p, Target: "*.a.example"}, typ: "dns-01", field: "Target", text: `"*."`},
		{s: &dnsprovider.Solver{Provider: p, Resolvers: []string{"1.1.1.1", "[::1]:53", "http://x"}}, typ: "dns-01", field: "Resolvers[2]", text: "http://x"},
		{s: &dnsprovider.Solver{Provider: p, Resolvers: []string{""}}, typ: "dns-01", field: "Resolvers[0]"},
		{s: &dnsprovider.Solver{Provider: p, TTL: -1}, typ: "dns-01", field: "TTL", text: "2m0s"},
		{s: &dnsprovider.Solver{Provider: p, TTL: 120}, typ: "dns-01", field: "TTL", text: "120*time.Second"},
		{s: &dnsprovider.Solver{Provider: p, Delay: -time.Second}, typ: "dns-01", field: "Delay", text: "or 0"},
		{s: &dnsprovider.Solver{Provider: p, Timeout: -1}, typ: "dns-01"},
	} {
		var names []string
		if tt.names != "" {
			names = []string{tt.names}
		}
		err := tt.s.Check(tt.typ, names)
		at := fmt.Sprintf("Zone %q, Target %q, %s %q", tt.s.Zone, tt.s.Target, tt.typ, names)
		if tt.field == "" {
			if err != nil {
				t.Errorf("%s: %v", at, err)
			}
			continue
		}
		var bad *certwright.ConfigError
		if !errors.As(err, &bad) || bad.Field != tt.field {
			t.Errorf("%s: %v, want one of field %s", at, err, tt.field)
			continue
		}
		wantError(t, err, tt.text)
	}
}

func TestPresentChecksAgain(t *testing.T) {
	w := newWriter("example.org")
	s, _ := newSolver(w, w)
	s.Zone = "example.org"
	wantError(t, s.Present(t.Context(), newChallenge("example.com", "A").now()), `"_acme-challenge.example.com" is not in Zone, "example.org"`)
	s.Zone, s.Provider = "", nil
	wantError(t, s.Present(t.Context(), newChallenge("example.com", "A").now()), "Provider")
	s.Provider = w
	for _, ch := range []certwright.Challenge{
		{Type: "dns-01", Name: "example.org", DNSValue: "A"},
		{Type: "dns-01", Name: "example.org", DNSName: "_acme-challenge.example.org"},
		{Type: "dns-persist-01", Name: "example.org", DNSName: "_validation-persist.example.org", DNSValue: "A=B"},
	} {
		wantError(t, s.Present(t.Context(), ch), `"example.org" has `)
	}
	want(t, "calls", w.made(""), nil)
}
