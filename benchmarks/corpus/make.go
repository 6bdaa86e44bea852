package corpus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	caFile   = "intermediate.der"
	slotFile = "pairs.bin"

	// slotSize is the size of a pair in the file: two lengths, key and leaf.
	slotSize = 2048
)

// ca signs leaves.
type ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate // the intermediate
}

func newCA() (*ca, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := caTemplate("Benchmark Root X1")
	cert := caTemplate("E1")
	cert.MaxPathLenZero = true
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	cert.IssuingCertificateURL = []string{"http://x1.i.ca.example/"}
	cert.CRLDistributionPoints = []string{"http://x1.c.ca.example/"}
	cert.Policies = policies()
	root.SubjectKeyId = make([]byte, 20)
	der, err := x509.CreateCertificate(rand.Reader, cert, root, key.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	return &ca{key: key, cert: parsed}, err
}

func caTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Country: []string{"EX"}, Organization: []string{"Benchmark CA"}, CommonName: name},
		NotBefore: now.Add(-365 * 24 * time.Hour), NotAfter: now.Add(5 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
}

func serial() *big.Int {
	b := make([]byte, 18)
	_, _ = rand.Read(b) // never fails
	b[0] = 5            // positive, and of one length
	return new(big.Int).SetBytes(b)
}

// policies are those of a certificate whose domain was validated.
func policies() []x509.OID {
	oid, err := x509.OIDFromInts([]uint64{2, 23, 140, 1, 2, 1})
	if err != nil {
		panic(err) // the numbers are constant
	}
	return []x509.OID{oid}
}

// issue makes a key and a leaf for names, issued ten days ago for ninety.
func (c *ca) issue(names ...string) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	begin := time.Now().Add(-10 * 24 * time.Hour)
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: begin, NotAfter: begin.Add(90*24*time.Hour - time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IssuingCertificateURL: []string{"http://e1.i.ca.example/"},
		CRLDistributionPoints: []string{"http://e1.c.ca.example/73.crl"}, Policies: policies(),
		SubjectKeyId: make([]byte, 20), ExtraExtensions: []pkix.Extension{sctList()},
	}
	_, _ = rand.Read(t.SubjectKeyId)
	leaf, err := x509.CreateCertificate(rand.Reader, t, c.cert, key.Public(), c.key)
	if err != nil {
		return Pair{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	return Pair{Name: names[0], Key: der, Leaf: leaf, Intermediate: c.cert.Raw}, err
}

// sctList is an extension with the size of two signed certificate timestamps
// (RFC 6962 §3.3) and random bytes in their place.
func sctList() pkix.Extension {
	list := make([]byte, 242)
	_, _ = rand.Read(list)
	value, err := asn1.Marshal(list)
	if err != nil {
		panic(err) // bytes can be marshalled
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// write makes the certificates of c in dir.
func write(dir string, c *Corpus) error {
	signer, err := newCA()
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, slotFile))
	if err != nil {
		return err
	}
	defer f.Close()
	err = parallel(c.N+c.Zones, func(i int) error {
		p, err := signer.issue(c.Name(i))
		if err != nil {
			return err
		}
		return writeSlot(f, i, p)
	})
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, caFile), signer.cert.Raw, 0o600)
}

// parallel calls do for each of 0 to n-1, on all cores.
func parallel(n int, do func(i int) error) error {
	var g errgroup.Group
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		g.Go(func() error {
			for i := w; i < n; i += workers {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func writeSlot(f io.WriterAt, i int, p Pair) error {
	b := make([]byte, 4, slotSize)
	binary.BigEndian.PutUint16(b, uint16(len(p.Key)))
	binary.BigEndian.PutUint16(b[2:], uint16(len(p.Leaf)))
	b = append(append(b, p.Key...), p.Leaf...)
	if len(b) > slotSize {
		return fmt.Errorf("the certificate for %q takes %d bytes, at most %d", p.Name, len(b), slotSize)
	}
	_, err := f.WriteAt(b[:slotSize], int64(i)*slotSize)
	return err
}

// Pair reads the i-th certificate.
func (c *Corpus) Pair(i int) (Pair, error) {
	b := make([]byte, slotSize)
	if _, err := c.slots.ReadAt(b, int64(i)*slotSize); err != nil {
		return Pair{}, fmt.Errorf("reading certificate %d: %w", i, err)
	}
	key, leaf := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	return Pair{Name: c.Name(i), Key: b[:key:key], Leaf: b[key : key+leaf : key+leaf], Intermediate: c.intermediate}, nil
}
