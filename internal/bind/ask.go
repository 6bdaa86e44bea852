package bind

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// exchange sends a message over TCP.
func (s *Server) exchange(i int, m *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Net: "tcp", Timeout: patience, TsigSecret: map[string]string{KeyName: Secret}}
	reply, _, err := c.Exchange(m, s.Addrs[i])
	return reply, err
}

// Query asks the i-th server, 0 being the primary, for records of a type, such as
// dns.TypeTXT.
func (s *Server) Query(t testing.TB, i int, name string, kind uint16) *dns.Msg {
	t.Helper()
	reply, err := s.exchange(i, new(dns.Msg).SetQuestion(dns.Fqdn(name), kind))
	if err != nil {
		t.Fatalf("asking %s for %s: %v", s.Addrs[i], name, err)
	}
	return reply
}

// TXT returns the sorted texts at name that the i-th server has.
func (s *Server) TXT(t testing.TB, i int, name string) (texts []string) {
	t.Helper()
	for _, rr := range s.Query(t, i, name, dns.TypeTXT).Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			text := ""
			for _, part := range txt.Txt {
				text += unescape(part)
			}
			texts = append(texts, text)
		}
	}
	slices.Sort(texts)
	return texts
}

// unescape returns the bytes of a text of the dns package's.
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		if n, err := strconv.ParseUint(s[i:min(i+3, len(s))], 10, 8); err == nil {
			out = append(out, byte(n))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Update adds records, lines of a zone file with whole names, to the zone at the
// primary, with the key.
func (s *Server) Update(t testing.TB, zone string, records ...string) {
	t.Helper()
	m := new(dns.Msg).SetUpdate(dns.Fqdn(zone))
	for _, line := range records {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		m.Insert([]dns.RR{rr})
	}
	m.SetTsig(KeyName, dns.Fqdn(Algorithm), 300, time.Now().Unix())
	reply, err := s.exchange(0, m)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = fmt.Errorf("it answers %s", dns.RcodeToString[reply.Rcode])
	}
	if err != nil {
		t.Fatalf("updating zone %q: %v", zone, err)
	}
}

// Refresh has the i-th server, from 1, get all zones as the primary has them now,
// and waits until it has them.
func (s *Server) Refresh(t testing.TB, i int) {
	t.Helper()
	bound := time.After(patience)
	for _, zone := range s.zones {
		want, err := s.serial(0, zone)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			if n%100 == 0 { // one may be lost on a transfer that is under way
				if _, err := s.exchange(i, new(dns.Msg).SetNotify(dns.Fqdn(zone))); err != nil {
					t.Fatalf("notifying %s: %v", s.Addrs[i], err)
				}
			}
			if got, err := s.serial(i, zone); err == nil && got-want < 1<<31 {
				break
			}
			select {
			case <-s.instances[i].ended:
				t.Fatalf("named at %s has ended", s.Addrs[i])
			case <-bound:
				t.Fatalf("named at %s does not get zone %q", s.Addrs[i], zone)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// serial is that of a zone at the i-th server.
func (s *Server) serial(i int, zone string) (uint32, error) {
	reply, err := s.exchange(i, new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA))
	if err != nil {
		return 0, err
	}
	if len(reply.Answer) == 1 {
		if soa, ok := reply.Answer[0].(*dns.SOA); ok && reply.Authoritative {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("%s has no zone %q yet: %s", s.Addrs[i], zone, dns.RcodeToString[reply.Rcode])
}
