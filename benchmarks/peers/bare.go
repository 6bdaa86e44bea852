package peers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sync/errgroup"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
)

// Bare is the limit: a map of certificates and nothing else. It reads three
// files a certificate, as CertMagic stores it, on two goroutines.
type Bare struct {
	read   func(name string) ([]byte, error)
	parsed bool // parse each certificate at once, as tls.X509KeyPair does

	certs  atomic.Pointer[map[string]*held]
	mu     sync.Mutex        // guards chains
	chains map[string][]byte // DER by PEM
}

// held is a certificate in a Bare: DER until it is wanted.
type held struct {
	leaf, key, rest []byte
	cert            atomic.Pointer[tls.Certificate]
}

func newBare(column string, read func(name string) ([]byte, error)) (*Bare, error) {
	switch column {
	case harness.Limit, harness.LimitParsed:
	default:
		return nil, fmt.Errorf("there is nothing to measure for column %q", column)
	}
	return &Bare{read: read, parsed: column == harness.LimitParsed, chains: map[string][]byte{}}, nil
}

// threeFiles reads the PEM of a certificate, the key first, from a store of
// CertMagic's in dir, and the metadata beside it.
func threeFiles(dir string) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		var files [3][]byte
		keys := certmagic.StorageKeys
		for i, path := range []func(issuer, name string) string{keys.SitePrivateKey, keys.SiteCert, keys.SiteMeta} {
			var err error
			if files[i], err = os.ReadFile(filepath.Join(dir, path(corpus.IssuerID, name))); err != nil {
				return nil, err
			}
		}
		var meta struct {
			Names []string `json:"sans"`
		}
		if err := json.Unmarshal(files[2], &meta); err != nil {
			return nil, err
		}
		return append(files[0], files[1]...), nil
	}
}

// Load implements Peer.
func (b *Bare) Load(_ context.Context, names []string) error {
	const goroutines = 2
	loaded := make([]*held, len(names))
	var g errgroup.Group
	for first := range goroutines {
		g.Go(func() (err error) {
			for i := first; i < len(names) && err == nil; i += goroutines {
				loaded[i], err = b.load(names[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	certs := make(map[string]*held, len(names))
	for i, name := range names {
		certs[name] = loaded[i]
	}
	b.certs.Store(&certs)
	return nil
}

func (b *Bare) load(name string) (*held, error) {
	text, err := b.read(name)
	if err != nil {
		return nil, err
	}
	if b.parsed {
		cert, err := tls.X509KeyPair(text, text)
		if err != nil {
			return nil, err
		}
		h := new(held)
		h.cert.Store(&cert)
		return h, nil
	}
	key, text := pem.Decode(text)
	leaf, text := pem.Decode(text)
	if key == nil || leaf == nil {
		return nil, fmt.Errorf("there is no certificate for %q", name)
	}
	// What pem.Decode returns has room to spare.
	return &held{leaf: bytes.Clone(leaf.Bytes), key: bytes.Clone(key.Bytes), rest: b.chain(text)}, nil
}

// chain decodes the rest of a chain, once for all that share it.
func (b *Bare) chain(text []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	der, ok := b.chains[string(text)]
	if !ok {
		if block, _ := pem.Decode(text); block != nil {
			der = block.Bytes
		}
		b.chains[string(text)] = der
	}
	return der
}

// Begin implements Peer: it loads the last name, which is the one asked for.
func (b *Bare) Begin(ctx context.Context, names []string) error {
	return b.Load(ctx, names[len(names)-1:])
}

// GetCertificate implements Peer. It knows neither wildcards nor upper case.
func (b *Bare) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	h := (*b.certs.Load())[hello.ServerName]
	if h == nil {
		return nil, errors.New("there is no such certificate")
	}
	if cert := h.cert.Load(); cert != nil {
		return cert, nil
	}
	key, err := parseKey(h.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(h.leaf)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{h.leaf, h.rest}, PrivateKey: key, Leaf: leaf}
	h.cert.Store(cert)
	return cert, nil
}

// parseKey reads a key in either of the forms that the stores have.
func parseKey(der []byte) (any, error) {
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParsePKCS8PrivateKey(der)
}

// Certificate returns what a Bare holds for a name, parsed, and nil for a name
// that it does not have.
func (b *Bare) Certificate(name string) *tls.Certificate {
	cert, err := b.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return nil
	}
	return cert
}

// Close implements Peer.
func (b *Bare) Close() {}
