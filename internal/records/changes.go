package records

import (
	"context"
)

// Changes tells the other instances on the same storage which bundles this one
// has changed, and asks them the same. NewChanges makes it. Note is safe for
// concurrent use; Flush is called by one goroutine at a time, and so is Poll.
type Changes struct{}

// NewChanges returns the changes of an instance. Its name is unique among those
// that run on the storage.
func (r *Records) NewChanges(instance string) *Changes { return &Changes{} }

// Note says that the bundle of that ID was stored.
func (c *Changes) Note(id string) {}

// Flush stores what was noted, if anything was. After an error it is kept for
// the next Flush. It is called at most once in two seconds.
func (c *Changes) Flush(ctx context.Context) error { return errNotYet }

// Poll returns the IDs of the bundles that other instances have changed since
// the last Poll. If all is true, any bundle may have been changed. The first
// Poll only notes where they are. It costs one List and one Load for each other
// instance. What could not be read is the error, beside what could, and is made
// up for by the next Poll.
func (c *Changes) Poll(ctx context.Context) (ids []string, all bool, err error) {
	return nil, false, errNotYet
}
