package managertest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/libdns/libdns"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/dnsprovider"
)

// zoneOf is a libdns provider of one zone of a CA's DNS server.
type zoneOf struct {
	ca   *acmetest.CA
	zone string // with the final dot

	mu      sync.Mutex // guards the fields below
	appends int
}

func (z *zoneOf) each(zone string, list []libdns.Record, f func(name, value string)) ([]libdns.Record, error) {
	if zone != z.zone {
		return nil, fmt.Errorf("the zone %q is not here", zone)
	}
	for _, r := range list {
		text, ok := r.(libdns.TXT)
		if !ok {
			return nil, errors.New("it is no TXT record")
		}
		f(libdns.AbsoluteName(text.Name, zone), text.Text)
	}
	return list, nil
}

func (z *zoneOf) AppendRecords(_ context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	z.mu.Lock()
	z.appends++
	z.mu.Unlock()
	return z.each(zone, list, func(name, value string) {
		texts := z.ca.TXT(name)
		z.ca.SetTXT(name, append(texts, value)...)
	})
}

func (z *zoneOf) DeleteRecords(_ context.Context, zone string, list []libdns.Record) ([]libdns.Record, error) {
	return z.each(zone, list, z.ca.DeleteTXT)
}

// dnsConfig is a Config that solves one DNS type with a Solver that writes into the
// CA's DNS server.
func dnsConfig(t *testing.T, ca *acmetest.CA, challengeType string, change ...func(*dnsprovider.Solver)) (Config, *zoneOf) {
	t.Helper()
	z := &zoneOf{ca: ca, zone: "example.com."}
	s := &dnsprovider.Solver{Provider: z, Resolvers: []string{ca.DNSAddr()}}
	for _, f := range change {
		f(s)
	}
	return behindServers(t, ca, func(a *ACME) { a.Solvers = map[string]Solver{challengeType: s} }), z
}

func TestDNSTypes(t *testing.T) {
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprintf("n%d.example.com", i))
	}
	for _, challengeType := range []string{"dns-01", "dns-account-01", "dns-persist-01"} {
		for _, names := range [][]string{{"www.example.com"}, {"*.example.com"}, {"example.com", "*.example.com"}, hundred} {
			t.Run(fmt.Sprintf("%s of %d such as %s", challengeType, len(names), names[0]), func(t *testing.T) {
				t.Parallel()
				ca := acmetest.Start(t)
				conf, z := dnsConfig(t, ca, challengeType)
				foreign := func(name string) string { return "foreign at " + name }
				label := "_acme-challenge."
				if challengeType == "dns-persist-01" {
					label = "_validation-persist."
				}
				if challengeType != "dns-account-01" {
					for _, n := range names {
						ca.SetTXT(label+strings.TrimPrefix(n, "*."), foreign(n))
					}
				}
				m := start(t, conf)
				if err := m.Manage(t.Context(), Spec{Names: names}); err != nil {
					t.Fatal(err)
				}
				if challengeType == "dns-persist-01" {
					before := z.appends
					if err := m.Renew(t.Context(), names[0]); err != nil {
						t.Fatal(err)
					}
					if z.appends != before || before < 1 || before > len(names) { // that of a wildcard is good for its parent
						t.Errorf("%d records were written, and %d for the renewal", before, z.appends-before)
					}
					return
				}
				for _, n := range names {
					name := label + strings.TrimPrefix(n, "*.")
					if left := ca.TXT(name); challengeType == "dns-01" && (len(left) != 1 || !strings.HasPrefix(left[0], "foreign at")) {
						t.Errorf("left at %s is %q", name, left)
					}
				}
			})
		}
	}
}

// A CNAME of _acme-challenge leads into another zone that the provider can edit, and
// the target of a wildcard CNAME is somebody else's.
func TestDNSDelegations(t *testing.T) {
	t.Run("CNAME", func(t *testing.T) {
		ca := acmetest.Start(t)
		ca.AddZone("acme.example.net")
		ca.SetCNAME("_acme-challenge.example.org", "org.acme.example.net")
		conf, z := dnsConfig(t, ca, "dns-01")
		z.zone = "acme.example.net."
		manage(t, start(t, conf), "*.example.org")
		if left := ca.TXT("org.acme.example.net"); len(left) > 0 || z.appends != 1 {
			t.Errorf("left is %q after %d writes", left, z.appends)
		}
	})
	t.Run("Target", func(t *testing.T) {
		ca := acmetest.Start(t)
		ca.SetCNAME("_acme-challenge.example.org", "org.example.com")
		conf, _ := dnsConfig(t, ca, "dns-01", func(s *dnsprovider.Solver) { s.Target = "org.example.com." })
		manage(t, start(t, conf), "*.example.org")
	})
	t.Run("somebody else's", func(t *testing.T) {
		ca := acmetest.Start(t)
		ca.SetCNAME("*.example.com", "lb.vendor.example.net")
		conf, _ := dnsConfig(t, ca, "dns-01")
		manage(t, start(t, conf), "*.www.example.com")
	})
}

// Records for dns-persist-01 that were set by hand are checked, and the error says
// what differs.
func TestDNSPersistByHand(t *testing.T) {
	ca := acmetest.Start(t)
	conf, _ := dnsConfig(t, ca, "dns-persist-01", func(s *dnsprovider.Solver) { s.Provider = nil })
	m := start(t, conf)
	err := m.ManageSync(t.Context(), []string{"*.example.com"})
	if err == nil || !strings.Contains(err.Error(), "_validation-persist.example.com") {
		t.Errorf("ManageSync without a record = %v", err)
	}
	list, err := m.PersistRecords(t.Context(), "*.example.com")
	if err != nil || len(list) != 1 {
		t.Fatalf("PersistRecords = %v, %v", list, err)
	}
	ca.SetTXT(list[0].Name, strings.TrimSuffix(list[0].Value, "; policy=wildcard"))
	if err := m.Renew(t.Context(), "*.example.com"); err == nil || !strings.Contains(err.Error(), "policy=wildcard") {
		t.Errorf("Renew without the policy = %v", err)
	}
	ca.SetTXT(list[0].Name, "something else", list[0].Value)
	if err := m.Renew(t.Context(), "*.example.com"); err != nil {
		t.Error(err)
	}
	if left := ca.TXT(list[0].Name); len(left) != 2 {
		t.Errorf("left is %q", left)
	}
}
