package adopt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// pair is a chain and its key as they are stored.
type pair struct {
	chainFile, keyFile string
	chain, key         []byte // PEM; may be one text
}

// read parses and checks a pair.
func (p pair) read(q Query) (Certificate, *FileError) {
	chain, err := certpem.ParseChain(p.chain)
	if err != nil {
		return Certificate{}, &FileError{File: p.chainFile, Err: err}
	}
	key, err := certpem.DecodeKey(p.key)
	if err != nil {
		return Certificate{}, &FileError{File: p.keyFile, Err: err}
	}
	if err := certpem.Verify(chain, key.Public(), q.Names); err != nil {
		return Certificate{}, &FileError{File: p.chainFile, Err: err}
	}
	if end := chain[0].NotAfter; !q.Now.Before(end) {
		return Certificate{}, &FileError{File: p.chainFile, Err: fmt.Errorf("the certificate expired at %s", end.UTC().Format(time.RFC3339))}
	}
	return Certificate{File: p.chainFile, Chain: chain, Key: key}, nil
}

// origin settles the CA of a certificate. where is what the store tells of it
// beside. It returns an error when the certificate is for tests only.
func (c *Certificate) origin(q Query, where string) *FileError {
	ca, used := q.used(c.CA)
	c.CA = ca
	if !used && (fromTestCA(where) || fromTestCA(ca)) {
		return &FileError{File: c.File, Err: errTestCA}
	}
	return nil
}

func appendErr(errs []*FileError, bad *FileError) []*FileError {
	if bad == nil {
		return errs
	}
	return append(errs, bad)
}

// byName finds which certificates there are for each name. It keeps what is not
// a certificate as an error: nobody knows for which name it was.
func (f *files) byName(ctx context.Context, chains []string) (map[string][]string, []*FileError) {
	out := map[string][]string{}
	var errs []*FileError
	for _, file := range chains {
		value, bad := f.load(ctx, file)
		if bad == nil && value == nil {
			continue
		}
		if bad == nil {
			chain, err := certpem.ParseChain(value)
			if err != nil {
				bad = &FileError{File: file, Err: err}
			} else {
				for _, name := range certpem.Names(chain[0]) {
					out[name] = append(out[name], file)
				}
			}
		}
		if bad != nil {
			errs = append(errs, bad)
		}
	}
	return out, errs
}

// covering returns the files whose certificate is for the first of names, or a
// wildcard over it; whether it is for the others shows when it is read.
func covering(byName map[string][]string, names []string) []string {
	out := slices.Clone(byName[names[0]])
	if _, parent, ok := strings.Cut(names[0], "."); ok {
		for _, file := range byName["*."+parent] {
			if !slices.Contains(out, file) {
				out = append(out, file)
			}
		}
	}
	return out
}

// pair reads a chain with its key. It returns nil when there is no chain.
func (f *files) pair(ctx context.Context, chainFile, keyFile string, q Query) (*Certificate, *FileError) {
	p := pair{chainFile: chainFile, keyFile: keyFile}
	var bad *FileError
	if p.chain, bad = f.load(ctx, chainFile); bad != nil || p.chain == nil {
		return nil, bad
	}
	if p.key, bad = f.load(ctx, keyFile); bad != nil {
		return nil, bad
	}
	if p.key == nil {
		return nil, &FileError{File: keyFile, Err: errors.New("it is missing")}
	}
	cert, bad := p.read(q)
	if bad != nil {
		return nil, bad
	}
	return &cert, nil
}

// accountKey reads an account's key. The account has none when there is no such
// file.
func (f *files) accountKey(ctx context.Context, file string) (Account, *FileError) {
	value, bad := f.load(ctx, file)
	if bad != nil || value == nil {
		return Account{}, bad
	}
	key, err := certpem.DecodeKey(value)
	if err != nil {
		return Account{}, &FileError{File: file, Err: err}
	}
	return Account{File: file, Key: key}, nil
}
