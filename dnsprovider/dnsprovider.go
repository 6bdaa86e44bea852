// Package dnsprovider solves ACME's DNS challenges with any libdns provider: dns-01
// (RFC 8555 §8.4), dns-account-01 and, experimental, dns-persist-01.
//
//	solver := &dnsprovider.Solver{Provider: provider}
//	issuer := &certwright.ACME{Solvers: map[string]certwright.Solver{"dns-01": solver}}
//	m, err := certwright.New(certwright.Config{Issuers: []certwright.Issuer{issuer}, AgreeToTerms: true})
//
// A Solver finds the zone, writes the record beside what others have at the name,
// waits until the zone's own servers show it, and deletes exactly what it added, also
// after a crash.
package dnsprovider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/keyed"
	"github.com/libdns/libdns"
)

// Provider is what a libdns provider has to be able to do. One that is a
// [libdns.RecordGetter] or a [libdns.ZoneLister] too is asked what there is; others'
// values at a name are safe only with a RecordGetter, or with a provider that adds
// to what is there, as libdns demands.
type Provider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Solver is a [certwright.Solver] and [certwright.Waiter] for dns-01, dns-account-01
// and dns-persist-01. It is used by pointer, may be the Solver of several types, and
// is safe for concurrent use; its fields must not be changed once it is in use.
// It makes at most four calls of the Provider at once, of a minute each.
type Solver struct {
	// Provider writes the records. nil is for dns-persist-01 alone: the record was
	// set by hand, and is only looked at.
	Provider Provider

	// Zone is the zone to write in, such as "example.com". Empty: it is found, by
	// the Provider's list of zones and by SOA records.
	Zone string

	// Target is the name to write at, instead of _acme-challenge.NAME, which is a
	// CNAME to it. Empty: CNAMEs are followed into zones that the Provider can edit.
	Target string

	// Resolvers, as host or host:port, are the only ones that are asked, whether a
	// record is there and for all else. A resolver that was asked before a record
	// is written may say for a while that there is none, as long as the zone's SOA
	// record has it; nothing is asked before when Zone and Target are set. Empty:
	// the zone's own servers are asked for records, which know at once, and the
	// system's resolvers for what leads to them.
	Resolvers []string

	TTL     time.Duration // of the records; 0: 2 minutes
	Delay   time.Duration // from Present to the first look; 0: none
	Timeout time.Duration // for how long records are looked for then; 0: 2 minutes; below 0: there is no look

	makeProbe sync.Once
	probe     prober

	names   keyed.Mutex // held by who looks at and changes a TXT record set
	calls   calls
	listing shared[[]zone]

	mu       sync.Mutex // guards the fields below
	zones    zoneList
	readings map[zone]*reading
	presents map[key]presentation
}

var (
	_ certwright.Solver = (*Solver)(nil)
	_ certwright.Waiter = (*Solver)(nil)
)

// prober looks things up in the DNS, as dnsprobe.Prober does.
type prober interface {
	Follow(ctx context.Context, name string) (path []string, err error)
	Zone(ctx context.Context, name string) (zone string, err error)
	Look(ctx context.Context, zone, name string) ([]dnsprobe.Answer, error)
}

// What a zero Solver waits and writes.
const (
	defaultTTL     = 2 * time.Minute
	defaultTimeout = 2 * time.Minute
)

func (s *Solver) ttl() time.Duration {
	if s.TTL == 0 {
		return defaultTTL
	}
	return s.TTL
}

// dns returns what looks things up. Check has said what is wrong with a resolver.
func (s *Solver) dns() prober {
	s.makeProbe.Do(func() {
		if s.probe == nil {
			var o dnsprobe.Options
			for _, r := range s.Resolvers {
				if hostport, err := dnsprobe.ParseResolver(r); err == nil {
					o.Resolvers = append(o.Resolvers, hostport)
				}
			}
			s.probe = dnsprobe.New(o)
		}
	})
	return s.probe
}

// Present writes the TXT record of ch, unless the Provider says that it is there, and
// saves before that what CleanUp needs. For dns-persist-01 a record that serves as well is left as
// it is; without a Provider Present looks whether there is one and says what differs.
func (s *Solver) Present(ctx context.Context, ch certwright.Challenge) error {
	name, serves, err := s.accept(ch)
	if err != nil {
		return err
	}
	if isNil(s.Provider) {
		return s.inspect(ctx, ch, name, serves)
	}
	if _, err := parseLedger(ch.State); err != nil {
		log(ch).Warn("what was known of a TXT record is lost", "err", err)
		ch.State = nil
	}
	warn := func(err error) { log(ch).Warn("looking for the zone of a TXT record goes on without", "err", err) }
	var failed problems
	for c := range s.places(ctx, name, warn, failed.add) {
		sure, err := s.write(ctx, &ch, c, serves)
		if err == nil {
			return nil
		}
		if c.name != name {
			err = fmt.Errorf("for %q: %w", name, err)
		}
		failed.add(err)
		if sure || ctx.Err() != nil {
			break
		}
		if err := s.noteFailed(ctx, &ch); err != nil {
			failed.add(err)
			break
		}
	}
	return failed.err()
}

// accept says what is wrong with a challenge for this Solver, else the name that its
// record is for and which values serve.
func (s *Solver) accept(ch certwright.Challenge) (name fqdn, serves func(value string) bool, err error) {
	if err := s.Check(ch.Type, nil); err != nil {
		return "", nil, err
	}
	if name, err = parseName(ch.DNSName); err != nil {
		return "", nil, fmt.Errorf("the challenge %s for %q has no name for a TXT record: %w", ch.Type, ch.Name, err)
	}
	if ch.DNSValue == "" {
		return "", nil, fmt.Errorf("the challenge %s for %q has no value for a TXT record", ch.Type, ch.Name)
	}
	serves = func(value string) bool { return value == ch.DNSValue }
	if ch.Type == typePersist {
		want, err := parsePersist(ch.DNSValue)
		if err != nil {
			return "", nil, fmt.Errorf("the challenge %s for %q has a value %q that is none: %w", ch.Type, ch.Name, clip(ch.DNSValue), err)
		}
		serves = func(value string) bool { text, _ := want.differs(value, time.Now()); return text == "" }
	}
	return name, serves, nil
}

// log is the challenge's logger, never nil.
func log(ch certwright.Challenge) *slog.Logger {
	if ch.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return ch.Log
}

// problems are errors that are told together.
type problems []error

func (p *problems) add(err error) { *p = append(*p, err) }

func (p problems) err() error {
	switch len(p) {
	case 0:
		return errors.New("there is no zone to write to")
	case 1:
		return p[0]
	}
	return p
}

func (p problems) Error() string {
	texts := make([]string, len(p))
	for i, err := range p {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns all of them.
func (p problems) Unwrap() []error { return p }
