package certcache

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// entry returns an Entry that is valid now, with a certificate of its own.
func entry(id string, names ...string) Entry {
	return Entry{
		Cert: &tls.Certificate{Leaf: &x509.Certificate{}}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), ID: id, Names: names,
	}
}

func entryOf(in Entry, pub any) Entry {
	in.Cert = &tls.Certificate{Leaf: &x509.Certificate{PublicKey: pub}}
	return in
}

func during(in Entry, notBefore, notAfter time.Duration) Entry {
	in.NotBefore, in.NotAfter = now.Add(notBefore), now.Add(notAfter)
	return in
}

func ranked(in Entry, rank int) Entry {
	in.Rank = rank
	return in
}

// idOf finds which of the entries a certificate is from.
func idOf(cert *tls.Certificate, entries []Entry) string {
	if cert == nil {
		return ""
	}
	for _, e := range entries {
		if e.Cert == cert {
			return e.ID
		}
	}
	return "unknown certificate"
}

var (
	ecdsaKey = &ecdsa.PublicKey{Curve: elliptic.P256()}
	p384Key  = &ecdsa.PublicKey{Curve: elliptic.P384()}
	rsaKey   = &rsa.PublicKey{}
)

func TestLookupPreference(t *testing.T) {
	const name, wild = "www.example.com", "*.example.com"
	hour := time.Hour
	old := during(entry("old", name), -48*hour, -24*hour)
	future := during(entry("future", name), hour, 48*hour)
	oldWild := during(entry("oldWild", wild), -48*hour, -24*hour)
	futureWild := during(entry("futureWild", wild), hour, 48*hour)
	exact, star := entry("exact", name), entry("star", wild)
	tests := []struct {
		name    string
		entries []Entry
		want    string
	}{
		{"nothing", nil, ""},
		{"other name", []Entry{entry("other", "example.com", "*.www.example.com", "a.www.example.com")}, ""},
		{"exact", []Entry{exact}, "exact"},
		{"wildcard", []Entry{star}, "star"},
		{"exact before wildcard", []Entry{star, exact}, "exact"},
		{"H6 valid exact before expired wildcard", []Entry{oldWild, exact}, "exact"},
		{"H6 valid wildcard before expired exact", []Entry{old, star}, "star"},
		{"H6 expired exact before expired wildcard", []Entry{oldWild, old}, "old"},
		{"H6 expired wildcard when there is no other", []Entry{oldWild}, "oldWild"},
		{"H6 valid before expired", []Entry{old, exact}, "exact"},
		{"H18 valid before not yet valid", []Entry{future, exact}, "exact"},
		{"H18 valid wildcard before not yet valid exact", []Entry{future, star}, "star"},
		{"H18 not yet valid when there is no other", []Entry{future}, "future"},
		{"H18 not yet valid before expired", []Entry{old, future}, "future"},
		{"H18 expired exact before not yet valid wildcard", []Entry{futureWild, old}, "old"},
		{"H18 not yet valid wildcard when there is no other", []Entry{futureWild}, "futureWild"},
		{"newest first", []Entry{exact, during(entry("newer", name), -hour/2, hour/2)}, "newer"},
		{"ECDSA before newer RSA", []Entry{
			entryOf(during(entry("rsa", name), -hour/2, hour), rsaKey), entryOf(entry("ecdsa", name), ecdsaKey),
		}, "ecdsa"},
		{"valid RSA before expired ECDSA", []Entry{entryOf(old, ecdsaKey), entryOf(entry("rsa", name), rsaKey)}, "rsa"},
		{"RSA before others", []Entry{exact, entryOf(entry("rsa", name), rsaKey)}, "rsa"},
		{"newer P-384 before P-256", []Entry{
			entryOf(entry("p256", name), ecdsaKey), entryOf(during(entry("p384", name), -hour/2, hour), p384Key),
		}, "p384"},
		{"rank before age", []Entry{ranked(during(entry("newer", name), -hour/2, hour), 1), exact}, "exact"},
		{"valid before rank", []Entry{ranked(entry("valid", name), 9), old}, "valid"},
		{"first ID of equals", []Entry{entry("b", name), entry("a", name)}, "a"},
		{"valid up to the second itself", []Entry{during(entry("ends", name), -hour, 0), oldWild}, "ends"},
		{"valid from the second itself", []Entry{during(entry("begins", name), 0, hour), star}, "begins"},
	}
	for _, tt := range tests {
		for _, reverse := range []string{"", " in reverse"} {
			t.Run(tt.name+reverse, func(t *testing.T) {
				c := New()
				c.Install(now, tt.entries...)
				if got := idOf(c.Lookup(name, nil), tt.entries); got != tt.want {
					t.Errorf("got %q; want %q", got, tt.want)
				}
			})
			tt.entries = slices.Clone(tt.entries)
			slices.Reverse(tt.entries)
		}
	}
}

func TestLookupKinds(t *testing.T) {
	entries := []Entry{
		entry("plain", "example.com", "a.b.example.org"),
		entry("star", "*.example.com"),
		entry("ip", "192.0.2.1", "2001:db8::1"),
	}
	c := New()
	c.Install(now, entries...)
	for name, want := range map[string]string{
		"example.com": "plain", "a.b.example.org": "plain", "b.example.org": "", "www.example.com": "star", "*.example.com": "star",
		"a.www.example.com": "", "com": "", "": "", ".": "", "192.0.2.1": "ip", "2001:db8::1": "ip", "192.0.2.2": "",
	} {
		if got := idOf(c.Lookup(name, nil), entries); got != want {
			t.Errorf("Lookup(%q) = %q; want %q", name, got, want)
		}
	}
	for addr, want := range map[string]string{
		"192.0.2.1": "ip", "2001:db8::1": "ip", "::ffff:192.0.2.1": "ip", "2001:db8::1%eth0": "ip", "192.0.2.2": "", "::": "",
	} {
		if got := idOf(c.LookupIP(netip.MustParseAddr(addr), nil), entries); got != want {
			t.Errorf("LookupIP(%s) = %q; want %q", addr, got, want)
		}
	}
	if c.LookupIP(netip.Addr{}, nil) != nil {
		t.Error("LookupIP of the zero Addr finds something")
	}
}

// checkHeld checks that a cache has these names, each with the certificate that
// goes by the given word.
func checkHeld(t *testing.T, c *Cache, step string, certs map[string]*tls.Certificate, want map[string]string) {
	t.Helper()
	if got, held := c.Names(), slices.Sorted(maps.Keys(want)); !slices.Equal(got, held) {
		t.Errorf("%s: Names = %q; want %q", step, got, held)
	}
	for _, name := range []string{"192.0.2.1", "a.example", "b.example", "c.example"} {
		if c.Lookup(name, nil) != certs[want[name]] {
			t.Errorf("%s: Lookup(%q) is not %q", step, name, want[name])
		}
	}
}

func TestInstallRemoveRefresh(t *testing.T) {
	c := New()
	first := entry("1", "a.example", "b.example", "a.example")
	second := entry("1", "b.example", "c.example", "192.0.2.1")
	other := during(entry("2", "b.example"), -2*time.Hour, time.Hour)
	check := func(step string, want map[string]string) {
		t.Helper()
		checkHeld(t, c, step, map[string]*tls.Certificate{"first": first.Cert, "second": second.Cert, "other": other.Cert}, want)
	}
	check("empty", nil)
	c.Install(now, first, other)
	check("installed", map[string]string{"a.example": "first", "b.example": "first"})
	c.Install(now, second)
	check("replaced", map[string]string{"b.example": "second", "c.example": "second", "192.0.2.1": "second"})
	if e, ok := c.Get("1"); !ok || e.Cert != second.Cert || !slices.Equal(e.Names, []string{"192.0.2.1", "b.example", "c.example"}) {
		t.Errorf("Get = %+v, %v", e, ok)
	}
	c.Install(now, Entry{ID: "no certificate", Names: []string{"a.example"}}, entry("", "a.example"))
	if c.Len() != 2 {
		t.Errorf("Len = %d; want 2", c.Len())
	}
	other.NotAfter = now.Add(3 * time.Hour)
	c.Install(now, other)
	check("extended", map[string]string{"b.example": "second", "c.example": "second", "192.0.2.1": "second"})
	later := now.Add(2 * time.Hour) // after the end of second
	check("without Refresh", map[string]string{"b.example": "second", "c.example": "second", "192.0.2.1": "second"})
	c.Refresh(later, "1", "unknown")
	check("refreshed", map[string]string{"b.example": "other", "c.example": "second", "192.0.2.1": "second"})
	c.Remove(later, "1", "unknown")
	check("removed", map[string]string{"b.example": "other"})
	if e, ok := c.Get("1"); ok {
		t.Errorf("Get of a removed entry = %+v", e)
	}
	c.Remove(later, "2")
	check("empty again", nil)
	if c.Len() != 0 || len(c.byName)+len(c.ips)+len(c.sets) != 0 {
		t.Errorf("left: %d entries, %v %v %v", c.Len(), c.byName, c.ips, c.sets)
	}
	for i := range c.shards {
		if used := c.shards[i].Load().used; used != 0 {
			t.Errorf("shard %d still has %d names", i, used)
		}
	}
}

func TestH1_Sole(t *testing.T) {
	c := New()
	all := []Entry{
		entryOf(entry("rsa", "a.example", "b.example"), rsaKey),
		entryOf(entry("ecdsa", "b.example", "a.example"), ecdsaKey),
		entry("other", "a.example"),
		during(entry("old", "a.example", "b.example"), -3*time.Hour, -2*time.Hour),
	}
	check := func(step, want string) {
		t.Helper()
		if got := idOf(c.Sole(), all); got != want {
			t.Errorf("%s: Sole = %q; want %q", step, got, want)
		}
	}
	check("empty", "")
	c.Install(now, all[3])
	check("one, expired", "old")
	c.Install(now, all[0])
	check("same names", "rsa")
	c.Install(now, all[1])
	check("same names, in another order", "ecdsa")
	c.Install(now, all[2])
	check("a part of the names", "")
	c.Remove(now, "other")
	check("same names again", "ecdsa")
	c.Remove(now, "rsa", "ecdsa", "old")
	check("empty again", "")
}

func TestH1_SoleIP(t *testing.T) {
	c := New()
	all := []Entry{entry("name", "a.example"), entry("ip", "192.0.2.1", "b.example"), entry("same", "192.0.2.1"), entry("ip6", "2001:db8::1")}
	for _, step := range []struct {
		install []Entry
		remove  string
		want    string
	}{
		{all[:1], "", ""},
		{all[1:2], "", "ip"},
		{all[2:3], "", "ip"},
		{all[3:], "", ""},
		{nil, "ip", ""},
		{nil, "ip6", "same"},
		{nil, "same", ""},
	} {
		c.Install(now, step.install...)
		c.Remove(now, step.remove)
		if got := idOf(c.SoleIP(), all); got != step.want {
			t.Errorf("after %+v: SoleIP = %q; want %q", step, got, step.want)
		}
	}
}

func TestH16_NothingIsForgotten(t *testing.T) {
	const n = 5000
	c := New()
	var entries []Entry
	for i := range n {
		entries = append(entries, entry(fmt.Sprint(i), fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("*.host-%d.example.com", i)))
	}
	c.Install(now, entries[:n/2]...)
	for _, e := range entries[n/2:] {
		c.Install(now, e)
	}
	for i, e := range entries {
		if c.Lookup(e.Names[0], nil) != e.Cert || c.Lookup("www."+e.Names[0], nil) != e.Cert {
			t.Fatalf("entry %d is not found", i)
		}
	}
	for i, e := range entries {
		if i%2 == 0 {
			c.Remove(now, e.ID)
		}
	}
	for i, e := range entries {
		if got := c.Lookup(e.Names[0], nil); (got == nil) != (i%2 == 0) {
			t.Fatalf("entry %d: found %v", i, got != nil)
		}
	}
	if c.Len() != n/2 || len(c.Names()) != n {
		t.Errorf("Len = %d, %d names", c.Len(), len(c.Names()))
	}
}

func TestLookupNeverMissesDuringChanges(t *testing.T) {
	c := New()
	stay := entry("stay", "stay.example", "*.wild.example", "192.0.2.1")
	c.Install(now, stay)
	addr := netip.MustParseAddr("192.0.2.1")
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c.Lookup("stay.example", nil) == nil || c.Lookup("a.wild.example", nil) == nil || c.LookupIP(addr, nil) == nil {
					t.Error("a certificate that is there was not found")
					return
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			for i := range 300 {
				again := stay
				again.Cert = &tls.Certificate{}
				id := fmt.Sprint(w, i%20)
				c.Install(now, again, entry(id, id+".example", "x.wild.example"))
				c.Refresh(now, "stay", id)
				c.Remove(now, id)
				c.Sole()
				c.SoleIP()
				c.Names()
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if c.Len() != 1 || c.Lookup("stay.example", nil) == stay.Cert {
		t.Errorf("Len = %d, or the first certificate is still there", c.Len())
	}
}
