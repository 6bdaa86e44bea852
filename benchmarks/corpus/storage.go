package corpus

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certwright/certwright"
)

// CertwrightStorage is a certwright.Storage with all pairs of a corpus, which it
// reads from one file. What a Manager stores beside them is kept in memory.
type CertwrightStorage struct {
	*certwright.MemStorage
	Corpus *Corpus
}

// NewCertwrightStorage returns a CertwrightStorage over c.
func NewCertwrightStorage(c *Corpus) CertwrightStorage {
	return CertwrightStorage{certwright.NewMemStorage(), c}
}

// Load implements certwright.Storage.
func (s CertwrightStorage) Load(ctx context.Context, key string) ([]byte, error) {
	name, ok := strings.CutPrefix(key, "v1/certs/"+IssuerID+"/")
	if !ok {
		return s.MemStorage.Load(ctx, key)
	}
	i, ok := s.Corpus.Index(name)
	if !ok {
		return nil, fmt.Errorf("loading key %q: %w", key, fs.ErrNotExist)
	}
	p, err := s.Corpus.Pair(i)
	if err != nil {
		return nil, err
	}
	_, value, err := p.Record()
	return value, err
}

// Shared makes certificates that hold several names each, n names in all.
type Shared struct {
	Names [][]string // of each certificate
	Pairs []Pair
}

// NewShared makes certificates with per names each for n names.
func NewShared(n, per int) (*Shared, error) {
	signer, err := newCA()
	if err != nil {
		return nil, err
	}
	s := &Shared{Names: make([][]string, (n+per-1)/per), Pairs: make([]Pair, (n+per-1)/per)}
	err = parallel(len(s.Pairs), func(i int) error {
		for k := i * per; k < min((i+1)*per, n); k++ {
			s.Names[i] = append(s.Names[i], fmt.Sprintf(nameFormat, k))
		}
		var err error
		s.Pairs[i], err = signer.issue(s.Names[i]...)
		return err
	})
	return s, err
}

// Storage returns a certwright.Storage in memory that has the certificates of s.
func (s *Shared) Storage(ctx context.Context) (*certwright.MemStorage, error) {
	mem := certwright.NewMemStorage()
	err := parallel(len(s.Pairs), func(i int) error {
		key, value, err := s.Pairs[i].Record()
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

// Specs returns what a Manager is asked to manage.
func (s *Shared) Specs() []certwright.Spec {
	specs := make([]certwright.Spec, 0, len(s.Names))
	for _, names := range s.Names {
		specs = append(specs, certwright.Spec{Names: slices.Clone(names)})
	}
	return specs
}
