// Package peers sets up what is measured: certwright, CertMagic, autocert, and
// the least that any of them could do. None of them asks the network for
// anything, since nothing is due.
package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"golang.org/x/crypto/acme/autocert"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/storage"
)

// A Peer is one of what is compared.
type Peer interface {
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)

	// Load returns when there is a certificate in memory for each of names.
	Load(ctx context.Context, names []string) error

	// Begin is Load without the wait, as far as the peer has that.
	Begin(ctx context.Context, names []string) error

	Close()
}

// errNoOrders is what issuers return.
var errNoOrders = errors.New("nothing is to be ordered in a benchmark")

// Folder returns the path of the store of that column, which it makes when it is
// missing. The limit reads CertMagic's.
func Folder(column string, c *corpus.Corpus) (string, error) {
	switch column {
	case harness.Certwright:
		return c.CertwrightDir()
	case harness.Autocert:
		return c.AutocertDir()
	}
	return c.CertMagicDir()
}

// InFolders returns the peer of that column over its own store.
func InFolders(column string, c *corpus.Corpus) (Peer, error) {
	dir, err := Folder(column, c)
	if err != nil {
		return nil, err
	}
	switch column {
	case harness.Certwright:
		return overDir(dir)
	case harness.CertMagic:
		return NewCertMagic(&certmagic.FileStorage{Path: dir}), nil
	case harness.Autocert:
		return NewAutocert(autocert.DirCache(dir))
	}
	return newBare(column, threeFiles(dir))
}

// InFile returns the peer of that column over the corpus's own file, which keeps
// nothing in memory.
func InFile(column string, c *corpus.Corpus) (Peer, error) {
	switch column {
	case harness.Certwright:
		return NewCertwright(corpus.NewCertwrightStorage(c))
	case harness.CertMagic:
		return NewCertMagic(corpus.CertMagicStorage{Corpus: c}), nil
	case harness.Autocert:
		return NewAutocert(corpus.AutocertCache{Corpus: c})
	}
	return newBare(column, func(name string) ([]byte, error) {
		return corpus.AutocertCache{Corpus: c}.Get(context.Background(), name)
	})
}

// Certwright is a Manager as a Peer.
type Certwright struct {
	*certwright.Manager
	dir *storage.Dir // nil when there is none to be closed
}

// NewCertwright makes a Manager over storage, with a Config that may be changed.
func NewCertwright(storage storage.Storage, change ...func(*certwright.Config)) (*Certwright, error) {
	conf := certwright.Config{
		Storage: storage, Issuers: []certwright.Issuer{issuer{}}, Logger: slog.New(slog.DiscardHandler),
		HTTPPort: -1, TLSPort: -1,
	}
	for _, f := range change {
		f(&conf)
	}
	m, err := certwright.New(conf)
	if err != nil {
		return nil, err
	}
	return &Certwright{Manager: m}, nil
}

func overDir(dir string) (*Certwright, error) {
	storage, err := storage.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	c, err := NewCertwright(storage)
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	c.dir = storage
	return c, nil
}

// Load implements Peer.
func (c *Certwright) Load(ctx context.Context, names []string) error {
	return c.ManageSync(ctx, names)
}

// Settle returns when nothing is due: the upkeep of a certificate follows its
// loading.
func (c *Certwright) Settle() {
	for {
		h := c.Health()
		if h.Running == 0 && (h.NextDue.IsZero() || time.Until(h.NextDue) > time.Minute) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Begin implements Peer.
func (c *Certwright) Begin(_ context.Context, names []string) error { return c.ManageAsync(names) }

// Close implements Peer.
func (c *Certwright) Close() {
	_ = c.Manager.Close(context.Background())
	if c.dir != nil {
		_ = c.dir.Close()
	}
}

// issuer is a certwright.Issuer that refuses.
type issuer struct{}

func (issuer) ID() string { return corpus.IssuerID }

func (issuer) Issue(context.Context, certwright.IssueRequest) (certwright.Issued, error) {
	return certwright.Issued{}, errNoOrders
}

// CertMagic is a certmagic.Config as a Peer.
type CertMagic struct {
	*certmagic.Config
	Cache *certmagic.Cache
}

// NewCertMagic makes a Config with a Cache of its own over storage.
func NewCertMagic(storage certmagic.Storage) *CertMagic {
	var c CertMagic
	c.Cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.Config, nil },
		Logger:           zap.NewNop(),
	})
	c.Config = certmagic.New(c.Cache, certmagic.Config{
		Storage: storage, Issuers: []certmagic.Issuer{magicIssuer{}}, Logger: zap.NewNop(),
	})
	return &c
}

// Load implements Peer.
func (c *CertMagic) Load(ctx context.Context, names []string) error { return c.ManageSync(ctx, names) }

// Begin implements Peer.
func (c *CertMagic) Begin(ctx context.Context, names []string) error {
	return c.ManageAsync(ctx, names)
}

// Close implements Peer.
func (c *CertMagic) Close() { c.Cache.Stop() }

// magicIssuer is a certmagic.Issuer that refuses.
type magicIssuer struct{}

func (magicIssuer) IssuerKey() string { return corpus.IssuerID }

func (magicIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return nil, errNoOrders
}

// Autocert is an autocert.Manager as a Peer. It knows no names: its policy is to
// take those of the corpus.
type Autocert struct {
	*autocert.Manager
	hello   *tls.ClientHelloInfo
	release func()
}

// NewAutocert makes a Manager over cache.
func NewAutocert(cache autocert.Cache) (*Autocert, error) {
	hello, release, err := harness.Hello()
	if err != nil {
		return nil, err
	}
	return &Autocert{hello: hello, release: release, Manager: &autocert.Manager{
		Cache: cache, Prompt: autocert.AcceptTOS,
		HostPolicy: func(_ context.Context, host string) error {
			if !strings.HasSuffix(host, ".hosting.example") {
				return errNoOrders
			}
			return nil
		},
	}}, nil
}

// Load implements Peer: autocert loads a certificate when it is first asked for.
func (a *Autocert) Load(_ context.Context, names []string) error {
	hello := *a.hello
	for _, name := range names {
		hello.ServerName = name
		if _, err := a.GetCertificate(&hello); err != nil {
			return fmt.Errorf("loading %q: %w", name, err)
		}
	}
	return nil
}

// Begin implements Peer. There is nothing to begin.
func (a *Autocert) Begin(context.Context, []string) error { return nil }

// Close implements Peer.
func (a *Autocert) Close() { a.release() }
