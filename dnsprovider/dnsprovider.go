// Package dnsprovider solves ACME's DNS challenges with any libdns provider.
package dnsprovider

import (
	"time"

	"github.com/libdns/libdns"
)

// Provider is what a libdns provider has to be able to do.
type Provider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Solver writes the TXT records of DNS challenges with a Provider.
type Solver struct {
	Provider Provider // nil: dns-persist-01 by hand

	Zone      string   // the zone to write in; empty: it is found
	Target    string   // write here instead of _acme-challenge.NAME; empty: CNAMEs are followed
	Resolvers []string // host[:port]; if set, only these are asked

	TTL     time.Duration // of the records; 0: 2 minutes
	Delay   time.Duration // before the first look; 0: none
	Timeout time.Duration // for how long is looked for a record; 0: 2 minutes; below 0: there is no look
}
