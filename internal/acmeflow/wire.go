package acmeflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/certwright/certwright/internal/hostname"
	"github.com/mholt/acmez/v3/acme"
)

// decode reads a JSON object of the CA into the struct that v points to. A member
// that is missing or of an unexpected type stays as it is, so that one of an
// unknown kind never stops an order (RFC 8555 §7.1.4, §8: a client ignores what
// it does not know). It reports false for what is no object.
func decode(body []byte, v any) bool {
	err := json.Unmarshal(body, v)
	_, unexpected := errors.AsType[*json.UnmarshalTypeError](err)
	return (err == nil || unexpected) && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))
}

// order is an order (RFC 8555 §7.1.3).
type order struct {
	URL            string            `json:"-"`
	Status         string            `json:"status"`
	Expires        string            `json:"expires"`
	Identifiers    []acme.Identifier `json:"identifiers"`
	Authorizations []string          `json:"authorizations"`
	Finalize       string            `json:"finalize"`
	Certificate    string            `json:"certificate"`
	Problem        *Problem          `json:"error"`
}

// names are the values of o's identifiers as the CA spells them.
func (o *order) names() []string {
	list := make([]string, 0, len(o.Identifiers))
	for _, id := range o.Identifiers {
		list = append(list, id.Value)
	}
	return list
}

// authorization is an authorization (RFC 8555 §7.1.4).
type authorization struct {
	URL        string          `json:"-"`
	Status     string          `json:"status"`
	Identifier acme.Identifier `json:"identifier"`
	Wildcard   bool            `json:"wildcard"`
	Challenges []challenge     `json:"challenges"`

	name string // the order's identifier that it is for
}

// challenge is a challenge (RFC 8555 §7.1.5, §8).
type challenge struct {
	Type          string   `json:"type"`
	URL           string   `json:"url"`
	Status        string   `json:"status"`
	Token         string   `json:"token"`
	IssuerDomains []string `json:"issuer-domain-names"` // dns-persist-01 only
	AccountURI    string   `json:"accounturi"`          // dns-persist-01 only, not of every CA
	Problem       *Problem `json:"error"`               // why it failed, or has failed so far
}

func identifier(name string) acme.Identifier {
	if _, err := netip.ParseAddr(name); err == nil {
		return acme.Identifier{Type: "ip", Value: name}
	}
	return acme.Identifier{Type: "dns", Value: name}
}

// normal brings an identifier as the CA spells it to the form of a request's
// names: lower-case A-labels without a trailing dot, short IP addresses.
func normal(value string) string {
	name, _ := hostname.Normalize(value) // what is none is no name of the request
	return name
}

// match finds the name of the request that an authorization is for. A wildcard
// is told by the flag (RFC 8555 §7.1.4), by a "*." that a CA left in the value,
// or by being the only one that fits.
func (r *run) match(a *authorization) (name string, ok bool) {
	value, star := strings.CutPrefix(a.Identifier.Value, "*.")
	value = normal(value)
	if !a.Wildcard && !star && slices.Contains(r.req.Names, value) {
		return value, true
	}
	return "*." + value, slices.Contains(r.req.Names, "*."+value)
}

// sameIdentifiers compares an order's identifiers with the request's as sets: a
// CA orders and spells them as it likes.
func (r *run) sameIdentifiers(o *order) bool {
	set := func(list []string) []string {
		slices.Sort(list)
		return slices.Compact(list)
	}
	var got []string
	for _, value := range o.names() {
		got = append(got, normal(value))
	}
	return slices.Equal(set(got), set(slices.Clone(r.req.Names)))
}
