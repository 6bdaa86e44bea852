// Package cloudflare writes TXT records at Cloudflare, for the Solver of package
// dnsprovider. It is libdns's module for Cloudflare with what that leaves out: it
// tries again what may be tried again, reports each failure, and says what to do
// about it.
package cloudflare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"

	"github.com/certwright/certwright"
)

// Config is how to reach Cloudflare. It prints without the tokens.
type Config struct {
	// APIToken is an API token (not the global API key, and without "Bearer")
	// with the permission Zone:DNS:Edit for the zones. Without a ZoneToken it
	// needs Zone:Zone:Read too.
	APIToken string

	// ZoneToken is an API token with the permission Zone:Zone:Read, which then
	// finds the zones in place of APIToken. Empty: there is none.
	ZoneToken string

	// HTTPClient sends the requests. nil: one on http.DefaultTransport. A call is
	// bounded by its context in either case.
	HTTPClient *http.Client
}

// Format implements [fmt.Formatter]. It prints no token whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "cloudflare.Config {APIToken: %s, ZoneToken: %s}", presence(c.APIToken), presence(c.ZoneToken))
}

// MarshalText is how JSON and log/slog print it: as Format does.
func (c Config) MarshalText() ([]byte, error) { return fmt.Append(nil, c), nil }

func presence(secret string) string {
	if secret == "" {
		return "none"
	}
	return "set"
}

// Provider adds and deletes records at Cloudflare. It is safe for concurrent use,
// and keeps no connection or goroutine of its own.
type Provider struct {
	conf Config // with an HTTPClient

	mu    sync.Mutex // guards zones
	zones map[string]json.RawMessage
}

// New checks c, and asks Cloudflare nothing. Its error is a
// [*certwright.ConfigError].
func New(c Config) (*Provider, error) {
	if c.APIToken == "" {
		return nil, &certwright.ConfigError{
			Field: "Config.APIToken",
			Err:   errors.New("cloudflare: it is empty; make an API token with the permissions Zone:Zone:Read and Zone:DNS:Edit"),
		}
	}
	if err := checkToken(c.APIToken); err != nil {
		return nil, &certwright.ConfigError{Field: "Config.APIToken", Err: err}
	}
	if err := checkToken(c.ZoneToken); err != nil {
		return nil, &certwright.ConfigError{Field: "Config.ZoneToken", Err: err}
	}
	if c.HTTPClient == nil {
		c.HTTPClient = &http.Client{}
	}
	return &Provider{conf: c, zones: make(map[string]json.RawMessage)}, nil
}

func checkToken(token string) error {
	if len(token) > 7 && strings.EqualFold(token[:7], "bearer ") {
		return errors.New(`cloudflare: it begins with "Bearer"; give the token alone`)
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("cloudflare: there is a space, a line break or another character in it that no token has; " +
				"give the token alone, of a file its trimmed text")
		}
	}
	return nil
}

// String is the provider's name.
func (p *Provider) String() string { return "cloudflare" }

// Format implements [fmt.Formatter]. It prints no token whatever the verb.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// AppendRecords adds records to the zone and returns those that it added, also
// with an error. An error may have a method RetryAfter() time.Duration.
//
// When Cloudflare's reply to an addition is lost it is not repeated: the record
// may be there. One that is there already is an error.
func (p *Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	var added []libdns.Record
	for _, r := range records {
		c := p.newCall("adding", zone, r)
		got, err := c.module().AppendRecords(ctx, c.zone, []libdns.Record{r})
		if err := c.failed(err); err != nil {
			return added, err
		}
		added = append(added, got...)
	}
	return added, nil
}

// DeleteRecords deletes the records of the same name, type and text, and returns
// those that were there, also with an error. An error may have a method
// RetryAfter() time.Duration.
func (p *Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	var deleted []libdns.Record
	for _, r := range records {
		c := p.newCall("deleting", zone, r)
		got, err := c.module().DeleteRecords(ctx, c.zone, []libdns.Record{r})
		if err := c.failed(err); err != nil {
			return deleted, err
		}
		if len(got) > 0 {
			deleted = append(deleted, r) // Cloudflare's reply has no more than the ID
		}
	}
	return deleted, nil
}

// call is one change of one record: what the module asks for it goes through Do.
type call struct {
	p          *Provider
	step, zone string // the zone without its final dot, as Cloudflare writes it
	record     libdns.RR
	err        error // the last request's: the module does not always report it
}

func (p *Provider) newCall(step, zone string, r libdns.Record) *call {
	return &call{p: p, step: step, zone: strings.TrimSuffix(zone, "."), record: r.RR()}
}

// module is a provider of the call's own: the module's holds a mutex while it looks
// for a zone, and keeps what it found for ever.
func (c *call) module() *cloudflare.Provider {
	return &cloudflare.Provider{APIToken: c.p.conf.APIToken, ZoneToken: c.p.conf.ZoneToken, HTTPClient: c}
}

// failed returns what went wrong, where and what is to be done.
func (c *call) failed(err error) error {
	if c.err != nil {
		err = c.err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("cloudflare: %s %s %q in zone %q: %w", c.step, c.record.Type, c.record.Name, c.zone, err)
}
