package acmeflow

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/hostname"
	"github.com/mholt/acmez/v3/acme"
)

// object is a JSON object of the CA. It is read member by member, so that one of
// an unknown kind never stops an order (RFC 8555 §7.1.4, §8: a client ignores
// what it does not know).
type object map[string]json.RawMessage

// parseObject returns nil for what is no object.
func parseObject(body []byte) object {
	var o object
	if json.Unmarshal(body, &o) != nil {
		return nil
	}
	return o
}

// set changes *dst to the named member, unless that is missing, null or no T.
func set[T any](dst *T, o object, name string) {
	var v *T
	if json.Unmarshal(o[name], &v) == nil && v != nil {
		*dst = *v
	}
}

// list returns the objects in the named member.
func list(o object, name string) (objects []object) {
	var raw []json.RawMessage
	set(&raw, o, name)
	for _, r := range raw {
		if item := parseObject(r); item != nil {
			objects = append(objects, item)
		}
	}
	return objects
}

// order is an order (RFC 8555 §7.1.3).
type order struct {
	URL            string
	Status         string
	Expires        time.Time // zero: the CA did not say
	Identifiers    []acme.Identifier
	Authorizations []string
	Finalize       string
	Certificate    string
	Problem        *Problem
}

// update takes over what a reply says. Members that it lacks stay as they are.
func (o *order) update(obj object) {
	set(&o.Status, obj, "status")
	set(&o.Expires, obj, "expires")
	set(&o.Authorizations, obj, "authorizations")
	set(&o.Finalize, obj, "finalize")
	set(&o.Certificate, obj, "certificate")
	set(&o.Identifiers, obj, "identifiers")
	o.Problem = problemIn(obj)
}

// authorization is an authorization (RFC 8555 §7.1.4).
type authorization struct {
	URL        string
	Status     string
	Identifier acme.Identifier
	Wildcard   bool
	Challenges []challenge

	name string // the order's identifier that it is for
}

// challenge is a challenge (RFC 8555 §7.1.5, §8).
type challenge struct {
	Type          string
	URL           string
	Status        string
	Token         string
	IssuerDomains []string // dns-persist-01 only
	Problem       *Problem // why it failed, or has failed so far
}

func readAuthorization(url string, obj object) *authorization {
	a := &authorization{URL: url}
	set(&a.Status, obj, "status")
	set(&a.Identifier, obj, "identifier")
	set(&a.Wildcard, obj, "wildcard")
	for _, o := range list(obj, "challenges") {
		var ch challenge
		set(&ch.Type, o, "type")
		set(&ch.URL, o, "url")
		set(&ch.Status, o, "status")
		set(&ch.Token, o, "token")
		set(&ch.IssuerDomains, o, "issuer-domain-names")
		ch.Problem = problemIn(o)
		if ch.Type != "" {
			a.Challenges = append(a.Challenges, ch)
		}
	}
	return a
}

// of returns the challenge of a type, or nil.
func (a *authorization) of(challengeType string) *challenge {
	for i := range a.Challenges {
		if a.Challenges[i].Type == challengeType {
			return &a.Challenges[i]
		}
	}
	return nil
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
	if n, err := hostname.Normalize(value); err == nil {
		return n
	}
	return strings.ToLower(value)
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
	for _, id := range o.Identifiers {
		got = append(got, normal(id.Value))
	}
	return slices.Equal(set(got), set(slices.Clone(r.req.Names)))
}
