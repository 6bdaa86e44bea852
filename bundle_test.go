package certwright

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/storage"
)

// TestBrokenKey has a record that is whole and whose key is not one that fits:
// nothing is served for it, Status says so, it is told once, and it is replaced.
func TestBrokenKey(t *testing.T) { synctest.Test(t, testBrokenKey) }

func testBrokenKey(t *testing.T) {
	f := newFakeSigner(t)
	mem := storage.NewMemory()
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
	f.set(func() { f.err = errors.New("not today") })
	log, logs := observed(slog.LevelError)
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
	if n := strings.Count(fmt.Sprint(logs.All()), "cannot be parsed"); n != 1 {
		t.Errorf("told %d times; want once", n)
	}
	f.set(func() { f.err = nil })
	for leafOf(m, "a.example.com") == nil {
		synctest.Wait()
		time.Sleep(time.Minute)
	}
	if s := statusFor(t, m, "a.example.com"); s.Degraded != "" {
		t.Errorf("afterwards, Status says %q", s.Degraded)
	}
}

// TestUnparsableLeaf has a certificate that only crypto/x509 refuses be replaced.
func TestUnparsableLeaf(t *testing.T) { synctest.Test(t, testUnparsableLeaf) }

func testUnparsableLeaf(t *testing.T) {
	f := newFakeSigner(t)
	f.addIntermediate(t)
	mem := storage.NewMemory()
	first := offline(t, f, func(c *Config) { c.Storage = mem })
	manage(t, first, "a.example.com", "b.example.com")
	closeManager(t, first)
	place := recordPlace{storageKey(keyCerts, f.ID(), "a.example.com"), kindCertificate}
	value, err := mem.Load(t.Context(), place.key)
	if err != nil {
		t.Fatal(err)
	}
	var r certRecord
	if err := record.Decode(kindCertificate, value, &r); err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode([]byte(r.Chain))
	// The last algorithm identifier, which is outside of what is signed.
	oid := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}
	i := bytes.LastIndex(block.Bytes, oid)
	block.Bytes[i+len(oid)-1]++
	r.Chain = string(pem.EncodeToMemory(block)) + string(rest)
	if err := storeRecord(t.Context(), mem, place, r); err != nil {
		t.Fatal(err)
	}
	m := offline(t, f, func(c *Config) { c.Storage = mem })
	manage(t, m, "b.example.com") // now the chain behind the leaf is known
	manage(t, m, "a.example.com")
	replace := make(chan struct{})
	f.set(func() { f.hook = func(context.Context) error { <-replace; return nil } })
	for range 3 {
		if leafOf(m, "a.example.com") != nil {
			t.Error("what cannot be parsed is served")
		}
	}
	broken := m.entry("a.example.com").open().served
	close(replace)
	for leafOf(m, "a.example.com") == nil {
		synctest.Wait()
		time.Sleep(time.Minute)
	}
	if s := statusFor(t, m, "a.example.com"); s.Degraded != "" || s.State != StateValid {
		t.Errorf("Status says %+v", s)
	}
	// A handshake that began before the replacement ends after it.
	m.noteBroken(&m.entry("a.example.com").Entry, broken, errors.New("too late"))
	synctest.Wait()
	if s := statusFor(t, m, "a.example.com"); s.Degraded != "" {
		t.Errorf("Status says %q of what was replaced", s.Degraded)
	}
	if n := f.count(); n != 3 {
		t.Errorf("%d certificates were issued; want 3", n)
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
