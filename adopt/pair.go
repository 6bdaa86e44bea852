package adopt

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// letsEncrypt is the directory URL of Let's Encrypt.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// place is where a pair is stored.
type place struct {
	chain, key string // may be one file
	issuer     string // completes a chain that is a leaf alone; empty when there is no such file
}

// candidate is a pair that covers the names asked for.
type candidate struct {
	Pair
	leaf *x509.Certificate
}

// read reads and checks a pair. It returns nil when there is no chain.
func (f *files) read(ctx context.Context, at place, names []string) (*candidate, error) {
	text, err := f.load(ctx, at.chain)
	if err != nil || text == nil {
		return nil, err
	}
	chain, err := certpem.ParseChain(text)
	if err != nil {
		return nil, &FileError{File: at.chain, Err: err}
	}
	if len(chain) == 1 && at.issuer != "" {
		if chain, err = f.complete(ctx, text, at.issuer); err != nil {
			return nil, err
		}
	}
	keyText, err := f.load(ctx, at.key)
	if err != nil {
		return nil, err
	}
	if keyText == nil {
		return nil, &FileError{File: at.key, Err: errors.New("it is missing")}
	}
	key, err := certpem.DecodeKey(keyText)
	if err != nil {
		return nil, &FileError{File: at.key, Err: err}
	}
	if err = certpem.Verify(chain, key.Public(), names); err == nil {
		err = usable(chain[0])
	}
	if err != nil {
		return nil, &FileError{File: at.chain, Err: err}
	}
	keyPEM, err := certpem.EncodeKey(key)
	if err != nil {
		return nil, &FileError{File: at.key, Err: err}
	}
	return &candidate{
		Pair: Pair{File: at.chain, CertPEM: string(certpem.EncodeChain(chain)), KeyPEM: string(keyPEM)},
		leaf: chain[0],
	}, nil
}

// complete adds what is in the issuer's file to a leaf. Without such a file the
// leaf is all there is.
func (f *files) complete(ctx context.Context, leaf []byte, issuer string) ([]*x509.Certificate, error) {
	more, err := f.load(ctx, issuer)
	if err != nil {
		return nil, err
	}
	if more != nil {
		if _, err := certpem.ParseChain(more); err != nil {
			return nil, &FileError{File: issuer, Err: err}
		}
	}
	chain, err := certpem.ParseChain(slices.Concat(leaf, []byte("\n"), more))
	if err != nil {
		return nil, &FileError{File: issuer, Err: err}
	}
	return chain, nil
}

// usable says why a leaf is of no use to anybody.
func usable(leaf *x509.Certificate) error {
	if end := leaf.NotAfter; !time.Now().Before(end) {
		return fmt.Errorf("the certificate expired at %s", end.UTC().Format(time.RFC3339))
	}
	if leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
		return errors.New("the certificate is self-signed")
	}
	return nil
}

// origin says when a certificate is from a CA for tests and the store does not
// name that CA. What a CA does that the store names is for the caller to judge.
func (c *candidate) origin() error {
	host := hostOf(cmp.Or(c.CA, c.URL))
	if host != "" && host != hostOf(letsEncrypt) {
		return nil
	}
	issuer := c.leaf.Issuer.CommonName
	for _, mark := range []string{"(STAGING)", "Fake LE ", "Pebble "} {
		if strings.Contains(issuer, mark) {
			return &FileError{File: c.File, Err: fmt.Errorf("it was issued by %q, which is for tests", issuer)}
		}
	}
	return nil
}

// hostOf returns the host of a URL in lower case, empty when there is none.
func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// byName finds which certificates there are for each name. What is not a
// certificate it keeps as an error: nobody knows for which name it was.
func (f *files) byName(ctx context.Context, chains []string) (map[string][]string, []error) {
	out := map[string][]string{}
	var errs []error
	for _, file := range chains {
		value, err := f.load(ctx, file)
		if err == nil && value == nil {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		chain, err := certpem.ParseChain(value)
		if err != nil {
			errs = append(errs, &FileError{File: file, Err: err})
			continue
		}
		for _, name := range certpem.Names(chain[0]) {
			out[name] = append(out[name], file)
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

// accountKey reads an account's key. The account has none when there is no such
// file.
func (f *files) accountKey(ctx context.Context, file string) (Account, error) {
	value, err := f.load(ctx, file)
	if err != nil || value == nil {
		return Account{}, err
	}
	key, err := certpem.DecodeKey(value)
	if err != nil {
		return Account{}, &FileError{File: file, Err: err}
	}
	keyPEM, err := certpem.EncodeKey(key)
	if err != nil {
		return Account{}, &FileError{File: file, Err: err}
	}
	return Account{File: file, KeyPEM: string(keyPEM)}, nil
}
