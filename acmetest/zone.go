package acmetest

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// SetRecord makes a name resolve to addrs, and to nothing when there are none.
// IPv4 addresses become A records, IPv6 addresses AAAA records. The validator
// dials only one address, an IPv6 one first.
func (c *CA) SetRecord(name string, addrs ...netip.Addr) {
	c.dns.records.setAddrs(name, &addrSet{addrs: slices.Clone(addrs)})
}

// Rotate makes a name resolve to addrs like SetRecord, but each answer starts
// with the next of them, as a round-robin load balancer's does.
func (c *CA) Rotate(name string, addrs ...netip.Addr) {
	c.dns.records.setAddrs(name, &addrSet{addrs: slices.Clone(addrs), rotate: true, served: make(map[uint16]int)})
}

// SetTXT replaces the TXT records of a name, with none when there are no values.
func (c *CA) SetTXT(name string, values ...string) {
	c.dns.records.setTexts(name, func([]string) []string { return slices.Clone(values) })
}

// AddTXT adds a TXT record to a name. One with the same value is not added
// again.
func (c *CA) AddTXT(name, value string) {
	c.dns.records.setTexts(name, func(old []string) []string {
		if slices.Contains(old, value) {
			return old
		}
		return append(slices.Clone(old), value)
	})
}

// DeleteTXT removes the TXT record of a name that has the value, if there is
// one.
func (c *CA) DeleteTXT(name, value string) {
	c.dns.records.setTexts(name, func(old []string) []string {
		return slices.DeleteFunc(slices.Clone(old), func(v string) bool { return v == value })
	})
}

// TXT returns the values of the TXT records of a name. The slice belongs to the
// caller.
func (c *CA) TXT(name string) []string {
	r := c.dns.records
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.texts[normalName(name)])
}

// SetCNAME makes a name an alias of target; an empty target removes the alias.
// Answers have the target's records too.
func (c *CA) SetCNAME(name, target string) {
	r := c.dns.records
	r.mu.Lock()
	defer r.mu.Unlock()
	if target == "" {
		delete(r.aliases, normalName(name))
		return
	}
	r.aliases[normalName(name)] = normalName(target)
}

// SetRcode makes every question for exactly this name fail with an rcode (RFC
// 1035 section 4.1.1), such as 2 for SERVFAIL or 3 for NXDOMAIN. 0 ends it.
func (c *CA) SetRcode(name string, rcode int) {
	r := c.dns.records
	r.mu.Lock()
	defer r.mu.Unlock()
	if rcode == dns.RcodeSuccess {
		delete(r.rcodes, normalName(name))
		return
	}
	r.rcodes[normalName(name)] = rcode
}

// AddZone makes a name the apex of a zone, with SOA and NS records. Without it
// the last two labels of a name are its zone. All zones are served by DNSAddr.
func (c *CA) AddZone(name string) {
	r := c.dns.records
	r.mu.Lock()
	defer r.mu.Unlock()
	r.zones[normalName(name)] = true
}

// Queries returns the questions asked so far, oldest first; of very many, the
// latest tens of thousands. The slice belongs to the caller.
func (c *CA) Queries() []Query {
	r := c.dns.records
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.queries)
}

func (r *records) setAddrs(name string, set *addrSet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs[normalName(name)] = set
}

// setTexts replaces the values of a name by what update makes of them.
func (r *records) setTexts(name string, update func([]string) []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := normalName(name)
	if values := update(r.texts[key]); len(values) > 0 {
		r.texts[key] = values
	} else {
		delete(r.texts, key)
	}
}
