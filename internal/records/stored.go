package records

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Stored is a bundle as it is stored. Its zero value is none.
type Stored struct {
	*Bundle
	Data json.RawMessage // the issuer's own; nil when there is none
	Prev *Bundle         // what was kept by KeepPrevious, while it is of use; else nil

	// Mended is not nil when the file is not as it was written and holds a whole
	// bundle all the same: somebody has edited it, or put a plain PEM file there.
	// It is to be told once, and s stored anew.
	Mended error
}

// LoadBundle returns what is stored under an ID. When that is not usable at now,
// must be stapled, or is damaged or missing, what KeepPrevious has stored is
// looked at too: it is Prev, and the Bundle itself when there is nothing else;
// in either place only if it is usable at now.
//
// When there is nothing the error satisfies errors.Is(err, fs.ErrNotExist). A
// *DamagedError comes beside whatever could be had: a Bundle with it may be
// served, and is to be replaced. So does ErrNewer, and the Bundle is not to be
// replaced. After any other error nothing is known.
func (r *Records) LoadBundle(ctx context.Context, id string, now time.Time) (Stored, error) {
	s, err := r.loadBundle(ctx, certKey(id), id)
	usable := s.Bundle != nil && s.Usable(now.Unix())
	if isOutage(err) || err == nil && usable && !s.Has(MustStaple) {
		return s, err
	}
	prev, prevErr := r.LoadPrevious(ctx, id)
	if prev.Bundle != nil && prev.Usable(now.Unix()) {
		if s.Bundle != nil {
			s.Prev = prev.Bundle
			return s, err
		}
		if errors.Is(err, fs.ErrNotExist) {
			return prev, prevErr
		}
		return prev, err
	}
	switch {
	case prevErr == nil, errors.Is(prevErr, fs.ErrNotExist), usable:
		return s, err
	case isOutage(prevErr):
		return Stored{}, prevErr
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return s, prevErr
	}
	return s, err
}

// isOutage reports whether an error says nothing of what is stored.
func isOutage(err error) bool {
	var damaged *DamagedError
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNewer) && !errors.As(err, &damaged)
}

// loadBundle reads the bundle of an ID at a key.
func (r *Records) loadBundle(ctx context.Context, key, id string) (Stored, error) {
	value, err := r.load(ctx, key)
	if err != nil {
		return Stored{}, err
	}
	s, err := r.decodeBundle(id, value)
	r.noteNewer(key, err)
	if s.Bundle != nil {
		r.search.remember(id, s.Names)
	}
	if s.Mended != nil {
		s.Mended = fmt.Errorf("reading %q: %w", key, s.Mended)
	}
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, ErrNewer):
		return s, fmt.Errorf("reading %q: %w", key, err)
	}
	return s, &DamagedError{Key: key, Err: err}
}

// StoreBundle stores s at its ID, in one step. Prev and Mended are not looked
// at, and what KeepPrevious has stored stays.
func (r *Records) StoreBundle(ctx context.Context, s Stored) error {
	return r.storeBundle(ctx, certKey(s.ID()), s)
}

// KeepPrevious stores s beside the place of its ID, for the time after a
// successor is stored that cannot be served yet, or not to everybody: it is not valid
// yet, must be stapled and has no staple, or is a test CA's.
func (r *Records) KeepPrevious(ctx context.Context, s Stored) error {
	return r.storeBundle(ctx, prevKey(s.ID()), s)
}

// LoadPrevious returns what KeepPrevious has stored for an ID, whatever else is
// stored.
func (r *Records) LoadPrevious(ctx context.Context, id string) (Stored, error) {
	return r.loadBundle(ctx, prevKey(id), id)
}

// DropPrevious forgets what KeepPrevious has stored for an ID.
func (r *Records) DropPrevious(ctx context.Context, id string) error {
	return r.Delete(ctx, prevKey(id))
}

func (r *Records) storeBundle(ctx context.Context, key string, s Stored) error {
	value, err := encodeBundle(s)
	if err != nil {
		return fmt.Errorf("storing %q: %w", key, err)
	}
	if err := r.store(ctx, key, value); err != nil {
		return err
	}
	r.search.remember(s.ID(), s.Names)
	return nil
}
