package dnsprovider

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A persistValue is the value of a dns-persist-01 record: an issue-value (RFC 8659
// §4.2) whose parameters draft-ietf-acme-dns-persist names.
type persistValue struct {
	issuer   string // lower case, without the final dot
	account  string // accounturi; empty: none
	wildcard bool   // policy=wildcard
	until    int64  // persistUntil in Unix seconds; 0: for ever
}

// parsePersist reads a value. Parameters stand in any order, their tags in any case,
// with spaces or without; those of an unknown tag do not matter.
func parsePersist(s string) (v persistValue, err error) {
	issuer, rest, _ := strings.Cut(s, ";")
	v.issuer = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(issuer), "."))
	if v.issuer == "" || strings.ContainsAny(v.issuer, "= \t\"") {
		return v, errors.New("it does not begin with the issuer's domain name")
	}
	if strings.TrimSpace(rest) == "" {
		return v, nil
	}
	var seen []string
	for param := range strings.SplitSeq(rest, ";") {
		tag, value, ok := strings.Cut(param, "=")
		tag, value = strings.ToLower(strings.TrimSpace(tag)), strings.TrimSpace(value)
		if !ok || tag == "" {
			return v, fmt.Errorf("%q is no parameter of the form tag=value", clip(strings.TrimSpace(param)))
		}
		if slices.Contains(seen, tag) {
			return v, fmt.Errorf("it has two parameters %q", clip(tag))
		}
		seen = append(seen, tag)
		if err := v.set(tag, value); err != nil {
			return v, err
		}
	}
	return v, nil
}

func (v *persistValue) set(tag, value string) (err error) {
	switch tag {
	case "accounturi":
		v.account = value
	case "policy":
		v.wildcard = strings.EqualFold(value, "wildcard")
	case "persistuntil":
		if v.until, err = strconv.ParseInt(value, 10, 64); err != nil || v.until <= 0 {
			return fmt.Errorf("its persistUntil %q is no Unix time in seconds", clip(value))
		}
	}
	return nil
}

// differs says in what a record's value is not what is wanted, and how near it comes:
// the higher the nearer. An empty text means that the record serves.
func (v persistValue) differs(record string, now time.Time) (text string, near int) {
	have, err := parsePersist(record)
	switch {
	case err != nil:
		return "is damaged: " + err.Error(), 0
	case have.issuer != v.issuer:
		return fmt.Sprintf("is for the issuer %q", clip(have.issuer)), 1
	case have.account == "":
		return "has no accounturi", 2
	case have.account != v.account:
		return fmt.Sprintf("is for the account %q", clip(have.account)), 2
	case v.wildcard && !have.wildcard:
		return "has no policy=wildcard, which a wildcard needs", 3
	case have.until != 0 && have.until <= now.Unix():
		return "ended at " + time.Unix(have.until, 0).UTC().Format(time.RFC3339) + ", its persistUntil", 4
	}
	return "", 5
}

// nearest describes the one of several values that comes nearest to what is wanted,
// and what differs.
func (v persistValue) nearest(values []string, now time.Time) string {
	if len(values) == 0 {
		return "there is no TXT record"
	}
	best, bestNear := "", -1
	for _, value := range values {
		if text, near := v.differs(value, now); near > bestNear {
			best, bestNear = fmt.Sprintf("%q %s", clip(value), text), near
		}
	}
	return best
}

// clip bounds what is said of a text that somebody else wrote.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
