package dnsprovider

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libdns/libdns"
)

type ownRecord struct {
	libdns.TXT
	ID int
}

// What providers return in place of a plain TXT record.
func TestRecordsOfProviders(t *testing.T) {
	var none *libdns.TXT
	for _, tt := range []struct {
		rec   libdns.Record
		name  fqdn
		value string
		back  libdns.Record // what it is deleted by
	}{
		{rec: libdns.TXT{Name: "x", TTL: 60, Text: "v", ProviderData: 7}, name: "x.example.com", value: "v", back: libdns.TXT{Name: "x", TTL: 60, Text: "v", ProviderData: 7}},
		{rec: &libdns.TXT{Name: "X.example.com.", Text: "v", ProviderData: 7}, name: "x.example.com", value: "v", back: libdns.TXT{Name: "x", Text: "v", ProviderData: 7}},
		{rec: libdns.RR{Name: "x.example.com", Type: "txt", Data: `"a" "b"`}, name: "x.example.com", value: "ab", back: libdns.TXT{Name: "x", Text: "ab"}},
		{rec: libdns.RR{Name: "", Type: "TXT", Data: "v"}, name: "example.com", value: "v", back: libdns.TXT{Name: "@", Text: "v"}},
		{rec: ownRecord{libdns.TXT{Name: "x", Text: "v"}, 7}, name: "x.example.com", value: "v", back: ownRecord{libdns.TXT{Name: "x", Text: "v"}, 7}},
		{rec: libdns.RR{Name: "x", Type: "A", Data: "192.0.2.1"}},
		{rec: libdns.TXT{Name: "x.other.org.", Text: "v"}},
		{rec: nil},
		{rec: none},
	} {
		name, f, ok := zone("example.com").txt(tt.rec)
		if name != tt.name || f.value != tt.value || f.record != tt.back || ok != (tt.back != nil) {
			t.Errorf("%v: %q, %+v, %v", tt.rec, name, f, ok)
		}
	}
}

type someProvider struct{ said string }

func (p someProvider) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

func (p someProvider) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}

type talking struct{ someProvider }

func (p *talking) String() string {
	if p.said == "panic" {
		panic(p.said)
	}
	return p.said
}

func TestNamesOfProviders(t *testing.T) {
	for _, tt := range []struct {
		p    Provider
		want string
	}{
		{nil, "no provider"},
		{(*someProvider)(nil), "no provider"},
		{someProvider{"secret"}, "dnsprovider"},
		{&someProvider{"secret"}, "dnsprovider"},
		{struct{ someProvider }{}, "the DNS provider"},
		{&talking{someProvider{"my DNS"}}, "my DNS"},
		{&talking{}, "dnsprovider"},
		{&talking{someProvider{"panic"}}, "dnsprovider"},
	} {
		if got := providerName(tt.p); got != tt.want {
			t.Errorf("%T: %q, want %q", tt.p, got, tt.want)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := new(Solver)
	for i := range maxPresents + 100 {
		s.keep(key{value: fmt.Sprint(i)}, func(p *presentation) { p.written = true })
	}
	if len(s.presents) != maxPresents {
		t.Errorf("%d are remembered", len(s.presents))
	}
	if _, ok := s.presents[key{value: fmt.Sprint(maxPresents + 99)}]; !ok {
		t.Error("the last one is not remembered")
	}
}

// What another instance has cleaned up long ago is not written again.
func TestOldPresentsAreNoOthers(t *testing.T) {
	s := new(Solver)
	p, _ := at("example.com", "x.example.com")
	for i, age := range []time.Duration{time.Minute, time.Hour} {
		s.keep(key{value: fmt.Sprint(i)}, func(pr *presentation) {
			*pr = presentation{written: true, ledger: ledger{{Zone: p.zone, Name: p.name, Value: fmt.Sprint(i), At: time.Now().Add(-age).Unix()}}}
		})
	}
	s.keep(key{value: "never written"}, func(pr *presentation) {
		*pr = presentation{ledger: ledger{{Zone: p.zone, Name: p.name, Value: "B", At: time.Now().Unix()}}}
	})
	if got := s.lately(p); len(got) != 1 || got[0] != "0" {
		t.Errorf("others %q", got)
	}
}
