package acmetest

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxQueries is how many queries are kept; the oldest go first.
	maxQueries = 1 << 16

	// maxAliases is how many CNAME records in a row are followed.
	maxAliases = 8

	// maxText is the length in bytes of one string of a TXT record (RFC 1035
	// section 3.3).
	maxText = 255
)

// Query is a question the DNS server was asked.
type Query struct {
	Name             string    // lower case, without the final dot
	Type             string    // "A", "TXT", ...
	Network          string    // "udp" or "tcp"
	RecursionDesired bool      // the RD bit
	Time             time.Time // when it was answered
}

type recordsByName = map[string][]netip.Addr

// addrSet is the addresses of a name.
type addrSet struct {
	addrs  []netip.Addr
	rotate bool
	served map[uint16]int // answers so far by type, when rotate
}

// records is what the DNS server knows. Names are normalised. It is safe for
// concurrent use.
type records struct {
	mu      sync.Mutex // guards all below
	addrs   map[string]*addrSet
	texts   map[string][]string
	aliases map[string]string
	rcodes  map[string]int
	zones   map[string]bool
	queries []Query
}

func newRecords(addrs recordsByName) *records {
	r := &records{
		addrs:   make(map[string]*addrSet),
		texts:   make(map[string][]string),
		aliases: make(map[string]string),
		rcodes:  make(map[string]int),
		zones:   make(map[string]bool),
	}
	for name, list := range addrs {
		r.addrs[normalName(name)] = &addrSet{addrs: slices.Clone(list)}
	}
	return r
}

// log keeps a query.
func (r *records) log(q Query) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queries) == maxQueries {
		r.queries = slices.Delete(r.queries, 0, maxQueries/2)
	}
	r.queries = append(r.queries, q)
}

// lookup returns the answer and authority sections and the rcode for a question.
func (r *records) lookup(question string, qtype uint16) (answer, authority []dns.RR, rcode int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := normalName(question)
	owner := question // the answer keeps the question's case
	for range maxAliases {
		if rcode := r.rcodes[name]; rcode != dns.RcodeSuccess {
			return answer, []dns.RR{r.soaLocked(name)}, rcode
		}
		target := r.aliases[r.keyLocked(name)]
		if target == "" || qtype == dns.TypeCNAME {
			break
		}
		answer = append(answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: dns.Fqdn(target)})
		name, owner = target, dns.Fqdn(target)
	}
	found := r.typeLocked(name, owner, qtype)
	if len(found) == 0 {
		return answer, []dns.RR{r.soaLocked(name)}, dns.RcodeSuccess
	}
	return append(answer, found...), nil, dns.RcodeSuccess
}

// typeLocked returns the records of one type that a name has, under the name
// owner.
func (r *records) typeLocked(name, owner string, qtype uint16) []dns.RR {
	zone, key := r.zoneLocked(name), r.keyLocked(name)
	var found []dns.RR
	switch qtype {
	case dns.TypeA, dns.TypeAAAA:
		for _, addr := range r.addrsLocked(name, qtype) {
			if ip := net.IP(addr.AsSlice()); qtype == dns.TypeA {
				found = append(found, &dns.A{Hdr: header(owner, qtype), A: ip})
			} else {
				found = append(found, &dns.AAAA{Hdr: header(owner, qtype), AAAA: ip})
			}
		}
	case dns.TypeTXT:
		for _, text := range r.texts[key] {
			found = append(found, &dns.TXT{Hdr: header(owner, qtype), Txt: chunks(text)})
		}
	case dns.TypeCNAME:
		if target := r.aliases[key]; target != "" {
			found = append(found, &dns.CNAME{Hdr: header(owner, qtype), Target: dns.Fqdn(target)})
		}
	case dns.TypeSOA:
		if name == zone {
			found = append(found, r.soaLocked(name))
		}
	case dns.TypeNS:
		if name == zone {
			found = append(found, &dns.NS{Hdr: header(owner, qtype), Ns: dns.Fqdn("ns." + zone)})
		}
	}
	return found
}

// addrsLocked returns the addresses of a name that fit a type of record. A name
// that nothing was said of has 127.0.0.1, unless it has a label of a service.
func (r *records) addrsLocked(name string, qtype uint16) []netip.Addr {
	set := r.addrs[r.keyLocked(name)]
	if set == nil {
		if qtype == dns.TypeA && !strings.Contains("."+name, "._") {
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		}
		return nil
	}
	var fit []netip.Addr
	for _, addr := range set.addrs {
		if addr = addr.Unmap().WithZone(""); addr.Is4() == (qtype == dns.TypeA) {
			fit = append(fit, addr)
		}
	}
	if !set.rotate || len(fit) == 0 {
		return fit
	}
	first := set.served[qtype] % len(fit)
	set.served[qtype]++
	return append(slices.Clone(fit[first:]), fit[:first]...)
}

// zoneLocked returns the zone a name is in: the deepest that was added, else its
// last two labels.
func (r *records) zoneLocked(name string) string {
	for zone := name; zone != ""; zone = parent(zone) {
		if r.zones[zone] || dns.CountLabel(zone) <= 2 {
			return zone
		}
	}
	return ""
}

func (r *records) soaLocked(name string) dns.RR {
	zone := r.zoneLocked(name)
	return &dns.SOA{
		Hdr:     header(dns.Fqdn(zone), dns.TypeSOA),
		Ns:      dns.Fqdn("ns." + zone),
		Mbox:    dns.Fqdn("hostmaster." + zone),
		Serial:  1,
		Refresh: 3600,
		Retry:   600,
		Expire:  86400,
	}
}

// keyLocked returns the name whose records a name has: its own, else those of
// the nearest wildcard above it (RFC 4592).
func (r *records) keyLocked(name string) string {
	if r.existsLocked(name) {
		return name
	}
	for above := parent(name); above != ""; above = parent(above) {
		if wildcard := "*." + above; r.existsLocked(wildcard) {
			return wildcard
		}
	}
	return name
}

// existsLocked reports whether a name was given a record.
func (r *records) existsLocked(name string) bool {
	return r.addrs[name] != nil || len(r.texts[name]) > 0 || r.aliases[name] != ""
}

// parent returns name without its first label, in which a dot may be escaped.
func parent(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end {
		return ""
	}
	return name[next:]
}

// header returns a record header that lets nobody cache.
func header(owner string, rtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rtype, Class: dns.ClassINET}
}

// chunks splits text into the strings of a TXT record.
func chunks(text string) []string {
	list := []string{}
	for len(text) > maxText {
		list = append(list, text[:maxText])
		text = text[maxText:]
	}
	return append(list, text)
}
