package records

import (
	"context"
	"time"
)

type search struct{}

// Covering returns the stored bundles that cover all of names and are usable at
// now, whatever their set, key type and CA. The best comes first: that of the
// very set, then one that names the names before one with wildcards for them,
// then the one that ends last. There may be none, without an error.
//
// It asks one List of all bundles, which callers share and which is kept for a
// minute, and so may miss what was stored meanwhile. Each bundle found is loaded
// once in that time. What cannot be read is passed over, unless nothing is found:
// then it is the error.
func (r *Records) Covering(ctx context.Context, names []string, now time.Time) ([]Stored, error) {
	return nil, errNotYet
}
