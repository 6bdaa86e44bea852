package records_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

// began is when the certificates of the tests begin, and day what they are
// counted in.
var began = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// now is a day after began.
var now = began.Add(day)

// fakeStorage keeps values in memory, counts calls and fails as it is told.
type fakeStorage struct {
	mu     sync.Mutex // guards all
	values map[string][]byte
	loads  map[string]int
	lists  int
	fail   func(verb, key string) error // may be nil
}

func newFakeStorage() *fakeStorage {
	return &fakeStorage{values: make(map[string][]byte), loads: make(map[string]int)}
}

func (f *fakeStorage) failing(verb, key string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(verb, key)
}

func (f *fakeStorage) Load(_ context.Context, key string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loads[key]++
	if err := f.failing("load", key); err != nil {
		return nil, err
	}
	v, ok := f.values[key]
	if !ok {
		return nil, fmt.Errorf("loading key %q: %w", key, fs.ErrNotExist)
	}
	return slices.Clone(v), nil
}

func (f *fakeStorage) Store(_ context.Context, key string, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failing("store", key); err != nil {
		return err
	}
	f.values[key] = slices.Clone(value)
	return nil
}

func (f *fakeStorage) Delete(_ context.Context, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failing("delete", key); err != nil {
		return err
	}
	delete(f.values, key)
	return nil
}

func (f *fakeStorage) List(_ context.Context, prefix string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	if err := f.failing("list", prefix); err != nil {
		return nil, err
	}
	var keys []string
	for key := range f.values {
		if strings.HasPrefix(key, prefix+"/") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (f *fakeStorage) get(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.values[key])
}

func (f *fakeStorage) put(key string, value []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[key] = value
}

// fakeCA signs certificates below one root.
type fakeCA struct {
	t     testing.TB
	root  *x509.Certificate
	rootK crypto.Signer
	inter *x509.Certificate
	key   crypto.Signer // the intermediate's
}

func newFakeCA(t testing.TB) *fakeCA {
	c := &fakeCA{t: t, rootK: newKey(t, certpem.P256), key: newKey(t, certpem.P256)}
	root := caTemplate("Test Root")
	c.root = sign(t, root, root, c.rootK.Public(), c.rootK)
	c.inter = sign(t, caTemplate("Test Intermediate"), c.root, c.key.Public(), c.rootK)
	return c
}

func newKey(t testing.TB, kind certpem.KeyType) crypto.Signer {
	t.Helper()
	key, err := certpem.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"Test Organization"}, CommonName: name},
		NotBefore: began.Add(-100 * day), NotAfter: began.Add(3000 * day),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] |= 1
	return new(big.Int).SetBytes(b)
}

func sign(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf signs a certificate of 90 days, which change may alter before.
func (c *fakeCA) leaf(key crypto.Signer, names []string, change func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: began, NotAfter: began.Add(90 * day),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if change != nil {
		change(template)
	}
	return sign(c.t, template, c.inter, key.Public(), c.key)
}

// bundle makes a bundle for names with a P-256 key; change may alter the leaf.
func (c *fakeCA) bundle(r *records.Records, names []string, change func(*x509.Certificate)) *records.Bundle {
	c.t.Helper()
	key := newKey(c.t, certpem.P256)
	return c.make(r, records.NewBundle{Names: names, Key: key, Chain: certpem.EncodeChain([]*x509.Certificate{c.leaf(key, names, change), c.inter})})
}

// make fills in where the bundle comes from.
func (c *fakeCA) make(r *records.Records, n records.NewBundle) *records.Bundle {
	c.t.Helper()
	if n.CA == "" {
		n.CA, n.Account, n.Stored = "https://ca.example/directory", "ca.example-directory", began.Add(time.Hour)
	}
	b, warnings, err := r.Make(n)
	if err != nil || len(warnings) > 0 {
		c.t.Fatalf("Make: %v, %v", warnings, err)
	}
	return b
}

func store(t testing.TB, r *records.Records, b *records.Bundle) {
	t.Helper()
	if err := r.StoreBundle(context.Background(), records.Stored{Bundle: b}); err != nil {
		t.Fatal(err)
	}
}

func certKey(b *records.Bundle) string { return "v1/certs/" + b.ID() + ".pem" }

// fakeKey is an ECDSA key on a curve that is not supported.
func fakeKey(t testing.TB) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certList(certs ...*x509.Certificate) []*x509.Certificate { return certs }
