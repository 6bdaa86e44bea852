package dnsprobe_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/internal/fakedns"
)

// protos returns over what the queries for TXT came in.
func protos(s *fakedns.Server) []string {
	var list []string
	for _, q := range s.Queries() {
		if q.Type == dns.TypeTXT {
			list = append(list, q.Proto)
		}
	}
	return list
}

func TestTCPIsUsedAfterUDP(t *testing.T) {
	for _, c := range []struct {
		what  string
		setUp func(*world, *fakedns.Server)
		want  []string
	}{
		{"all is well", func(*world, *fakedns.Server) {}, []string{"udp"}},
		{"cut", func(_ *world, s *fakedns.Server) {
			s.Hook(func(x *fakedns.Exchange) {
				if x.Proto == "udp" {
					x.Reply.Truncated, x.Reply.Answer = true, nil
				}
			})
		}, []string{"udp", "tcp"}},
		{"cut, though all is there", func(_ *world, s *fakedns.Server) {
			s.Hook(func(x *fakedns.Exchange) { x.Reply.Truncated = x.Proto == "udp" })
		}, []string{"udp", "tcp"}},
		{"cut in the middle of a record", func(_ *world, s *fakedns.Server) {
			s.Hook(func(x *fakedns.Exchange) {
				if x.Proto == "udp" {
					x.Reply.Truncated = true
					b, _ := x.Reply.Pack()
					x.Raw = b[:len(b)-3]
				}
			})
		}, []string{"udp", "tcp"}},
		{"TCP only", func(w *world, s *fakedns.Server) { w.silent(s, "udp") }, []string{"udp", "tcp"}},
		{"UDP only", func(w *world, s *fakedns.Server) { w.silent(s, "tcp") }, []string{"udp"}},
		{"more than it may send", func(_ *world, s *fakedns.Server) {
			s.Hook(func(x *fakedns.Exchange) {
				x.Reply.Extra = append(x.Reply.Extra, &dns.TXT{
					Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET},
					Txt: slices.Repeat([]string{strings.Repeat("x", 250)}, 6),
				})
				x.Raw, _ = x.Reply.Pack()
			})
		}, []string{"udp"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w, servers := zoneAt(t, "127.0.0.2")
			servers[0].AddTXT(txtName, "v")
			c.setUp(w, servers[0])
			a := look(t, w.prober())
			if a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) {
				t.Errorf("got %+v", a)
			}
			// What is given up at once may not have come in before that.
			if got := protos(servers[0]); !slices.Equal(got, c.want) && !(c.what == "TCP only" && slices.Contains(got, "tcp")) {
				t.Errorf("asked over %q, want %q", got, c.want)
			}
		})
	}
}

func TestWhatIsCutIsAskedForWhereItCameFrom(t *testing.T) {
	w := newWorld(t, "127.0.0.2", "127.0.0.3")
	dead, alive := w.Server("127.0.0.2"), w.Server("127.0.0.3")
	w.resolver.Zone("example.com", "@ NS ns", "ns A 127.0.0.2", "ns A 127.0.0.3")
	alive.Zone("example.com", "_acme-challenge TXT v")
	alive.Hook(func(x *fakedns.Exchange) { x.Reply.Truncated = x.Proto == "udp" })
	w.silent(dead, "udp", "tcp")
	var asked []string
	before := w.late
	w.late = func(network, addr, name string) bool {
		if name == txtName {
			asked = append(asked, network+" "+addr)
		}
		return before(network, addr, name)
	}
	if a := look(t, w.prober()); a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) {
		t.Errorf("got %+v", a)
	}
	if want := []string{"udp " + dead.Addr(), "udp " + alive.Addr(), "tcp " + alive.Addr()}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestALargeAnswerComesOverTCP(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	var want []string
	for i := range 200 {
		want = append(want, strings.Repeat(string(rune('a'+i%26)), 100+i))
		servers[0].AddTXT(txtName, want[i])
	}
	if a := look(t, w.prober()); a[0].Err != nil || !slices.Equal(a[0].Values, want) {
		t.Errorf("got %d values, %v", len(a[0].Values), a[0].Err)
	}
	if got := protos(servers[0]); !slices.Equal(got, []string{"udp", "tcp"}) {
		t.Errorf("asked over %q", got)
	}
}

func TestAServerWithoutEDNSIsAskedWithoutIt(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	servers[0].AddTXT(txtName, "v")
	for _, code := range []int{dns.RcodeFormatError, dns.RcodeNotImplemented} {
		servers[0].Hook(func(x *fakedns.Exchange) {
			if x.Msg.IsEdns0() != nil {
				x.Raw = pack(new(dns.Msg).SetRcode(x.Msg, code))
			}
		})
		if a := look(t, w.prober()); a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) {
			t.Errorf("%s: got %+v", dns.RcodeToString[code], a)
		}
	}
}

// wrong are replies that answer nothing.
var wrong = map[string]func(*dns.Msg) []byte{
	"another ID":       func(r *dns.Msg) []byte { r.Id++; return pack(r) },
	"another question": func(r *dns.Msg) []byte { r.Question[0].Name = "x.example.com."; return pack(r) },
	"another type":     func(r *dns.Msg) []byte { r.Question[0].Qtype = dns.TypeA; return pack(r) },
	"another class":    func(r *dns.Msg) []byte { r.Question[0].Qclass = dns.ClassCHAOS; return pack(r) },
	"no question":      func(r *dns.Msg) []byte { r.Question = nil; return pack(r) },
	"two questions":    func(r *dns.Msg) []byte { r.Question = append(r.Question, r.Question[0]); return pack(r) },
	"a query":          func(r *dns.Msg) []byte { r.Response = false; return pack(r) },
	"an update":        func(r *dns.Msg) []byte { r.Opcode = dns.OpcodeUpdate; return pack(r) },
	"nothing":          func(*dns.Msg) []byte { return []byte{} },
	"less than a header": func(r *dns.Msg) []byte {
		return pack(r)[:11]
	},
	"only a header": func(r *dns.Msg) []byte { return pack(r)[:12] },
	"without its end": func(r *dns.Msg) []byte {
		b := pack(r)
		return b[:len(b)-3]
	},
	"records are missing": func(r *dns.Msg) []byte {
		r.Answer, r.Ns, r.Extra = nil, nil, nil
		b := pack(r)
		binary.BigEndian.PutUint16(b[6:], 1)
		return b
	},
	"garbage": func(r *dns.Msg) []byte { return []byte(strings.Repeat("garbage", 10)) },
	"a name that points to itself": func(r *dns.Msg) []byte {
		b := pack(r)
		return append(b[:12], 0xc0, 12, 0, 16, 0, 1)
	},
}

// onWire leaves the zone's server as it is for the resolver.
func onWire(f func(*fakedns.Exchange)) func(*fakedns.Exchange) {
	return func(x *fakedns.Exchange) {
		if x.Proto != "recursion" {
			f(x)
		}
	}
}

func pack(r *dns.Msg) []byte {
	b, err := r.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func TestWhatIsNoAnswerDoesNotCount(t *testing.T) {
	for what, broken := range wrong {
		t.Run(what, func(t *testing.T) {
			w, servers := zoneAt(t, "127.0.0.2")
			servers[0].AddTXT(txtName, "lie")
			w.late = func(_, addr, _ string) bool { return addr == servers[0].Addr() }
			servers[0].Hook(onWire(func(x *fakedns.Exchange) { x.Raw = broken(x.Reply) }))
			a := look(t, w.prober())
			if a[0].Err == nil || a[0].Values != nil || !strings.Contains(a[0].Err.Error(), "no answer") {
				t.Errorf("got %+v", a)
			}
		})
	}
}

// A stranger's packet comes before the answer.
func TestTheAnswerAfterSomethingElseCounts(t *testing.T) {
	for what, broken := range wrong {
		t.Run(what, func(t *testing.T) {
			w, servers := zoneAt(t, "127.0.0.2")
			servers[0].AddTXT(txtName, "v")
			servers[0].Hook(func(x *fakedns.Exchange) { x.First = [][]byte{broken(x.Reply.Copy())} })
			if a := look(t, w.prober()); a[0].Err != nil || !slices.Equal(a[0].Values, []string{"v"}) {
				t.Errorf("got %+v", a)
			}
			if got := protos(servers[0]); !slices.Equal(got, []string{"udp"}) {
				t.Errorf("asked over %q", got)
			}
		})
	}
}

func TestARefusalMayBeAHeaderOnly(t *testing.T) {
	w, servers := zoneAt(t, "127.0.0.2")
	servers[0].Hook(onWire(func(x *fakedns.Exchange) {
		x.Reply.Rcode = dns.RcodeRefused
		x.Raw = pack(x.Reply)[:12]
	}))
	if a := look(t, w.prober()); a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "REFUSED") {
		t.Errorf("got %+v", a)
	}
}

// Over UDP the answer is cut, so that all of this is read.
func TestBrokenTCPStreamsEnd(t *testing.T) {
	endless := func(b []byte) func(io.Writer) {
		return func(w io.Writer) {
			for {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}
	}
	for what, stream := range map[string]func(io.Writer){
		"messages without end":     endless(slices.Concat([]byte{0, 12}, make([]byte, 12))),
		"large messages":           endless(slices.Concat([]byte{255, 255}, make([]byte, 65535))),
		"empty messages":           endless(make([]byte, 1000)),
		"half a length":            func(w io.Writer) { _, _ = w.Write([]byte{0}) },
		"more announced than sent": func(w io.Writer) { _, _ = w.Write([]byte{1, 0, 1, 2, 3}) },
		"nothing":                  func(io.Writer) {},
	} {
		t.Run(what, func(t *testing.T) {
			w, servers := zoneAt(t, "127.0.0.2")
			servers[0].Hook(func(x *fakedns.Exchange) {
				x.Reply.Truncated = true
				x.Stream = stream
			})
			if a := look(t, w.prober()); a[0].Err == nil || a[0].Values != nil {
				t.Errorf("got %+v", a)
			}
		})
	}
	t.Run("a message that never ends", func(t *testing.T) {
		w, servers := zoneAt(t, "127.0.0.2")
		w.late = func(network, addr, _ string) bool { return network == "tcp" && addr == servers[0].Addr() }
		servers[0].Hook(func(x *fakedns.Exchange) {
			x.Reply.Truncated = true
			x.Stream = func(w io.Writer) {
				_, _ = w.Write([]byte{255, 255, 1})
				_, _ = io.Copy(io.Discard, w.(net.Conn)) // until the client leaves
			}
		})
		if a := look(t, w.prober()); a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "no answer within") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("cut over TCP too", func(t *testing.T) {
		w, servers := zoneAt(t, "127.0.0.2")
		servers[0].Hook(func(x *fakedns.Exchange) { x.Reply.Truncated = true })
		if a := look(t, w.prober()); a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "cut") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("the connection is closed", func(t *testing.T) {
		w, servers := zoneAt(t, "127.0.0.2")
		servers[0].Hook(func(x *fakedns.Exchange) { x.Reply.Truncated, x.Hangup = true, true })
		if a := look(t, w.prober()); a[0].Err == nil {
			t.Errorf("got %+v", a)
		}
	})
}
