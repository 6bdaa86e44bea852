package adopt

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/certwright/certwright/internal/certpem"
)

// layout knows where one program puts what.
type layout interface {
	// pairs returns the pairs that cover names, in any order, and what could not
	// be used on the way. There is at least one name.
	pairs(ctx context.Context, names []string) ([]candidate, []error)

	// accounts returns the accounts at a CA and what could not be used on the way.
	accounts(ctx context.Context, directory string) ([]Account, []error)
}

// source is a [Source] of files in a layout.
type source struct {
	*files
	layout layout
}

// String implements Source.
func (s *source) String() string { return s.title }

// Find implements Source.
func (s *source) Find(ctx context.Context, names []string) ([]Pair, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	found, errs := s.layout.pairs(ctx, names)
	other := func(c candidate) int {
		if len(certpem.Names(c.leaf)) == len(names) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		if d := other(a) - other(b); d != 0 {
			return d
		}
		return b.leaf.NotBefore.Compare(a.leaf.NotBefore)
	})
	var out []Pair
	for _, c := range found {
		out = append(out, c.Pair)
	}
	return out, errors.Join(errs...)
}

// Account implements Source.
func (s *source) Account(ctx context.Context, directory string) (*Account, error) {
	if directory == "" {
		return nil, nil
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	all, errs := s.layout.accounts(ctx, directory)
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	for i := range all {
		all[i].Directory = directory
	}
	first := all[0]
	first.Others = all[1:]
	return &first, errors.Join(errs...)
}

// sameCA reports whether two directory URLs are one but for a slash at the end.
func sameCA(a, b string) bool {
	return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}
