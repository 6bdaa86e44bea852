// Package corpus makes the certificates that the benchmarks serve: leaves of
// the shape that public CAs issue today, from a CA that exists only here. The
// same certificates are written as certwright, CertMagic and autocert store
// them, so that all are measured over the same work.
//
// No leaf names an OCSP responder and no record holds renewal information: no
// library has anything to ask of the network.
package corpus

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// form changes when what is made changes, so that nothing old is used.
	form = 3

	// fresh is for how long a corpus is used again. Its leaves are not due for
	// renewal for more than twice as long.
	fresh = 10 * 24 * time.Hour

	nameFormat = "shop%06d.hosting.example"
	zoneFormat = "*.zone%06d.hosting.example"
)

// A Corpus is a number of certificates with keys, one name each. It is safe for
// concurrent use. Names are not kept in memory, and pairs are read from a file.
type Corpus struct {
	N     int // certificates for plain names
	Zones int // certificates for wildcards, which come after them

	dir          string
	intermediate []byte // DER
	slots        *os.File
}

// Open returns the corpus of n plain names and as many wildcards, at most 10,000. It
// is made at the first call and kept in a folder below os.TempDir for other
// programs. The caller closes it.
func Open(n int) (*Corpus, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("certwright-corpus-%d-%d", form, os.Getuid()), strconv.Itoa(n))
	return OpenIn(dir, n)
}

// OpenIn is Open with a folder of the caller's.
func OpenIn(dir string, n int) (*Corpus, error) {
	info, err := os.Stat(filepath.Join(dir, caFile))
	if err == nil && time.Since(info.ModTime()) > fresh {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c := &Corpus{N: n, Zones: min(n, 10_000), dir: dir}
	if err := build(dir, func(tmp string) error { return write(tmp, c) }); err != nil {
		return nil, fmt.Errorf("making %d certificates in %q: %w", n, dir, err)
	}
	if c.intermediate, err = os.ReadFile(filepath.Join(dir, caFile)); err != nil {
		return nil, err
	}
	c.slots, err = os.Open(filepath.Join(dir, slotFile))
	return c, err
}

// build has fill make a folder that appears as a whole, or not at all. One that
// exists is left as it is.
func build(dir string, fill func(tmp string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".part-")
	if err != nil {
		return err
	}
	err = fill(tmp)
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
	}
	if _, there := os.Stat(dir); there == nil { // another program was faster
		return nil
	}
	return err
}

// Close closes the file with the pairs.
func (c *Corpus) Close() error { return c.slots.Close() }

// Name returns the i-th name: below N a plain one, from there on a wildcard.
func (c *Corpus) Name(i int) string {
	if i < c.N {
		return fmt.Sprintf(nameFormat, i)
	}
	return fmt.Sprintf(zoneFormat, i-c.N)
}

// Names returns the plain names.
func (c *Corpus) Names() []string { return c.names(0, c.N) }

// Wildcards returns the wildcards.
func (c *Corpus) Wildcards() []string { return c.names(c.N, c.N+c.Zones) }

func (c *Corpus) names(from, to int) []string {
	names := make([]string, 0, to-from)
	for i := from; i < to; i++ {
		names = append(names, c.Name(i))
	}
	return names
}

// Index returns the place of a name, and false for a name that has none.
func (c *Corpus) Index(name string) (int, bool) {
	text, plain := strings.CutPrefix(name, "shop")
	if !plain {
		var ok bool
		if text, ok = strings.CutPrefix(name, "*.zone"); !ok {
			return 0, false
		}
	}
	digits, _, _ := strings.Cut(text, ".")
	i, err := strconv.Atoi(digits)
	if err != nil || i < 0 {
		return 0, false
	}
	if !plain {
		i += c.N
	}
	if i >= c.N+c.Zones || c.Name(i) != name {
		return 0, false
	}
	return i, true
}

// Pair is a certificate with its key.
type Pair struct {
	Name         string
	Key          []byte // DER, SEC 1
	Leaf         []byte // DER
	Intermediate []byte // DER, shared by all
}

// ChainPEM returns the chain, leaf first.
func (p Pair) ChainPEM() []byte {
	return slices.Concat(encode("CERTIFICATE", p.Leaf), encode("CERTIFICATE", p.Intermediate))
}

// KeyPEM returns the key in the form of SEC 1, as CertMagic and autocert store
// it.
func (p Pair) KeyPEM() []byte { return encode("EC PRIVATE KEY", p.Key) }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Certificate parses the pair.
func (p Pair) Certificate() (*tls.Certificate, error) {
	key, err := x509.ParseECPrivateKey(p.Key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(p.Leaf)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{p.Leaf, p.Intermediate}, PrivateKey: key, Leaf: leaf}, nil
}
