package certwright

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/certwright/certwright/internal/certpem"
)

// TestBrokenKey has a record that is whole and whose key is not one that fits:
// nothing is served for it, Status says so, and it is told once.
func TestBrokenKey(t *testing.T) {
	f := newFakeSigner(t)
	mem := NewMemStorage()
	first := offline(t, f, func(c *Config) { c.Storage = mem })
	manage(t, first, "a.example.com", "b.example.com")
	closeManager(t, first)
	key := storageKey(keyCerts, f.ID(), "a.example.com")
	value, err := mem.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := new(decoder).bundle("a.example.com", value)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := certpem.GenerateKey(certpem.P256)
	if err != nil {
		t.Fatal(err)
	}
	r := certRecord{
		ID: "a.example.com", Names: []string{"a.example.com"}, Issuer: f.ID(), Stored: s.stored(),
		Key: mixedKey(t, cert.PrivateKey, other), Chain: string(certpem.EncodeChain(parsedChain(t, cert.Certificate))),
	}
	if err := storeRecord(t.Context(), mem, recordPlace{key, kindCertificate}, r); err != nil {
		t.Fatal(err)
	}
	log, logs := observed(zap.ErrorLevel)
	m := offline(t, f, func(c *Config) { c.Storage, c.Logger = mem, log })
	manage(t, m, "a.example.com", "b.example.com")
	for range 3 {
		if leafOf(m, "a.example.com") != nil {
			t.Error("a certificate without its key is served")
		}
	}
	mustLeaf(t, m, "b.example.com")
	if s := statusFor(t, m, "a.example.com"); !strings.Contains(s.Degraded, "cannot be parsed") {
		t.Errorf("Status says %q", s.Degraded)
	}
	if n := logs.Len(); n != 1 {
		t.Errorf("%d errors in the log; want one", n)
	}
	if err := m.Renew(t.Context(), "a.example.com"); err != nil {
		t.Fatal(err)
	}
	mustLeaf(t, m, "a.example.com")
	if s := statusFor(t, m, "a.example.com"); s.Degraded != "" {
		t.Errorf("after Renew, Status says %q", s.Degraded)
	}
}

// mixedKey is the text of a key whose public half is that of one and whose
// private half is that of another.
func mixedKey(t *testing.T, public crypto.PrivateKey, private crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(public)
	if err != nil {
		t.Fatal(err)
	}
	was, err := public.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	is, err := private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes.Replace(der, was, is, 1)}))
}

func parsedChain(t *testing.T, ders [][]byte) (chain []*x509.Certificate) {
	t.Helper()
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	return chain
}
