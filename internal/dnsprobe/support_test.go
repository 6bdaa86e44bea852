package dnsprobe_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/fakedns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a fake network with a resolver at 127.0.0.1. A query of its Probers has a minute, so that a busy machine breaks nothing, except
// what the test calls late: that is given up at once.
type world struct {
	*fakedns.Net
	resolver *fakedns.Server
	late     func(network, addr, name string) bool
}

func newWorld(t *testing.T, hosts ...string) *world {
	n := fakedns.New(t, append([]string{"127.0.0.1"}, hosts...)...)
	return &world{Net: n, resolver: n.Server("127.0.0.1"), late: func(_, _, _ string) bool { return false }}
}

// prober returns one whose system resolvers are those at the hosts, 127.0.0.1 if
// there are none.
func (w *world) prober(hosts ...string) *dnsprobe.Prober {
	return w.proberWith(dnsprobe.Options{System: func() []string { return w.addrs(hosts) }})
}

// through returns a Prober that asks only the resolvers at the hosts.
func (w *world) through(hosts ...string) *dnsprobe.Prober {
	return w.proberWith(dnsprobe.Options{
		Resolvers: w.addrs(hosts),
		System:    func() []string { panic("the system's resolvers were asked for") },
	})
}

func (w *world) proberWith(o dnsprobe.Options) *dnsprobe.Prober {
	o.Port = w.Port
	p := dnsprobe.New(o)
	p.Bound(func(network, addr, name string) time.Duration {
		if w.late(network, addr, name) {
			return time.Millisecond
		}
		return time.Minute
	})
	return p
}

func (w *world) addrs(hosts []string) []string {
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	var addrs []string
	for _, h := range hosts {
		addrs = append(addrs, w.Server(h).Addr())
	}
	return addrs
}

// silent has a server answer nothing over the networks, which is given up at once.
func (w *world) silent(s *fakedns.Server, networks ...string) {
	is := func(network string) bool {
		for _, n := range networks {
			if n == network {
				return true
			}
		}
		return false
	}
	s.Hook(func(x *fakedns.Exchange) {
		if is(x.Proto) {
			x.Reply = nil
		}
	})
	before := w.late
	w.late = func(network, addr, name string) bool {
		return addr == s.Addr() && is(network) || before(network, addr, name)
	}
}
