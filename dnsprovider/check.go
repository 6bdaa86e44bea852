package dnsprovider

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/dnsprobe"
)

// The challenge types of a Solver.
const (
	typeDNS     = "dns-01"
	typeAccount = "dns-account-01"
	typePersist = "dns-persist-01"
)

// Check says what is wrong with the Solver for a challenge type, and for the names of
// a certificate when there are any. The error is a *[certwright.ConfigError] whose
// Field is one of the Solver's, such as "Resolvers[0]". It asks nobody.
func (s *Solver) Check(challengeType string, names []string) error {
	label := "_acme-challenge."
	switch challengeType {
	case typeDNS, typeAccount:
		if isNil(s.Provider) {
			return wrong("Provider", errors.New("it is nil; "+challengeType+" needs a libdns provider that writes the record"))
		}
	case typePersist:
		label = "_validation-persist."
	default:
		return wrong("Provider", fmt.Errorf("a dnsprovider.Solver does not solve %q; it is for %s, %s and %s", clip(challengeType), typeDNS, typeAccount, typePersist))
	}
	for i, r := range s.Resolvers {
		if _, err := dnsprobe.ParseResolver(r); err != nil {
			return wrong(fmt.Sprintf("Resolvers[%d]", i), err)
		}
	}
	switch {
	case s.TTL < 0:
		return wrong("TTL", fmt.Errorf("it is %v; write the TTL of the records, or 0 for %v", s.TTL, defaultTTL))
	case s.TTL%time.Second != 0:
		return wrong("TTL", fmt.Errorf("it is %v, not a number of whole seconds; write for example 120*time.Second", s.TTL))
	case s.Delay < 0:
		return wrong("Delay", fmt.Errorf("it is %v; write how long to wait before the first look, or 0", s.Delay))
	}
	return s.checkZone(label, names)
}

// checkZone says what is wrong with Zone and Target.
func (s *Solver) checkZone(label string, names []string) error {
	target, err := s.target()
	if err != nil {
		return err
	}
	z, err := s.zone()
	if err != nil || z == "" {
		return err
	}
	if target != "" {
		if !z.holds(target) {
			return wrong("Zone", fmt.Errorf("%q is no suffix of Target, %q; write the zone that the target is in, or leave it empty", s.Zone, s.Target))
		}
		return nil
	}
	for _, name := range names {
		n, err := parseName(strings.TrimPrefix(name, "*."))
		if err != nil {
			continue // an address; other solvers are for it
		}
		// An account's own label stands below, and may be a zone of its own.
		if full := fqdn(label) + n; !z.holds(full) && !strings.HasSuffix(string(z), "."+string(full)) {
			return wrong("Zone", fmt.Errorf("%q is no suffix of %q; write the zone that the name is in, set Target, or leave Zone empty: then it is found", s.Zone, name))
		}
	}
	return nil
}

// target is the normalised Target, empty when there is none.
func (s *Solver) target() (fqdn, error) {
	if s.Target == "" {
		return "", nil
	}
	name, err := parseName(s.Target)
	if err != nil {
		return "", wrong("Target", err)
	}
	return name, nil
}

// zone is the normalised Zone, empty when there is none.
func (s *Solver) zone() (zone, error) {
	if s.Zone == "" {
		return "", nil
	}
	name, err := parseName(s.Zone)
	if err != nil {
		return "", wrong("Zone", err)
	}
	return zone(name), nil
}

func wrong(field string, err error) error { return &certwright.ConfigError{Field: field, Err: err} }
