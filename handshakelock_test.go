package certwright

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// It looks inside because only there are the locks.
func TestHandshakeTakesNoLock(t *testing.T) {
	m, err := New(Config{
		AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Logger: slog.New(slog.DiscardHandler),
		Directory: "https://ca.test/directory", DisableStapling: true, DisableRenewalInfo: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	b := signedBundle(t, m, "example.com", "203.0.113.1")
	if err := m.records.StoreBundle(t.Context(), records.Stored{Bundle: b}); err != nil {
		t.Fatal(err)
	}
	if err := m.Manage(t.Context(), Spec{Names: b.Names}); err != nil {
		t.Fatal(err)
	}
	c := m.all()[0]
	m.mu.Lock()
	defer m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	m.spawning.Lock()
	defer m.spawning.Unlock()
	done := make(chan error, 1)
	go func() {
		for _, name := range b.Names {
			if _, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: name}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a handshake waits for a lock")
	}
}

// signedBundle is a certificate for names from the CA of Config.Directory.
func signedBundle(t *testing.T, m *Manager, names ...string) *records.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := m.records.Make(records.NewBundle{
		Names: names, CA: m.bound[0].ca, Account: m.bound[0].id, Key: key, Chain: certpem.EncodeChain([]*x509.Certificate{leaf}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
