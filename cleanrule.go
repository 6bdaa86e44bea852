package certwright

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/record"
)

// challengeAge is the age at which a challenge is nobody's any more: no issue
// takes so long.
const challengeAge = 24 * time.Hour

// cleanRule says when one kind of record is stale.
type cleanRule struct {
	prefix string
	parts  int // components of its keys

	// staleAt returns from when on a value is stale. An error means that it
	// cannot be told and the value stays.
	staleAt func(id string, value []byte) (time.Time, error)

	anyone   bool   // also of certificates that are managed here
	lease    bool   // removed under the lease for issuing it
	remember bool   // staleAt does not move, so that it is read once
	unless   string // stays while there is a record of the same ID below this key; empty: no such
}

// rules lists what can go stale. An account never does, and nothing does of a
// certificate that is managed here: its records are replaced and not removed.
func (c *cleaner) rules() []cleanRule {
	grace := c.grace
	return []cleanRule{
		{prefix: keyCerts, parts: 4, lease: true, remember: true, staleAt: certStale(grace)},
		{prefix: keyState, parts: 3, lease: true, staleAt: stateStale(grace)},
		{prefix: keyOrders, parts: 3, lease: true, unless: keyState, staleAt: stale(kindOrder, func(r orderRecord) time.Time { return r.Created.Add(grace) })},
		{prefix: keyStaples, parts: 3, staleAt: stale(kindStaple, func(r stapleRecord) time.Time { return r.Asked.Add(grace) })},
		{prefix: keyRenewalInfo, parts: 3, staleAt: stale(kindRenewalInfo, func(r ariRecord) time.Time { return r.Refresh.Add(grace) })},
		{prefix: keyChallenges, parts: 5, anyone: true, staleAt: challengeStale},
	}
}

// stale makes a cleanRule's staleAt for records of one kind.
func stale[T any](kind string, at func(T) time.Time) func(string, []byte) (time.Time, error) {
	return func(_ string, value []byte) (time.Time, error) {
		var r T
		if err := record.Decode(kind, value, &r); err != nil {
			return time.Time{}, err
		}
		return at(r), nil
	}
}

// certStale: a certificate that expired a while ago is of use to nobody, but it
// tells its owner that the name was served once.
func certStale(grace time.Duration) func(string, []byte) (time.Time, error) {
	return func(id string, value []byte) (time.Time, error) {
		var r certRecord
		if err := record.Decode(kindCertificate, value, &r); err != nil {
			return time.Time{}, err
		}
		if r.ID != id {
			return time.Time{}, fmt.Errorf("it is the certificate of %q", r.ID)
		}
		block, _ := pem.Decode([]byte(r.Chain)) // stored leaf first, and checked then
		if block == nil {
			return time.Time{}, errors.New("the chain is not PEM")
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, fmt.Errorf("reading the leaf: %w", err)
		}
		return leaf.NotAfter.Add(grace), nil
	}
}

// stateStale: a back-off that has ended, and that no instance has renewed since,
// is of a name that nobody tries to get any more.
func stateStale(grace time.Duration) func(string, []byte) (time.Time, error) {
	return stale(kindState, func(r stateRecord) time.Time {
		at := r.Last
		if r.Next.After(at) {
			at = r.Next
		}
		return at.Add(grace)
	})
}

func challengeStale(_ string, value []byte) (time.Time, error) {
	var ch challenge.Challenge
	if err := json.Unmarshal(value, &ch); err != nil {
		return time.Time{}, err
	}
	if ch.Token == "" || ch.Presented.IsZero() {
		return time.Time{}, errors.New("it is not a challenge")
	}
	return ch.Presented.Add(challengeAge), nil
}
