package records

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/hostname"
)

const (
	listFor       = time.Minute // is what one List is kept
	maxCandidates = 32          // are loaded for one question
)

// search knows which bundles cover a name. The zero search is ready for use.
type search struct {
	mu   sync.Mutex // guards sets, cur
	sets map[string][]string
	cur  *round
}

// round is what was found out since one List.
type round struct {
	began  time.Time
	index  memo[*index]
	loaded memo[Stored] // by ID
}

// index is what one List has told.
type index struct {
	ids  []string            // of all bundles, sorted
	sets map[string][]string // IDs that have a digest, by name
	err  error               // what could not be read
}

// remember says which names a digest in an ID is of. That does not change.
func (s *search) remember(id string, names []string) {
	if id[0] != '+' {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sets == nil {
		s.sets = make(map[string][]string)
	}
	if len(s.sets[id]) == 0 {
		s.sets[id] = names
	}
}

// namesOf returns what is known of a bundle's names; empty ones are known too.
func (s *search) namesOf(id string) ([]string, bool) {
	if name, _, _ := splitID(id); name != "" {
		return []string{name}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names, ok := s.sets[id]
	return names, ok
}

func (s *search) round() *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil || time.Since(s.cur.began) >= listFor {
		s.cur = &round{began: time.Now()}
	}
	return s.cur
}

// candidate is a bundle that may cover what is asked for.
type candidate struct {
	Stored
	id    string
	exact int // 0 for the very set
	wild  int // names that it has no more than a wildcard for
}

func (c candidate) compare(d candidate) int {
	return cmp.Or(cmp.Compare(c.exact, d.exact), cmp.Compare(c.wild, d.wild))
}

// Covering returns the stored bundles that cover all of names and are usable at
// now, whatever their set, key type and CA. The best comes first: that of the
// very set, then one that names the names before one with wildcards for them,
// then the one that ends last. There may be none, without an error.
//
// It asks one List of all bundles, which callers share and which is kept for a
// minute, and so may miss what was stored meanwhile. Each bundle found is loaded
// once in that time, and is the same one for all. What cannot be read is passed
// over, unless nothing is found: then it is the error.
func (r *Records) Covering(ctx context.Context, names []string, now time.Time) ([]Stored, error) {
	if len(names) == 0 {
		return nil, nil
	}
	round := r.search.round()
	index, err := round.index.get(ctx, "", r.readIndex)
	if err != nil {
		return nil, fmt.Errorf("searching for what covers %q: %w", names[0], err)
	}
	errs := []error{index.err}
	var found []candidate
	for _, c := range r.candidates(index, names) {
		s, err := round.loaded.get(ctx, c.id, func(ctx context.Context) (Stored, error) { return r.LoadBundle(ctx, c.id, now) })
		if ctx.Err() != nil {
			return nil, fmt.Errorf("searching for what covers %q: %w", names[0], context.Cause(ctx))
		}
		if c.Stored = s.usable(now.Unix()); c.Bundle != nil {
			found = append(found, c)
		} else if isOutage(err) {
			errs = append(errs, err)
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Or(a.compare(b), cmp.Compare(b.End, a.End)) })
	out := make([]Stored, 0, len(found))
	for _, c := range found {
		out = append(out, c.Stored)
	}
	if len(out) == 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// Below returns the names, sorted, that a wildcard covers and for which some bundle
// is stored, by the same List as Covering.
func (r *Records) Below(ctx context.Context, wildcard string) ([]string, error) {
	index, err := r.search.round().index.get(ctx, "", r.readIndex)
	if err != nil {
		return nil, fmt.Errorf("searching below %q: %w", wildcard, err)
	}
	var names []string
	add := func(name string) {
		if name != wildcard && hostname.Covers(wildcard, name) {
			names = append(names, name)
		}
	}
	for _, id := range index.ids {
		name, _, _ := splitID(id)
		add(name)
	}
	for name := range index.sets {
		add(name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// usable returns what of s is usable at now, nothing when nothing is.
func (s Stored) usable(now int64) Stored {
	switch {
	case s.Bundle != nil && s.Usable(now):
		return s
	case s.Prev != nil && s.Prev.Usable(now):
		return Stored{Bundle: s.Prev}
	}
	return Stored{}
}

// candidates returns what may cover names, the best first and no more than
// maxCandidates.
func (r *Records) candidates(in *index, names []string) []candidate {
	set := setOf(ID(names, ""))
	var all []candidate
	for _, id := range in.having(names[0]) {
		have, _ := r.search.namesOf(id)
		if !coversAll(have, names) {
			continue
		}
		c := candidate{id: id, exact: 1}
		if setOf(id) == set {
			c.exact = 0
		}
		for _, name := range names {
			if !slices.Contains(have, name) {
				c.wild++
			}
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, candidate.compare)
	return all[:min(len(all), maxCandidates)]
}

// having returns the IDs of bundles that have a name or the wildcard for it.
func (in *index) having(name string) (ids []string) {
	patterns := []string{name}
	if parent := hostname.Parent(name); parent != "" && hostname.Covers("*."+parent, name) {
		patterns = append(patterns, "*."+parent)
	}
	for _, pattern := range patterns {
		prefix := escape(pattern) + "+"
		at, _ := slices.BinarySearch(in.ids, prefix)
		for ; at < len(in.ids) && strings.HasPrefix(in.ids[at], prefix); at++ {
			ids = append(ids, in.ids[at])
		}
		ids = append(ids, in.sets[pattern]...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// readIndex lists the bundles, and reads the names of those whose ID does not
// tell them and that are not known yet.
func (r *Records) readIndex(ctx context.Context) (*index, error) {
	entries, err := r.List(ctx, Certs)
	if err != nil {
		return nil, err
	}
	in := &index{sets: make(map[string][]string)}
	for _, e := range entries {
		in.ids = append(in.ids, e.ID)
	}
	slices.Sort(in.ids) // a previous one may be alone
	in.ids = slices.Compact(in.ids)
	var errs []error
	for _, id := range in.ids {
		if id[0] != '+' {
			continue
		}
		names, known := r.search.namesOf(id)
		if !known {
			if names, err = r.readNames(ctx, id); err != nil {
				errs = append(errs, err)
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for _, name := range names {
			in.sets[name] = append(in.sets[name], id)
		}
	}
	in.err = errors.Join(errs...)
	return in, nil
}

// readNames reads the names of a bundle whose ID has a digest, and remembers
// them; that they cannot be told is remembered too.
func (r *Records) readNames(ctx context.Context, id string) ([]string, error) {
	value, err := r.load(ctx, certKey(id))
	if errors.Is(err, fs.ErrNotExist) {
		value, err = r.load(ctx, prevKey(id))
	}
	switch {
	case isOutage(err):
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	}
	var names []string
	if err == nil {
		body, _ := unframe(kindBundle, value)
		_, typ, _ := splitID(id)
		if names = findHeader(body).Names; ID(names, typ) != id {
			s, _ := r.decodeBundle(id, value)
			names = nil
			if s.Bundle != nil {
				names = s.Names
			}
		}
	}
	r.search.remember(id, names)
	return names, nil
}
