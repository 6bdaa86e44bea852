package records

import (
	"context"
	"time"
)

// JournalEntry is a challenge that a Solver of the caller's is asked to present: it
// is noted before, and there until it is cleaned up.
type JournalEntry struct {
	Bundle           string    `json:"bundle"` // ID of the bundle that is being issued
	Issuer           string    `json:"issuer"` // the issuer's ID
	Type             string    `json:"type"`
	Name             string    `json:"name"`
	Wildcard         bool      `json:"wildcard,omitempty"`
	Token            string    `json:"token,omitempty"`
	KeyAuthorization string    `json:"key_authorization,omitempty"`
	Account          string    `json:"account,omitempty"` // account URL
	DNSName          string    `json:"dns_name,omitempty"`
	DNSValue         string    `json:"dns_value,omitempty"`
	State            []byte    `json:"state,omitempty"` // what the Solver saved last
	Noted            time.Time `json:"noted"`
}

// Key returns the key of the entry: that of the same challenge of the same bundle.
func (e *JournalEntry) Key() string { return journalKey(e) }

// LoadJournal returns the entry that List found. When it is not there any more the
// error satisfies errors.Is(err, fs.ErrNotExist).
func (r *Records) LoadJournal(ctx context.Context, found Entry) (*JournalEntry, error) {
	var e JournalEntry
	if err := r.loadJSON(ctx, found.Key, kindJournal, &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// StoreJournal stores an entry.
func (r *Records) StoreJournal(ctx context.Context, e *JournalEntry) error {
	return r.storeJSON(ctx, e.Key(), kindJournal, e)
}
