package fakedns

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// zone is what a server is authoritative for: canonical names and their records.
type zone struct {
	apex    string
	records map[string][]dns.RR
}

// parse reads the lines of a zone file whose names are relative to origin.
func parse(origin string, lines []string) []dns.RR {
	var rrs []dns.RR
	zp := dns.NewZoneParser(strings.NewReader(strings.Join(lines, "\n")+"\n"), origin, "")
	zp.SetDefaultTTL(300)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rr.Header().Name = dns.CanonicalName(rr.Header().Name)
		rrs = append(rrs, rr)
	}
	if err := zp.Err(); err != nil {
		panic(fmt.Sprintf("fakedns: reading %q: %v", lines, err))
	}
	return rrs
}

func newZone(apex string, lines []string) *zone {
	z := &zone{apex: apex, records: make(map[string][]dns.RR)}
	rrs := parse(apex, lines)
	if !slices.ContainsFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA }) {
		rrs = append(rrs, parse(apex, []string{"@ SOA ns1 hostmaster 1 3600 600 86400 60"})...)
	}
	for _, rr := range rrs {
		z.add(rr)
	}
	return z
}

func (z *zone) add(rr dns.RR) {
	z.remove(rr)
	name := rr.Header().Name
	z.records[name] = append(z.records[name], rr)
}

func (z *zone) remove(rr dns.RR) {
	z.drop(rr.Header().Name, func(old dns.RR) bool { return dns.IsDuplicate(old, rr) })
}

func (z *zone) drop(name string, which func(dns.RR) bool) {
	left := slices.DeleteFunc(slices.Clone(z.records[name]), which)
	if z.records[name] = left; len(left) == 0 {
		delete(z.records, name)
	}
}

// at returns copies of the records of one type at name, with owner as their owner.
func (z *zone) at(name, owner string, qtype uint16) []dns.RR {
	var rrs []dns.RR
	for _, rr := range z.records[name] {
		if rr.Header().Rrtype == qtype || qtype == dns.TypeANY {
			rr = dns.Copy(rr)
			rr.Header().Name = owner
			rrs = append(rrs, rr)
		}
	}
	return rrs
}

// exists reports whether there is a record at name or below it.
func (z *zone) exists(name string) bool {
	for have := range z.records {
		if dns.IsSubDomain(name, have) {
			return true
		}
	}
	return false
}

// ancestors lists the names above name in the zone, the apex first, without name.
func (z *zone) ancestors(name string) []string {
	var names []string
	for name != z.apex && name != "." {
		name = parentOf(name)
		names = append(names, name)
	}
	slices.Reverse(names)
	return names
}

func parentOf(name string) string {
	i, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[i:]
}

// lookup puts into r what the zone has for one name (RFC 1034 §4.3.2), and returns
// the name to go on with after a CNAME, "" without one.
func (z *zone) lookup(r *dns.Msg, name string, qtype uint16) (next string) {
	above := z.ancestors(name)
	for _, cut := range append(slices.Clone(above), name) {
		if ns := z.at(cut, cut, dns.TypeNS); cut != z.apex && len(ns) > 0 && (cut != name || qtype != dns.TypeDS) {
			r.Authoritative = len(r.Answer) > 0 // AA is about the first name (RFC 1035 §4.1.1)
			r.Ns = append(r.Ns, ns...)
			for _, rr := range ns {
				z.glue(r, dns.CanonicalName(rr.(*dns.NS).Ns))
			}
			return ""
		}
	}
	for _, owner := range above {
		if dnames := z.at(owner, owner, dns.TypeDNAME); len(dnames) > 0 {
			target := strings.TrimSuffix(name, owner) + dnames[0].(*dns.DNAME).Target
			if _, ok := dns.IsDomainName(target); !ok {
				r.Rcode, r.Answer = dns.RcodeYXDomain, append(r.Answer, dnames[0]) // RFC 6672 §2.2
				return ""
			}
			hdr := dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 300}
			r.Answer = append(r.Answer, dnames[0], &dns.CNAME{Hdr: hdr, Target: target})
			return dns.CanonicalName(target)
		}
	}
	source := name
	if !z.exists(name) {
		source = z.wildcard(above)
	}
	if source == "" {
		r.Rcode = dns.RcodeNameError
		r.Ns = append(r.Ns, z.soa())
		return ""
	}
	return z.answer(r, source, name, qtype)
}

// wildcard returns the wildcard name at the closest of the names that exist.
func (z *zone) wildcard(above []string) string {
	for _, encloser := range slices.Backward(above) {
		if star := "*." + strings.TrimPrefix(encloser, "."); len(z.records[star]) > 0 {
			return star
		}
		if z.exists(encloser) {
			break
		}
	}
	return ""
}

func (z *zone) answer(r *dns.Msg, source, name string, qtype uint16) (next string) {
	if cname := z.at(source, name, dns.TypeCNAME); len(cname) > 0 && qtype != dns.TypeCNAME && qtype != dns.TypeANY {
		r.Answer = append(r.Answer, cname...)
		return dns.CanonicalName(cname[0].(*dns.CNAME).Target)
	}
	rrs := z.at(source, name, qtype)
	if len(rrs) == 0 {
		r.Ns = append(r.Ns, z.soa())
	}
	r.Answer = append(r.Answer, rrs...)
	return ""
}

func (z *zone) glue(r *dns.Msg, host string) {
	r.Extra = append(r.Extra, z.at(host, host, dns.TypeA)...)
	r.Extra = append(r.Extra, z.at(host, host, dns.TypeAAAA)...)
}

// soa is the SOA record of a negative answer: its TTL is how long that holds
// (RFC 2308 §5).
func (z *zone) soa() dns.RR {
	soa := z.at(z.apex, z.apex, dns.TypeSOA)[0].(*dns.SOA)
	soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	return soa
}
