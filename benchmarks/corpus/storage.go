package corpus

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// CertwrightStorage is a storage.Storage with all pairs of a corpus, which it
// reads from one file. What a Manager stores beside them is kept in memory.
type CertwrightStorage struct {
	*storage.Memory
	Corpus *Corpus
}

// NewCertwrightStorage returns a CertwrightStorage over c.
func NewCertwrightStorage(c *Corpus) CertwrightStorage {
	return CertwrightStorage{storage.NewMemory(), c}
}

// Load implements storage.Storage.
func (s CertwrightStorage) Load(ctx context.Context, key string) ([]byte, error) {
	id, ok := strings.CutPrefix(key, certsBelow+"/")
	if !ok {
		return s.Memory.Load(ctx, key)
	}
	name, _, _ := strings.Cut(id, "+")
	i, ok := s.Corpus.Index(name)
	if !ok || RecordKey(name) != key {
		return nil, fmt.Errorf("loading key %q: %w", key, fs.ErrNotExist)
	}
	p, err := s.Corpus.Pair(i)
	if err != nil {
		return nil, err
	}
	_, value, err := p.Record()
	return value, err
}

const extraFormat = "extra%06d.hosting.example"

// Shared are certificates that hold several names each, and some for one name
// beside them.
type Shared struct {
	Names [][]string // of each certificate
	Pairs []Pair
	Extra []Pair
}

// NewShared makes certificates with per names each for n names, and as many
// extra ones as are asked for.
func NewShared(n, per, extra int) (*Shared, error) {
	signer, err := newCA()
	if err != nil {
		return nil, err
	}
	size := (n + per - 1) / per
	s := &Shared{Names: make([][]string, size), Pairs: make([]Pair, size), Extra: make([]Pair, extra)}
	err = parallel(size, func(i int) error {
		for k := i * per; k < min((i+1)*per, n); k++ {
			s.Names[i] = append(s.Names[i], fmt.Sprintf(nameFormat, k))
		}
		var err error
		s.Pairs[i], err = signer.issue(s.Names[i]...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, parallel(extra, func(i int) error {
		var err error
		s.Extra[i], err = signer.issue(fmt.Sprintf(extraFormat, i))
		return err
	})
}

// Storage returns a storage.Storage in memory that has all certificates of s.
func (s *Shared) Storage(ctx context.Context) (*storage.Memory, error) {
	mem := storage.NewMemory()
	all := slices.Concat(s.Pairs, s.Extra)
	err := parallel(len(all), func(i int) error {
		key, value, err := all[i].Record()
		if err != nil {
			return err
		}
		return mem.Store(ctx, key, value)
	})
	if err != nil {
		return nil, fmt.Errorf("storing shared certificates: %w", err)
	}
	return mem, nil
}

// Specs returns what a Manager is asked to manage, the extra ones aside. It
// shares no memory with s.
func (s *Shared) Specs() []certwright.Spec {
	specs := make([]certwright.Spec, 0, len(s.Names))
	for _, names := range s.Names {
		own := make([]string, len(names))
		for i, name := range names {
			own[i] = strings.Clone(name)
		}
		specs = append(specs, certwright.Spec{Names: own})
	}
	return specs
}
