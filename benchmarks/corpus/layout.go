package corpus

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/acme/autocert"

	"github.com/certwright/certwright/internal/records"
)

// IssuerID names the issuer in stores.
const IssuerID = "ca.example-directory"

// certsBelow is the folder of certificates in certwright's storage.
const certsBelow = "v1/certs"

// record is what a Records stores, and is its Storage.
type record struct {
	key   string
	value []byte
}

// Load implements records.Storage.
func (*record) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }

// Store implements records.Storage.
func (r *record) Store(_ context.Context, key string, value []byte) error {
	r.key, r.value = key, value
	return nil
}

// Delete implements records.Storage.
func (*record) Delete(context.Context, string) error { return errors.ErrUnsupported }

// List implements records.Storage.
func (*record) List(context.Context, string) ([]string, error) { return nil, errors.ErrUnsupported }

// Record returns the key and the value of a pair in certwright's storage. The
// names are those in the leaf.
func (p Pair) Record() (key string, value []byte, err error) {
	private, err := x509.ParseECPrivateKey(p.Key)
	if err != nil {
		return "", nil, err
	}
	leaf, err := x509.ParseCertificate(p.Leaf)
	if err != nil {
		return "", nil, err
	}
	var out record
	keeper := records.New(&out, records.Options{}) // one each, for it remembers what it has stored
	b, _, err := keeper.Make(records.NewBundle{
		Names: leaf.DNSNames, CA: IssuerID, Account: IssuerID, Key: private, Chain: p.ChainPEM(), Stored: leaf.NotBefore.Add(time.Hour),
	})
	if err != nil {
		return "", nil, err
	}
	data := fmt.Appendf(nil, `{"url":"https://ca.example/cert/%x"}`, leaf.SerialNumber)
	err = keeper.StoreBundle(context.Background(), records.Stored{Bundle: b, Data: data})
	return out.key, out.value, err
}

// RecordFile returns where a storage.Dir has the record of a key, as far as keys
// of a corpus go.
func RecordFile(key string) string {
	return filepath.FromSlash(strings.NewReplacer("+", "%2b", "*", "%2a").Replace(key)) + ".rec"
}

// RecordKey returns the key of the record of a plain name.
func RecordKey(name string) string { return certsBelow + "/" + records.ID([]string{name}, "") + ".pem" }

// CertwrightDir returns a folder with the certificates for the plain names as a
// storage.Dir keeps them.
func (c *Corpus) CertwrightDir() (string, error) {
	return c.folder("certwright", func(dir string, p Pair) error {
		key, value, err := p.Record()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, RecordFile(key)), value, 0o600)
	}, certsBelow, "locks")
}

// CertMagicDir is CertwrightDir for a certmagic.FileStorage.
func (c *Corpus) CertMagicDir() (string, error) {
	return c.folder("certmagic", func(dir string, p Pair) error {
		keys := certmagic.StorageKeys
		if err := os.Mkdir(filepath.Join(dir, keys.CertsSitePrefix(IssuerID, p.Name)), 0o700); err != nil {
			return err
		}
		return errors.Join(
			os.WriteFile(filepath.Join(dir, keys.SiteCert(IssuerID, p.Name)), p.ChainPEM(), 0o600),
			os.WriteFile(filepath.Join(dir, keys.SitePrivateKey(IssuerID, p.Name)), p.KeyPEM(), 0o600),
			os.WriteFile(filepath.Join(dir, keys.SiteMeta(IssuerID, p.Name)), p.certMagicMeta(), 0o600),
		)
	}, certmagic.StorageKeys.CertsPrefix(IssuerID))
}

// certMagicMeta is the third of the files that CertMagic keeps.
func (p Pair) certMagicMeta() []byte {
	return fmt.Appendf(nil, "{\n\t\"sans\": [\n\t\t%q\n\t],\n\t\"issuer_data\": {\n\t\t\"url\": \"https://ca.example/cert/%x\",\n\t\t\"ca\": \"https://ca.example/directory\"\n\t}\n}",
		p.Name, sha256.Sum256(p.Leaf))
}

// AutocertDir is CertwrightDir for an autocert.DirCache: one PEM file a
// certificate.
func (c *Corpus) AutocertDir() (string, error) {
	return c.folder("autocert", func(dir string, p Pair) error {
		return os.WriteFile(filepath.Join(dir, p.Name), p.pemFile(), 0o600)
	})
}

func (p Pair) pemFile() []byte { return slices.Concat(p.KeyPEM(), p.ChainPEM()) }

// folder makes a folder with subs in it, once, and has each pair written.
func (c *Corpus) folder(name string, put func(dir string, p Pair) error, subs ...string) (string, error) {
	dir := filepath.Join(c.dir, name)
	err := build(dir, func(tmp string) error {
		for _, sub := range subs {
			if err := os.MkdirAll(filepath.Join(tmp, filepath.FromSlash(sub)), 0o700); err != nil {
				return err
			}
		}
		return parallel(c.N, func(i int) error {
			p, err := c.Pair(i)
			if err != nil {
				return err
			}
			return put(tmp, p)
		})
	})
	if err != nil {
		return "", fmt.Errorf("writing the store of %s: %w", name, err)
	}
	return dir, nil
}

// CertMagicStorage is a certmagic.Storage with all pairs of a corpus, which it
// reads from one file. It holds nothing else and takes nothing.
type CertMagicStorage struct{ Corpus *Corpus }

var _ certmagic.Storage = CertMagicStorage{}

// Load implements certmagic.Storage.
func (s CertMagicStorage) Load(_ context.Context, key string) ([]byte, error) {
	site, file := filepath.Split(key)
	name := strings.Replace(filepath.Base(site), "wildcard_", "*", 1)
	i, ok := s.Corpus.Index(name)
	if !ok {
		return nil, fmt.Errorf("loading %q: %w", key, fs.ErrNotExist)
	}
	p, err := s.Corpus.Pair(i)
	if err != nil {
		return nil, err
	}
	switch filepath.Ext(file) {
	case ".crt":
		return p.ChainPEM(), nil
	case ".key":
		return p.KeyPEM(), nil
	}
	return p.certMagicMeta(), nil
}

// Exists implements certmagic.Storage.
func (s CertMagicStorage) Exists(ctx context.Context, key string) bool {
	_, err := s.Load(ctx, key)
	return err == nil
}

// Store implements certmagic.Storage.
func (CertMagicStorage) Store(context.Context, string, []byte) error { return errors.ErrUnsupported }

// Delete implements certmagic.Storage.
func (CertMagicStorage) Delete(context.Context, string) error { return errors.ErrUnsupported }

// List implements certmagic.Storage.
func (CertMagicStorage) List(context.Context, string, bool) ([]string, error) {
	return nil, errors.ErrUnsupported
}

// Stat implements certmagic.Storage.
func (CertMagicStorage) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, errors.ErrUnsupported
}

// Lock implements certmagic.Storage.
func (CertMagicStorage) Lock(context.Context, string) error { return errors.ErrUnsupported }

// Unlock implements certmagic.Storage.
func (CertMagicStorage) Unlock(context.Context, string) error { return errors.ErrUnsupported }

// AutocertCache is an autocert.Cache with all pairs of a corpus, which it reads
// from one file. It holds nothing else and takes nothing.
type AutocertCache struct{ Corpus *Corpus }

var _ autocert.Cache = AutocertCache{}

// Get implements autocert.Cache.
func (a AutocertCache) Get(_ context.Context, key string) ([]byte, error) {
	i, ok := a.Corpus.Index(key)
	if !ok {
		return nil, autocert.ErrCacheMiss
	}
	p, err := a.Corpus.Pair(i)
	if err != nil {
		return nil, err
	}
	return p.pemFile(), nil
}

// Put implements autocert.Cache.
func (AutocertCache) Put(context.Context, string, []byte) error { return errors.ErrUnsupported }

// Delete implements autocert.Cache.
func (AutocertCache) Delete(context.Context, string) error { return errors.ErrUnsupported }
