package certcache

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/hostname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// parsed is a Source of a certificate that is parsed already.
type parsed struct{ cert *tls.Certificate }

func (p parsed) Certificate() (*tls.Certificate, error) { return p.cert, nil }

// A held is an Entry with what it serves when it is installed.
type held struct {
	Entry
	id     string
	cert   *tls.Certificate
	served Served
}

// entry returns one that is valid now, with a certificate of its own.
func entry(id string, names ...string) *held {
	h := &held{Entry: Entry{Names: names}, id: id, served: Served{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}}
	return h.with(&tls.Certificate{Leaf: &x509.Certificate{}})
}

func (h *held) with(cert *tls.Certificate) *held {
	h.cert, h.served.Source = cert, parsed{cert}
	return h
}

func (h *held) of(pub crypto.PublicKey) *held {
	h.served.Kind = certpem.KindOf(pub)
	return h.with(&tls.Certificate{Leaf: &x509.Certificate{PublicKey: pub}})
}

func (h *held) during(notBefore, notAfter time.Duration) *held {
	h.served.NotBefore, h.served.NotAfter = now.Add(notBefore), now.Add(notAfter)
	return h
}

func (h *held) ranked(rank uint8) *held {
	h.Rank = rank
	return h
}

// again returns the same in no Cache.
func (h *held) again() *held {
	return &held{Entry: Entry{Names: h.Names, Rank: h.Rank}, id: h.id, cert: h.cert, served: h.served}
}

func install(c *Cache, entries ...*held) {
	for _, h := range entries {
		c.Add(&h.Entry)
		c.Serve(now, &h.Entry, h.served)
	}
}

// idOf finds which of the entries a certificate is from.
func idOf(cert *tls.Certificate, entries []*held) string {
	if cert == nil {
		return ""
	}
	for _, h := range entries {
		if h.cert == cert {
			return h.id
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
	const name, wild, hour = "www.example.com", "*.example.com", time.Hour
	old, future := entry("old", name).during(-48*hour, -24*hour), entry("future", name).during(hour, 48*hour)
	oldWild, futureWild := entry("oldWild", wild).during(-48*hour, -24*hour), entry("futureWild", wild).during(hour, 48*hour)
	exact, star := entry("exact", name), entry("star", wild)
	tests := []struct {
		name    string
		entries []*held
		want    string
	}{
		{"nothing", nil, ""},
		{"other name", []*held{entry("other", "example.com", "*.www.example.com", "a.www.example.com")}, ""},
		{"exact", []*held{exact}, "exact"},
		{"wildcard", []*held{star}, "star"},
		{"exact before wildcard", []*held{star, exact}, "exact"},
		{"H6 valid exact before expired wildcard", []*held{oldWild, exact}, "exact"},
		{"H6 valid wildcard before expired exact", []*held{old, star}, "star"},
		{"H6 expired exact before expired wildcard", []*held{oldWild, old}, "old"},
		{"H6 expired wildcard when there is no other", []*held{oldWild}, "oldWild"},
		{"H6 valid before expired", []*held{old, exact}, "exact"},
		{"H18 valid before not yet valid", []*held{future, exact}, "exact"},
		{"H18 valid wildcard before not yet valid exact", []*held{future, star}, "star"},
		{"H18 not yet valid when there is no other", []*held{future}, "future"},
		{"H18 not yet valid before expired", []*held{old, future}, "future"},
		{"H18 expired exact before not yet valid wildcard", []*held{futureWild, old}, "old"},
		{"H18 not yet valid wildcard when there is no other", []*held{futureWild}, "futureWild"},
		{"newest first", []*held{exact, entry("newer", name).during(-hour/2, hour/2)}, "newer"},
		{"ECDSA before newer RSA", []*held{entry("rsa", name).during(-hour/2, hour).of(rsaKey), entry("ecdsa", name).of(ecdsaKey)}, "ecdsa"},
		{"valid RSA before expired ECDSA", []*held{old.again().of(ecdsaKey), entry("rsa", name).of(rsaKey)}, "rsa"},
		{"RSA before others", []*held{exact, entry("rsa", name).of(rsaKey)}, "rsa"},
		{"newer P-384 before P-256", []*held{entry("p256", name).of(ecdsaKey), entry("p384", name).during(-hour/2, hour).of(p384Key)}, "p384"},
		{"rank before age", []*held{entry("newer", name).during(-hour/2, hour).ranked(1), exact}, "exact"},
		{"valid before rank", []*held{entry("valid", name).ranked(9), old}, "valid"},
		{"valid up to the second itself", []*held{entry("ends", name).during(-hour, 0), oldWild}, "ends"},
		{"valid from the second itself", []*held{entry("begins", name).during(0, hour), star}, "begins"},
	}
	for _, tt := range tests {
		for _, reverse := range []string{"", " in reverse"} {
			t.Run(tt.name+reverse, func(t *testing.T) {
				c := New(0)
				var entries []*held
				for _, h := range tt.entries {
					entries = append(entries, h.again())
				}
				if reverse != "" {
					slices.Reverse(entries)
				}
				install(c, entries...)
				checkSame(t, c, name, tt.want, entries)
			})
		}
	}
}

// checkSame checks that all look-ups of a name agree.
func checkSame(t *testing.T, c *Cache, name, want string, entries []*held) {
	t.Helper()
	if got := idOf(c.Lookup(name, nil), entries); got != want {
		t.Errorf("Lookup = %q; want %q", got, want)
	}
	cert, match := c.FindBytes([]byte(name), nil)
	if got := idOf(cert, entries); got != want {
		t.Errorf("FindBytes = %q; want %q", got, want)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(h *held) bool { return slices.Contains(h.Names, name) })
	}
	wantMatch := None
	switch {
	case has(name) && !hostname.IsWildcard(name):
		wantMatch = Own
	case has("*." + hostname.Parent(name)):
		wantMatch = Wildcard
	}
	if match != wantMatch {
		t.Errorf("match = %v; want %v", match, wantMatch)
	}
}

func TestFirstAddedOfEquals(t *testing.T) {
	c, first, second := New(0), entry("first", "a.example"), entry("second", "a.example")
	entries := []*held{first, second}
	c.Add(&first.Entry)
	c.Add(&second.Entry)
	c.Serve(now, &second.Entry, second.served)
	checkSame(t, c, "a.example", "second", entries)
	c.Serve(now, &first.Entry, first.served)
	checkSame(t, c, "a.example", "first", entries)
}

func TestLookupKinds(t *testing.T) {
	entries := []*held{
		entry("plain", "example.com", "a.b.example.org"),
		entry("star", "*.example.com"),
		entry("ip", "192.0.2.1", "2001:db8::1"),
	}
	c := New(0)
	install(c, entries...)
	for name, want := range map[string]string{
		"example.com": "plain", "a.b.example.org": "plain", "b.example.org": "", "www.example.com": "star", "*.example.com": "star",
		"a.www.example.com": "", "com": "", "": "", ".": "", "192.0.2.1": "ip", "2001:db8::1": "ip", "192.0.2.2": "",
		"EXAMPLE.com": "", "example.com.": "",
	} {
		checkSame(t, c, name, want, entries)
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

// checkHeld checks what a cache has for four names.
func checkHeld(t *testing.T, c *Cache, step string, entries []*held, want map[string]string) {
	t.Helper()
	for _, name := range []string{"192.0.2.1", "a.example", "b.example", "c.example"} {
		if got := idOf(c.Lookup(name, nil), entries); got != want[name] {
			t.Errorf("%s: Lookup(%q) = %q; want %q", step, name, got, want[name])
		}
	}
}

func TestServeRemoveRefresh(t *testing.T) {
	c := New(0)
	one := entry("one", "a.example", "b.example")
	two := entry("two", "b.example", "c.example", "192.0.2.1")
	other := entry("other", "b.example").during(-2*time.Hour, 3*time.Hour)
	entries := []*held{one, two, other}
	check := func(step string, want map[string]string) {
		t.Helper()
		checkHeld(t, c, step, entries, want)
	}
	check("empty", nil)
	install(c, one, other)
	check("installed", map[string]string{"a.example": "one", "b.example": "one"})
	install(c, two)
	c.Remove(now, &one.Entry)
	check("replaced", map[string]string{"b.example": "two", "c.example": "two", "192.0.2.1": "two"})
	c.Add(&Entry{}, &two.Entry)
	if c.Len() != 2 {
		t.Errorf("Len = %d; want 2", c.Len())
	}
	later := now.Add(2 * time.Hour) // after the end of two
	check("without Refresh", map[string]string{"b.example": "two", "c.example": "two", "192.0.2.1": "two"})
	c.Refresh(later, &two.Entry)
	c.Refresh(later, &one.Entry)
	check("refreshed", map[string]string{"b.example": "other", "c.example": "two", "192.0.2.1": "two"})
	c.Remove(later, &two.Entry, &one.Entry)
	check("removed", map[string]string{"b.example": "other"})
	c.Remove(later, &other.Entry)
	check("empty again", nil)
	checkEmpty(t, c)
}

func checkEmpty(t *testing.T, c *Cache) {
	t.Helper()
	if c.Len() != 0 || c.Hot() != 0 || c.serving != 0 || c.names != 0 || c.distinct != 0 || len(c.ips)+len(c.thaws) != 0 {
		t.Errorf("left: Len %d, Hot %d, serving %d, names %d, distinct %d, %v %v", c.Len(), c.Hot(), c.serving, c.names, c.distinct, c.ips, c.thaws)
	}
	for i := range c.shards {
		if used := c.shards[i].table.Load().used; used != 0 {
			t.Errorf("shard %d still has %d names", i, used)
		}
	}
}

func TestRemoveSettlesThoseThatStay(t *testing.T) {
	c := New(0)
	gone, expired, stays := entry("gone", "a.example"), entry("expired", "a.example").during(-time.Hour, time.Minute), entry("stays", "a.example").ranked(1)
	entries := []*held{gone, expired, stays}
	install(c, entries...)
	c.Remove(now.Add(30*time.Minute), &gone.Entry)
	if got := idOf(c.Lookup("a.example", nil), entries); got != "stays" {
		t.Errorf("Lookup = %q; want stays", got)
	}
}

func TestValidityIsToTheSecond(t *testing.T) {
	c, h := New(0), entry("", "a.example").during(-time.Hour, 0)
	install(c, h)
	for _, step := range []struct {
		at    time.Duration
		valid bool
	}{{0, true}, {1, false}, {-1, true}, {-time.Hour, true}, {-time.Hour - 1, false}} {
		c.Refresh(now.Add(step.at), &h.Entry)
		if got := h.class() == valid; got != step.valid {
			t.Errorf("%v from the end: valid = %v", step.at, got)
		}
	}
}

// known reports whether there is an entry for a name.
func known(c *Cache, name string) bool {
	_, match := c.Find(name, nil)
	return match != None
}

func TestPending(t *testing.T) {
	c, h := New(0), entry("one", "a.example", "*.b.example", "192.0.2.1")
	check := func(step string, in, serving bool) {
		t.Helper()
		for _, name := range []string{"a.example", "x.b.example", "192.0.2.1"} {
			if known(c, name) != in || (c.Lookup(name, nil) != nil) != serving {
				t.Errorf("%s: %s is known: %v, found: %v", step, name, known(c, name), c.Lookup(name, nil) != nil)
			}
		}
		if h.Serving() != serving || (c.Sole() != nil) != serving || (c.SoleIP() != nil) != serving || (c.Len() == 1) != in {
			t.Errorf("%s: Serving %v, Sole %v, SoleIP %v, Len %d", step, h.Serving(), c.Sole(), c.SoleIP(), c.Len())
		}
	}
	check("new", false, false)
	c.Serve(now, &h.Entry, h.served)
	check("served without Add", false, false)
	c.Add(&h.Entry)
	check("added", true, false)
	c.Serve(now, &h.Entry, h.served)
	check("served", true, true)
	c.Serve(now, &h.Entry, Served{})
	check("serving nothing", true, false)
	c.Serve(now, &h.Entry, h.served)
	check("served again", true, true)
	c.Remove(now, &h.Entry)
	check("removed", false, false)
	c.Add(&h.Entry)
	check("added again", true, false)
	c.Remove(now, &h.Entry)
	checkEmpty(t, c)
}

func TestEntriesAndAll(t *testing.T) {
	c := New(0)
	both, star, plain, pending := entry("both", "a.example", "*.a.example"), entry("star", "*.a.example").ranked(1), entry("plain", "a.example").ranked(1), entry("pending", "*.a.example", "b.example")
	install(c, both, star, plain)
	c.Add(&pending.Entry)
	for name, want := range map[string][]*Entry{
		"a.example": {&both.Entry, &plain.Entry}, "*.a.example": {&both.Entry, &star.Entry, &pending.Entry}, "b.example": {&pending.Entry},
		"*.b.example": nil, "x.a.example": nil, "": nil,
	} {
		if got := c.Entries(name); !slices.Equal(got, want) {
			t.Errorf("Entries(%q) has %d; want %d, or others", name, len(got), len(want))
		}
	}
	seen := make(map[*Entry]int)
	for e := range c.All() {
		seen[e]++
	}
	if fmt.Sprint(seen) != fmt.Sprint(map[*Entry]int{&both.Entry: 1, &star.Entry: 1, &plain.Entry: 1, &pending.Entry: 1}) {
		t.Errorf("All = %v", seen)
	}
	for range c.All() {
		break
	}
}
