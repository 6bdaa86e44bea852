package acmeflow

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// plain is what of an account, order, authorization or challenge could keep
// acmez from decoding it, in acmez's own types.
type plain struct {
	Expires       time.Time        `json:"expires"`
	NotBefore     time.Time        `json:"notBefore"`
	NotAfter      time.Time        `json:"notAfter"`
	Type          string           `json:"type"`
	URL           string           `json:"url"`
	Token         string           `json:"token"`
	Validated     string           `json:"validated"`
	From          string           `json:"from"`
	Replaces      string           `json:"replaces"`
	Profile       string           `json:"profile"`
	Certificate   string           `json:"certificate"`
	Orders        string           `json:"orders"`
	Contact       []string         `json:"contact"`
	IssuerDomains []string         `json:"issuer-domain-names"`
	Wildcard      bool             `json:"wildcard"`
	Error         *acme.Problem    `json:"error"`
	Challenges    []acme.Challenge `json:"challenges"`
}

// isClean reports whether there is nothing to remove from an object, as is the
// rule; to find out takes one pass over it.
func isClean(body []byte) bool {
	var p plain
	return json.Unmarshal(body, &p) == nil &&
		!slices.ContainsFunc(p.Challenges, func(c acme.Challenge) bool { return c.Type == "" })
}

// cleanObject removes from an account, order, authorization or challenge what
// acmez could not decode, so that a member or a challenge of an unknown kind
// never stops an order (RFC 8555 §7.1.4, §8: a client ignores what it does not
// know). What cannot be read at all is returned as it is.
func cleanObject(body []byte) []byte {
	if isClean(body) {
		return body
	}
	return stripObject(body)
}

// stripObject is cleanObject for a body that there may be something to remove from.
func stripObject(body []byte) []byte {
	var obj map[string]json.RawMessage
	if json.Unmarshal(body, &obj) != nil {
		return body
	}
	for _, name := range []string{"expires", "notBefore", "notAfter"} {
		var t time.Time
		if raw, ok := obj[name]; ok && json.Unmarshal(raw, &t) != nil {
			delete(obj, name)
		}
	}
	for _, name := range []string{"type", "url", "token", "validated", "from", "replaces", "profile", "certificate", "orders"} {
		dropUnless[string](obj, name)
	}
	dropUnless[[]string](obj, "contact")
	dropUnless[[]string](obj, "issuer-domain-names")
	dropUnless[bool](obj, "wildcard")
	cleanError(obj)
	if raw, ok := obj["challenges"]; ok {
		obj["challenges"] = cleanChallenges(raw)
	}
	out, err := json.Marshal(obj)
	if err != nil {
		return body
	}
	return out
}

// cleanDirectory removes from a directory the optional members that acmez
// could not decode.
func cleanDirectory(body []byte) []byte {
	var obj, meta map[string]json.RawMessage
	if json.Unmarshal(body, &obj) != nil || obj == nil {
		return body
	}
	for _, name := range []string{"newAuthz", "revokeCert", "keyChange", "renewalInfo"} {
		dropUnless[string](obj, name)
	}
	if raw, ok := obj["meta"]; ok && (json.Unmarshal(raw, &meta) != nil || meta == nil) {
		delete(obj, "meta")
	} else if ok {
		for _, name := range []string{"termsOfService", "website"} {
			dropUnless[string](meta, name)
		}
		dropUnless[[]string](meta, "caaIdentities")
		dropUnless[bool](meta, "externalAccountRequired")
		cleanProfiles(meta)
		obj["meta"], _ = json.Marshal(meta) // every value was decoded from JSON
	}
	out, err := json.Marshal(obj)
	if err != nil {
		return body
	}
	return out
}

// cleanProfiles keeps a profile whose description is no text.
func cleanProfiles(meta map[string]json.RawMessage) {
	var profiles map[string]any
	if json.Unmarshal(meta["profiles"], &profiles) != nil {
		delete(meta, "profiles")
		return
	}
	texts := make(map[string]string, len(profiles))
	for name, v := range profiles {
		texts[name], _ = v.(string)
	}
	meta["profiles"], _ = json.Marshal(texts) // strings only
}

// dropUnless deletes a member that is no T.
func dropUnless[T any](obj map[string]json.RawMessage, name string) {
	var v T
	if raw, ok := obj[name]; ok && json.Unmarshal(raw, &v) != nil {
		delete(obj, name)
	}
}

// cleanError rewrites a problem document, so that its text is kept when one of
// its members is of an unexpected type.
func cleanError(obj map[string]json.RawMessage) {
	raw, ok := obj["error"]
	if !ok {
		return
	}
	var strict *acme.Problem
	if json.Unmarshal(raw, &strict) == nil {
		return
	}
	var loose wireProblem
	if json.Unmarshal(raw, &loose) != nil {
		delete(obj, "error")
		return
	}
	p := loose.problem(0)
	if out, err := json.Marshal(acme.Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance}); err == nil {
		obj["error"] = out
	}
}

func cleanChallenges(raw json.RawMessage) json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return json.RawMessage("[]")
	}
	kept := make([]json.RawMessage, 0, len(list))
	for _, item := range list {
		item = cleanObject(item)
		var c acme.Challenge
		if json.Unmarshal(item, &c) == nil && c.Type != "" {
			kept = append(kept, item)
		}
	}
	out, err := json.Marshal(kept)
	if err != nil {
		return json.RawMessage("[]")
	}
	return out
}
