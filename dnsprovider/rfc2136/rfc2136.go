// Package rfc2136 writes TXT records with dynamic updates (RFC 2136), signed with a
// TSIG key (RFC 8945), as BIND, Knot, PowerDNS and others take them, for the Solver
// of package dnsprovider. It is libdns's module for it with what that leaves out: the
// configuration is checked, and a refusal says what to do about it.
package rfc2136

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
	"github.com/miekg/dns"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/dnsprobe"
)

// Config is how to reach the zones' primary. It prints without the secret.
type Config struct {
	Server    string // host[:port], such as "192.0.2.1", "[2001:db8::1]:53" or "ns1.example.com"; the port is 53 when there is none
	KeyName   string // of the TSIG key; each update is signed
	Algorithm string // of the key, such as "hmac-sha512"; empty: hmac-sha256
	Secret    string // of the key, in base64
}

// Format implements [fmt.Formatter]. It prints no secret whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	secret := "none"
	if c.Secret != "" {
		secret = "set"
	}
	fmt.Fprintf(f, "rfc2136.Config {Server: %q, KeyName: %q, Algorithm: %q, Secret: %s}", c.Server, c.KeyName, c.Algorithm, secret)
}

// MarshalText is how JSON and log/slog print it: as Format does.
func (c Config) MarshalText() ([]byte, error) { return fmt.Append(nil, c), nil }

// Provider adds and deletes records with dynamic updates. It is safe for concurrent
// use, and keeps no connection.
type Provider struct{ module rfc2136.Provider }

// New checks c, and asks the server nothing. Its error is a
// [*certwright.ConfigError].
func New(c Config) (*Provider, error) {
	server, err := address(c.Server)
	if err != nil {
		return nil, wrong("Server", err)
	}
	switch _, ok := dns.IsDomainName(c.KeyName); {
	case c.KeyName == "" && c.Secret == "":
		return nil, wrong("KeyName", errors.New("it is empty; updates without a TSIG key are not supported: give the server a key, such as tsig-keygen prints"))
	case c.KeyName == "":
		return nil, wrong("KeyName", errors.New("it is empty, but there is a Secret; a key's name is part of it, as the server's configuration has it"))
	case !ok || strings.ContainsFunc(c.KeyName, noKeyName):
		return nil, wrong("KeyName", fmt.Errorf("%q is no name of a key", c.KeyName))
	}
	algorithm, err := algorithm(c.Algorithm)
	if err != nil {
		return nil, wrong("Algorithm", err)
	}
	if raw, err := base64.StdEncoding.DecodeString(c.Secret); err != nil || len(raw) == 0 || strings.ContainsAny(c.Secret, "\r\n") {
		// The cause would have some of it.
		return nil, wrong("Secret", errors.New("it is not base64, in one line with its padding, as the server's configuration has it"))
	}
	return &Provider{module: rfc2136.Provider{Server: server, KeyName: dns.CanonicalName(c.KeyName), KeyAlg: algorithm, Key: c.Secret}}, nil
}

func noKeyName(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\"/`, r) }

func wrong(field string, err error) error {
	return &certwright.ConfigError{Field: "Config." + field, Err: fmt.Errorf("rfc2136: %w", err)}
}

// address returns host:port of a server.
func address(s string) (string, error) {
	if s == "" {
		return "", errors.New("it is empty; set it to the zones' primary")
	}
	host, port, err := dnsprobe.SplitServer(s)
	if err != nil {
		return "", fmt.Errorf("%q is no host[:port]: %w", s, err)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(ip.String(), port), nil
	}
	bad := strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
	if _, ok := dns.IsDomainName(host); !ok || bad || strings.Trim(host, ".") == "" {
		return "", fmt.Errorf("%q is no host[:port]; there is one server, without scheme or path", s)
	}
	return net.JoinHostPort(host, port), nil
}

// algorithm returns the name on the wire.
func algorithm(s string) (string, error) {
	if s == "" {
		return dns.HmacSHA256, nil
	}
	short := strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(strings.TrimSuffix(s, ".")))
	switch short = strings.TrimPrefix(short, "hmac"); short {
	case "sha1", "sha224", "sha256", "sha384", "sha512":
		return "hmac-" + short + ".", nil
	case "md5", "md5.sigalg.reg.int":
		return "", fmt.Errorf("%q is broken, and not supported any more; give the server a key of hmac-sha256", s)
	}
	return "", fmt.Errorf("%q is none; there are hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384 and hmac-sha512", s)
}

// String is the provider's name.
func (p *Provider) String() string { return "rfc2136" }

// Format implements [fmt.Formatter]. It prints no secret whatever the verb.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// AppendRecords adds records to the zone, in one update, and returns them. One that
// is there already counts as added.
func (p *Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, "adding records to", zone, func() ([]libdns.Record, error) { return p.module.AppendRecords(ctx, zone, records) })
}

// DeleteRecords deletes records of the same name, type and text, in one update, and
// returns them. One that is not there counts as deleted.
func (p *Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, "deleting records from", zone, func() ([]libdns.Record, error) { return p.module.DeleteRecords(ctx, zone, records) })
}

// update sends an update, again when the server does not answer: the module waits
// for 2 seconds, and what was carried out already does no harm.
func (p *Provider) update(ctx context.Context, step, zone string, send func() ([]libdns.Record, error)) ([]libdns.Record, error) {
	const attempts = 4
	for attempt := 1; ; attempt++ {
		out, err := send()
		if err == nil {
			return out, nil
		}
		failed := fmt.Errorf("rfc2136: %s zone %q at %s: %w", step, strings.TrimSuffix(zone, "."), p.module.Server, p.explain(ctx, zone, err))
		if !unanswered(err) || attempt == attempts {
			return nil, failed
		}
		select {
		case <-time.After(backoff.Policy{First: time.Second / 4, Jitter: 0.5}.Delay(attempt, rand.Float64())):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; %w", failed, context.Cause(ctx))
		}
	}
}
