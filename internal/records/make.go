package records

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// NewBundle is what a Bundle is made of.
type NewBundle struct {
	Names   []string        // normalised, at least one; the Bundle shares the slice
	KeyType certpem.KeyType // empty: that of Key
	CA      string          // directory URL; empty when it is not known
	Account string          // ID of the issuer; empty when it is not known
	Profile string          // that was asked for; empty for none
	Key     crypto.Signer   // in memory
	Chain   []byte          // PEM, as the CA sent it
	Data    json.RawMessage // the issuer's own, for a Stored; Make does not look at it
	Stored  time.Time
	Flags   Flag // Adopted; the others follow from the leaf
}

var errNotYet = errors.New("not written yet")

// Make returns a bundle that is ready to be stored and served. It reduces the
// chain to what leaf → top needs: the root behind others goes, and what cannot be
// parsed, does not link or was over before the leaf began is left out with a
// warning. It fails when there is no leaf for the key that can be parsed, when
// the leaf does not cover all of the names, and when the key is not of the type.
func (r *Records) Make(n NewBundle) (b *Bundle, warnings []string, err error) {
	return nil, nil, errNotYet
}

// Stored is a bundle as it is stored. Its zero value is none.
type Stored struct {
	*Bundle
	Data json.RawMessage // the issuer's own; nil when there is none
	Prev *Bundle         // what was kept by KeepPrevious, while it is of use; else nil

	// Mended is not nil when the file is not as it was written and holds a whole
	// bundle all the same: somebody has edited it, or put a plain PEM file there.
	// It is to be told once and stored anew.
	Mended error
}

// LoadBundle returns what is stored under an ID. While that is not valid yet at
// now, must be stapled, or is damaged or missing, what KeepPrevious has stored is
// looked at too: it is Prev, and the Bundle itself when there is nothing else;
// in either place only if it is usable at now.
//
// When there is nothing the error satisfies errors.Is(err, fs.ErrNotExist). A
// *DamagedError comes beside whatever could be had: a Bundle with it may be
// served, and is to be replaced. So does ErrNewer. After any other error nothing
// is known.
func (r *Records) LoadBundle(ctx context.Context, id string, now time.Time) (Stored, error) {
	return Stored{}, errNotYet
}

// StoreBundle stores s at its ID, in one step. Prev and Mended are not looked
// at, and what KeepPrevious has stored stays.
func (r *Records) StoreBundle(ctx context.Context, s Stored) error { return errNotYet }

// KeepPrevious stores s beside the place of its ID, for the time after a
// successor is stored that cannot be served yet: it is not valid yet, or must be
// stapled and has no staple.
func (r *Records) KeepPrevious(ctx context.Context, s Stored) error { return errNotYet }

// DropPrevious forgets what KeepPrevious has stored for an ID.
func (r *Records) DropPrevious(ctx context.Context, id string) error {
	return r.Delete(ctx, prevKey(id))
}
