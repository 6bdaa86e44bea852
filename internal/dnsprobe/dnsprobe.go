// Package dnsprobe looks things up in the DNS as a DNS challenge needs it: where
// CNAMEs lead, which zone a name is in, and what each of the zone's own servers has
// as TXT.
//
// Names go in and out as lower-case ASCII without the final dot.
package dnsprobe

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Options says whom a Prober asks. The zero value is useful.
type Options struct {
	// Resolvers are host:port, as ParseResolver returns them, and the only servers
	// that are asked. Empty: those of the system find things, and zones' own
	// servers are asked for TXT.
	Resolvers []string

	// Port is that of zones' own servers; "" means "53".
	Port string

	// System returns the system's resolvers as host:port; it is called for each
	// look-up. nil: those of /etc/resolv.conf, and 8.8.8.8 and 1.1.1.1 where there
	// are none.
	System func() []string
}

// Prober looks things up. It keeps nothing between calls, is safe for concurrent
// use, and leaves no goroutine behind.
type Prober struct {
	options Options

	// bound is how long one query of name to addr may take; network is "udp" or
	// "tcp".
	bound func(network, addr, name string) time.Duration
	slots chan struct{} // one taken by each query that is under way
}

// maxQueries is how many queries of a Prober are under way at once, each with a
// socket.
const maxQueries = 256

// New returns a Prober. It asks nothing.
func New(o Options) *Prober {
	if o.Port == "" {
		o.Port = "53"
	}
	if o.System == nil {
		o.System = system
	}
	return &Prober{options: o, bound: bound, slots: make(chan struct{}, maxQueries)}
}

func bound(network, _, _ string) time.Duration {
	if network == "tcp" {
		return 3 * time.Second
	}
	return 2 * time.Second
}

// canonical returns name in lower case with the final dot.
func canonical(name string) (string, error) {
	fqdn := dns.CanonicalName(name)
	if _, ok := dns.IsDomainName(fqdn); !ok || fqdn == "." || strings.ContainsAny(name, " \t\r\n") {
		return "", fmt.Errorf("%q is no DNS name", name)
	}
	return fqdn, nil
}

// plain returns a name of the wire in lower case without the final dot.
func plain(name string) string {
	return strings.TrimSuffix(dns.CanonicalName(name), ".")
}

// parent returns what is above a canonical name, "" above a single label.
func parent(name string) string {
	i, end := dns.NextLabel(name, 0)
	if end {
		return ""
	}
	return name[i:]
}

// joined returns one error with the text of all on one line, nil for none.
func joined(errs []error) error {
	var all error
	for _, err := range errs {
		switch {
		case err == nil:
		case all == nil:
			all = err
		default:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}
