package records

import (
	"context"
	"time"
)

// Entry is a record as List finds it.
type Entry struct {
	Kind Kind
	Key  string
	// ID is the bundle's ID, the issuer's of an account (as far as its key tells
	// it) and the instance's of changes. It is the subject of a hold, and empty
	// for an account's own.
	ID       string
	Previous bool // a bundle that KeepPrevious has stored
}

// List returns the records of a kind, in the order of their keys. What is no key
// of ours is not among them.
func (r *Records) List(ctx context.Context, kind Kind) ([]Entry, error) { return nil, errNotYet }

// Over returns the time at which a record is of no use any more by itself: the
// end of a bundle, the making of an order, the end of a hold or its last attempt,
// the time to ask again for renewal info, the asking for a staple, the last
// change of an instance. It is zero for a kind that does not end. Errors are
// those of the kind's Load.
func (r *Records) Over(ctx context.Context, e Entry) (time.Time, error) {
	return time.Time{}, errNotYet
}
