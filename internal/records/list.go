package records

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Entry is a record as List finds it.
type Entry struct {
	Kind Kind
	Key  string
	// ID is the bundle's ID; for an account the issuer's, as far as its key tells
	// it; for changes the instance's; for a hold the subject's, as its key has
	// it, and empty for the account's own.
	ID       string
	Previous bool // a bundle that KeepPrevious has stored
}

// List returns the records of a kind, in the order of their keys. What is no key
// of ours is not among them. The error is a *DamagedError when the list has failed
// for an hour while records could be stored and loaded.
func (r *Records) List(ctx context.Context, kind Kind) ([]Entry, error) {
	prefix := root + string(kind)
	keys, err := r.s.List(ctx, prefix)
	switch {
	case err == nil:
		r.noteLoaded(prefix)
	case ctx.Err() == nil && r.isLost(ctx, prefix):
		return nil, &DamagedError{Key: prefix, Err: fmt.Errorf("it cannot be listed while other records can be stored and loaded: %w", err)}
	default:
		return nil, fmt.Errorf("listing keys below %q: %w", prefix, err)
	}
	entries := make([]Entry, 0, len(keys))
	for _, key := range keys {
		if part, ok := strings.CutPrefix(key, prefix+"/"); ok && part != "" && !strings.Contains(part, "/") {
			if e, ok := newEntry(kind, key, part); ok {
				entries = append(entries, e)
			}
		}
	}
	return entries, nil
}

// newEntry reports false for what is no key of ours.
func newEntry(kind Kind, key, part string) (Entry, bool) {
	e := Entry{Kind: kind, Key: key, ID: part}
	ok := true
	switch kind {
	case Certs:
		e.ID, ok = strings.CutSuffix(part, certSuffix)
		e.ID, e.Previous = strings.CutSuffix(e.ID, prevSuffix)
	case Orders, Holds, Journal:
		i := strings.LastIndexByte(part, '+')
		if ok = i >= 0; ok {
			e.ID = part[:i]
		}
	}
	if ok && (kind == Certs || kind == Orders || kind == Journal || kind == RenewalInfos || kind == Staples) {
		_, _, ok = splitID(e.ID)
	}
	return e, ok
}

// Over returns the time at which a record is of no use any more by itself: the
// end of a bundle's leaf, the making of an order, the end of a hold or its last
// attempt, the time to ask again for renewal info, the asking for a staple, the
// last change of an instance. It is zero for a kind that does not end. Errors are
// those of the kind's Load.
func (r *Records) Over(ctx context.Context, e Entry) (time.Time, error) {
	switch e.Kind {
	case Certs:
		s, err := r.loadBundle(ctx, e.Key, e.ID)
		if s.Bundle == nil {
			return time.Time{}, err
		}
		return time.Unix(s.NotAfter, 0), err
	case Orders:
		var o Order
		err := r.loadJSON(ctx, e.Key, kindOrder, &o)
		return o.Created, err
	case Holds:
		var h Hold
		if err := r.loadJSON(ctx, e.Key, kindHold, &h); err != nil {
			return time.Time{}, err
		}
		return time.Unix(max(h.Until, h.Last), 0), nil
	case RenewalInfos:
		var i RenewalInfo
		err := r.loadJSON(ctx, e.Key, kindRenewalInfo, &i)
		return i.Refresh, err
	case Staples:
		var s Staple
		err := r.loadJSON(ctx, e.Key, kindStaple, &s)
		return s.Asked, err
	case ChangeLists:
		var l changeList
		err := r.loadJSON(ctx, e.Key, kindChanges, &l)
		return l.At, err
	}
	return time.Time{}, nil
}
