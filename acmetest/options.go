package acmetest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// defaultLifetime is what Pebble gives a profile that does not say.
const defaultLifetime = 90 * 24 * time.Hour

// Options says how a CA behaves. The zero value is a CA that accepts any
// well-formed order, issues for 90 days and misbehaves in no way. New copies
// what it needs; a later change has no effect.
type Options struct {
	// ListenAddr is where the ACME API listens, host and port. Empty means
	// "127.0.0.1:0". The DNS server always picks a port on 127.0.0.1.
	ListenAddr string

	// HTTPPort and TLSPort are the ports the validator connects to for http-01
	// and for tls-alpn-01, on whatever address the name has. 0 picks a port
	// that is free at the time on 127.0.0.1; the CA itself never listens on
	// it. See CA.HTTPPort and CA.TLSPort.
	HTTPPort, TLSPort int

	// Profiles are the certificate profiles by name. Empty means one, called
	// "default", of 90 days. With several, an order that names none gets a
	// random one.
	Profiles map[string]Profile

	// EAB maps the key identifiers of external accounts to their MAC keys, in
	// base64url without padding (RFC 8555 section 7.3.4). When there is one, a
	// new account without a binding is refused.
	EAB map[string]string

	// BadNonces is the percentage, 0 to 99, of good nonces that are refused
	// with badNonce.
	BadNonces int

	// ReuseAuthorizations is the percentage, 0 to 100, of identifiers for which
	// a new order gets the account's valid authorization, where there is one.
	// At 0 it is never reused.
	ReuseAuthorizations int

	// AlternateRoots is the number of roots beyond the first. Each is offered
	// as an alternate chain (RFC 8555 section 7.4.2).
	AlternateRoots int

	// ChainLength is the number of intermediates in a chain. 0 means 1.
	ChainLength int

	// OCSPURL goes into each certificate as its OCSP responder. Empty means
	// none. The CA answers no OCSP request.
	OCSPURL string

	// Blocklist names names for which an order is refused with
	// rejectedIdentifier, as are the names below them and their wildcards.
	Blocklist []string

	// RetryAfter goes into the Retry-After header of an authorization or an
	// order that is being processed, rounded up to a second. 0 means no header.
	RetryAfter time.Duration

	// Lenient accepts what strict Pebble refuses because a real CA might
	// refuse it one day, such as a challenge response that is not "{}".
	Lenient bool

	// Middleware, when not nil, wraps the handler of the ACME API: to delay or
	// drop an answer, to answer 429 and so on. It is called once; the handler
	// it returns is called concurrently. Kind tells requests apart.
	Middleware func(http.Handler) http.Handler

	// Log, when not nil, is called with each line that Pebble and the HTTP
	// server log, one at a time, and never after Close has returned. It must
	// not call the CA.
	Log func(line string)

	// Records are the addresses of names, as if each was given to
	// CA.SetRecord.
	Records map[string][]netip.Addr
}

// Profile is a kind of certificate that an order can ask for.
type Profile struct {
	// Description is what the directory says of the profile.
	Description string

	// Lifetime is how long its certificates are valid, rounded up to a second.
	// 0 means 90 days.
	Lifetime time.Duration
}

// validate returns the first thing in o that cannot be. It never says what a
// MAC key is.
func (o *Options) validate() error {
	percents := []struct {
		field string
		value int
		most  int
	}{
		{"BadNonces", o.BadNonces, 99},
		{"ReuseAuthorizations", o.ReuseAuthorizations, 100},
		{"HTTPPort", o.HTTPPort, 65535},
		{"TLSPort", o.TLSPort, 65535},
		{"AlternateRoots", o.AlternateRoots, 100},
		{"ChainLength", o.ChainLength, 100},
	}
	for _, p := range percents {
		if p.value < 0 || p.value > p.most {
			return fmt.Errorf("checking option %q: %d is not in 0 to %d", p.field, p.value, p.most)
		}
	}
	for name, p := range o.Profiles {
		if name == "" {
			return errors.New("checking option \"Profiles\": empty name")
		}
		if p.Lifetime < 0 {
			return fmt.Errorf("checking option \"Profiles\": profile %q: negative lifetime", name)
		}
	}
	for kid, key := range o.EAB {
		if raw, err := base64.RawURLEncoding.DecodeString(key); kid == "" || err != nil || len(raw) == 0 {
			return fmt.Errorf("checking option \"EAB\": key identifier %q: not a base64url key", kid)
		}
	}
	if o.RetryAfter < 0 {
		return errors.New("checking option \"RetryAfter\": negative")
	}
	return nil
}

// seconds returns d in seconds, rounded up.
func seconds(d time.Duration) int {
	return int((d + time.Second - 1) / time.Second)
}
