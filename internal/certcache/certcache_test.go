package certcache_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parsed is a Source of a certificate that is parsed already.
type parsed struct{ cert *tls.Certificate }

func (p parsed) Certificate() (*tls.Certificate, error) { return p.cert, nil }

// A held is an Entry with what it serves when it is installed.
type held struct {
	certcache.Entry
	id          string
	cert        *tls.Certificate
	source      certcache.Source
	Rank        uint8
	from, until time.Duration // from now
}

// entry returns one that is valid now, with a certificate of its own.
func entry(id string, names ...string) *held {
	h := &held{Entry: certcache.Entry{Names: names}, id: id, from: -time.Hour, until: time.Hour}
	return h.with(&tls.Certificate{Leaf: &x509.Certificate{}})
}

func (h *held) with(cert *tls.Certificate) *held {
	h.cert, h.source = cert, parsed{cert}
	return h
}

func (h *held) during(from, until time.Duration) *held {
	h.from, h.until = from, until
	return h
}

func (h *held) ranked(rank uint8) *held {
	h.Rank = rank
	return h
}

// again returns the same in no Cache.
func (h *held) again() *held {
	return &held{certcache.Entry{Names: h.Names}, h.id, h.cert, h.source, h.Rank, h.from, h.until}
}

func (h *held) served() *certcache.Served {
	return &certcache.Served{
		Source: h.source, NotBefore: time.Now().Add(h.from).Unix(), End: time.Now().Add(h.until).Unix(), Rank: h.Rank,
	}
}

// serving returns what is valid now.
func serving(s certcache.Source) *certcache.Served {
	h := &held{source: s, from: -time.Hour, until: time.Hour}
	return h.served()
}

func install(c *certcache.Cache, entries ...*held) {
	for _, h := range entries {
		c.Add(&h.Entry)
		c.Serve(&h.Entry, h.served())
	}
}

func lookup(c *certcache.Cache, name string) *tls.Certificate {
	return c.Find(name, nil).Cert
}

// known reports whether there is an entry for a name.
func known(c *certcache.Cache, name string) bool {
	return c.Find(name, nil).Match != certcache.None
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

func TestPreference(t *testing.T) {
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
		{"valid exact before expired wildcard", []*held{oldWild, exact}, "exact"},
		{"valid wildcard before expired exact", []*held{old, star}, "star"},
		{"expired exact before expired wildcard", []*held{oldWild, old}, "old"},
		{"expired wildcard when there is no other", []*held{oldWild}, "oldWild"},
		{"valid before expired", []*held{old, exact}, "exact"},
		{"valid before not yet valid", []*held{future, exact}, "exact"},
		{"valid wildcard before not yet valid exact", []*held{future, star}, "star"},
		{"not yet valid when there is no other", []*held{future}, "future"},
		{"not yet valid before expired", []*held{old, future}, "future"},
		{"expired exact before not yet valid wildcard", []*held{futureWild, old}, "old"},
		{"not yet valid wildcard when there is no other", []*held{futureWild}, "futureWild"},
		{"newest first", []*held{exact, entry("newer", name).during(-hour/2, hour/2)}, "newer"},
		{"rank before age", []*held{entry("newer", name).during(-hour/2, hour).ranked(1), exact}, "exact"},
		{"valid before rank", []*held{entry("valid", name).ranked(9), old}, "valid"},
		{"rank among expired ones", []*held{old, entry("second", name).during(-5*hour, -hour).ranked(1)}, "old"},
		{"ranks of a wildcard", []*held{entry("second", wild).ranked(1), star, oldWild}, "star"},
	}
	for _, tt := range tests {
		for _, reverse := range []string{"", " in reverse"} {
			t.Run(tt.name+reverse, func(t *testing.T) {
				c := certcache.New(0)
				var entries []*held
				for _, h := range tt.entries {
					entries = append(entries, h.again())
				}
				if reverse != "" {
					slices.Reverse(entries)
				}
				install(c, entries...)
				checkFinds(t, c, name, tt.want, entries)
			})
		}
	}
}

// checkFinds checks that all look-ups of a name agree.
func checkFinds(t *testing.T, c *certcache.Cache, name, want string, entries []*held) {
	t.Helper()
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(h *held) bool { return slices.Contains(h.Names, name) })
	}
	wantMatch := certcache.None
	switch {
	case has(name) && !hostname.IsWildcard(name):
		wantMatch = certcache.Own
	case has("*." + hostname.Parent(name)):
		wantMatch = certcache.Wildcard
	}
	r := c.Find(name, nil)
	if got := idOf(r.Cert, entries); got != want || r.Match != wantMatch {
		t.Errorf("Find(%q) = %q, %v; want %q, %v", name, got, r.Match, want, wantMatch)
	}
	if other := c.FindBytes([]byte(name), nil); other != r {
		t.Errorf("FindBytes(%q) = %v; want %v", name, other, r)
	}
}

func TestFirstAddedOfEquals(t *testing.T) {
	c, first, second := certcache.New(0), entry("first", "a.example"), entry("second", "a.example")
	entries := []*held{first, second}
	c.Add(&first.Entry)
	c.Add(&second.Entry)
	c.Serve(&second.Entry, second.served())
	checkFinds(t, c, "a.example", "second", entries)
	equal := second.served()
	equal.Source = first.source
	c.Serve(&first.Entry, equal)
	checkFinds(t, c, "a.example", "first", entries)
}

func TestKindsOfNames(t *testing.T) {
	entries := []*held{
		entry("plain", "example.com", "a.b.example.org"),
		entry("star", "*.example.com"),
		entry("ip", "192.0.2.1", "2001:db8::1"),
	}
	c := certcache.New(0)
	install(c, entries...)
	for name, want := range map[string]string{
		"example.com": "plain", "a.b.example.org": "plain", "b.example.org": "", "www.example.com": "star", "*.example.com": "star",
		"a.www.example.com": "", "com": "", "": "", ".": "", "192.0.2.1": "ip", "2001:db8::1": "ip", "192.0.2.2": "",
		"EXAMPLE.com": "", "example.com.": "", string(make([]byte, 300)): "",
	} {
		checkFinds(t, c, name, want, entries)
	}
	if known(c, ".example.com") {
		t.Error("a wildcard stands for the empty label")
	}
	for addr, want := range map[string]string{
		"192.0.2.1": "ip", "2001:db8::1": "ip", "::ffff:192.0.2.1": "ip", "2001:db8::1%eth0": "ip", "192.0.2.2": "", "::": "",
	} {
		if got := idOf(c.FindIP(netip.MustParseAddr(addr), nil).Cert, entries); got != want {
			t.Errorf("FindIP(%s) = %q; want %q", addr, got, want)
		}
	}
	if r := c.FindIP(netip.Addr{}, nil); r != (certcache.Result{}) {
		t.Error("FindIP of the zero Addr finds something")
	}
}

// checkHeld checks what a cache has for four names.
func checkHeld(t *testing.T, c *certcache.Cache, step string, entries []*held, want map[string]string) {
	t.Helper()
	for _, name := range []string{"192.0.2.1", "a.example", "b.example", "c.example"} {
		if got := idOf(lookup(c, name), entries); got != want[name] {
			t.Errorf("%s: Find(%q) = %q; want %q", step, name, got, want[name])
		}
	}
}

func TestAddServeRemove(t *testing.T) {
	c := certcache.New(0)
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
	c.Remove(&one.Entry)
	check("replaced", map[string]string{"b.example": "two", "c.example": "two", "192.0.2.1": "two"})
	c.Add(&certcache.Entry{}, &two.Entry)
	if c.Len() != 2 {
		t.Errorf("Len = %d; want 2", c.Len())
	}
	c.Remove(&two.Entry, &one.Entry)
	check("removed", map[string]string{"b.example": "other"})
	c.Remove(&other.Entry)
	check("empty again", nil)
	checkEmpty(t, c)
}

func checkEmpty(t *testing.T, c *certcache.Cache) {
	t.Helper()
	if all := slices.Collect(c.All()); c.Len() != 0 || c.Hot() != 0 || len(all) != 0 || sole(c, nil) != nil || soleIP(c, nil) != nil {
		t.Errorf("left: Len %d, Hot %d, All %v, Sole %v, SoleIP %v", c.Len(), c.Hot(), all, sole(c, nil), soleIP(c, nil))
	}
}

func TestPending(t *testing.T) {
	c, h := certcache.New(0), entry("one", "a.example", "*.b.example", "192.0.2.1")
	check := func(step string, in, serves bool) {
		t.Helper()
		for _, name := range []string{"a.example", "x.b.example", "192.0.2.1"} {
			if known(c, name) != in || (lookup(c, name) != nil) != serves {
				t.Errorf("%s: %s is known: %v, found: %v", step, name, known(c, name), lookup(c, name) != nil)
			}
		}
		if h.Serving() != serves || (sole(c, nil) != nil) != serves || (soleIP(c, nil) != nil) != serves || (c.Len() == 1) != in {
			t.Errorf("%s: Serving %v, Sole %v, SoleIP %v, Len %d", step, h.Serving(), sole(c, nil), soleIP(c, nil), c.Len())
		}
	}
	check("new", false, false)
	c.Serve(&h.Entry, h.served())
	check("served without Add", false, false)
	c.Add(&h.Entry)
	check("added", true, false)
	c.Serve(&h.Entry, h.served())
	check("served", true, true)
	c.Serve(&h.Entry, nil)
	check("serving nothing", true, false)
	c.Serve(&h.Entry, h.served())
	check("served again", true, true)
	c.Remove(&h.Entry)
	check("removed", false, false)
	c.Add(&h.Entry)
	check("added again", true, false)
	c.Remove(&h.Entry)
	checkEmpty(t, c)
}

func TestEntriesAndAll(t *testing.T) {
	c := certcache.New(0)
	both, star, plain, pending := entry("both", "a.example", "*.a.example"), entry("star", "*.a.example"), entry("plain", "a.example"), entry("pending", "*.a.example", "b.example")
	install(c, both, star, plain)
	c.Add(&pending.Entry)
	for name, want := range map[string][]*certcache.Entry{
		"a.example": {&both.Entry, &plain.Entry}, "*.a.example": {&both.Entry, &star.Entry, &pending.Entry}, "b.example": {&pending.Entry},
		"*.b.example": nil, "x.a.example": nil, "": nil,
	} {
		if got := c.Entries(name); !slices.Equal(got, want) {
			t.Errorf("Entries(%q) has %d; want %d, or others", name, len(got), len(want))
		}
	}
	seen := make(map[*certcache.Entry]int)
	for e := range c.All() {
		seen[e]++
	}
	for _, h := range []*held{both, star, plain, pending} {
		if seen[&h.Entry] != 1 || len(seen) != 4 {
			t.Errorf("All has %s %d times, and %d entries", h.id, seen[&h.Entry], len(seen))
		}
	}
	for range c.All() {
		break
	}
}

// sole and soleIP return what is served to a client that names none.
func sole(c *certcache.Cache, hello *tls.ClientHelloInfo) *tls.Certificate {
	_, r := c.Sole(hello)
	return r.Cert
}

func soleIP(c *certcache.Cache, hello *tls.ClientHelloInfo) *tls.Certificate {
	_, r := c.SoleIP(hello)
	return r.Cert
}
