package adopt_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
)

// issued makes a pair for example.com from a CA with a common name. An empty
// name makes one that signs itself.
func issued(t testing.TB, issuer string, end time.Time) (chain, key []byte) {
	t.Helper()
	signer, err := certpem.GenerateKey(certpem.P256)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(7), DNSNames: []string{"example.com"},
		NotBefore: end.Add(-90 * 24 * time.Hour), NotAfter: end,
	}
	parent, parentKey := leaf, signer
	var above []*x509.Certificate
	if issuer != "" {
		if parentKey, err = certpem.GenerateKey(certpem.P256); err != nil {
			t.Fatal(err)
		}
		parent = &x509.Certificate{
			SerialNumber: big.NewInt(8), Subject: pkix.Name{CommonName: issuer}, NotBefore: leaf.NotBefore, NotAfter: end,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		root := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "Root"}}
		der, err := x509.CreateCertificate(rand.Reader, parent, root, parentKey.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		above = []*x509.Certificate{parent}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, signer.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = certpem.EncodeKey(signer); err != nil {
		t.Fatal(err)
	}
	return certpem.EncodeChain(append([]*x509.Certificate{cert}, above...)), key
}

// stores write a store with one certificate whose files tell no CA.
var stores = []struct {
	name  string
	write func(t testing.TB, dir string, chain, key []byte)
	open  func(dir string) adopt.Source
}{
	{"certmagic", func(t testing.TB, dir string, chain, key []byte) {
		base := filepath.Join(dir, "certificates", "acme-v02.api.letsencrypt.org-directory", "example.com", "example.com")
		write(t, base+".crt", chain)
		write(t, base+".key", key)
	}, adopt.CertMagic},
	{"autocert", func(t testing.TB, dir string, chain, key []byte) {
		write(t, filepath.Join(dir, "example.com"), append(key, chain...))
	}, autocert},
	{"lego", func(t testing.TB, dir string, chain, key []byte) {
		write(t, filepath.Join(dir, "certificates", "example.com.crt"), chain)
		write(t, filepath.Join(dir, "certificates", "example.com.key"), key)
	}, adopt.Lego},
	{"certbot", func(t testing.TB, dir string, chain, key []byte) {
		write(t, filepath.Join(dir, "live", "example.com", "fullchain.pem"), chain)
		write(t, filepath.Join(dir, "live", "example.com", "privkey.pem"), key)
	}, adopt.Certbot},
}

// TestUselessCertificates tells of certificates that nobody should serve and does
// not return them. F46.
func TestUselessCertificates(t *testing.T) {
	later := time.Now().Add(24 * time.Hour)
	tests := []struct {
		name, issuer string
		end          time.Time
		why          string // empty: it is good
	}{
		{"good", "R10", later, ""},
		{"self-signed", "", later, "self-signed"},
		{"staging", "(STAGING) Riddling Rhubarb R12", later, "for tests"},
		{"staging of before", "Fake LE Intermediate X1", later, "for tests"},
		{"Pebble", "Pebble Intermediate CA 12ab34", later, "for tests"},
		{"expired", "R10", time.Now().Add(-time.Minute), "expired"},
	}
	for _, store := range stores {
		for _, tt := range tests {
			t.Run(store.name+"/"+tt.name, func(t *testing.T) {
				dir := t.TempDir()
				chain, key := issued(t, tt.issuer, tt.end)
				store.write(t, dir, chain, key)
				pairs, err := store.open(dir).Find(t.Context(), []string{"example.com"})
				bad := fileErrors(t, err)
				if tt.why == "" {
					if len(pairs) != 1 || len(bad) > 0 {
						t.Errorf("%v, %v", pairs, bad)
					}
					return
				}
				if len(pairs) > 0 || len(bad) != 1 || bad[0].Unreadable || !strings.Contains(bad[0].Error(), tt.why) {
					t.Errorf("%v, %v; want an error that says %q", pairs, bad, tt.why)
				}
			})
		}
	}
}

// TestTestCAThatIsNamed leaves it to the caller whether a CA for tests that the
// store, or the program, names is in use.
func TestTestCAThatIsNamed(t *testing.T) {
	chain, key := issued(t, "(STAGING) Riddling Rhubarb R12", time.Now().Add(24*time.Hour))
	found := func(s adopt.Source) adopt.Pair {
		t.Helper()
		pairs, err := s.Find(t.Context(), []string{"example.com"})
		if len(pairs) != 1 || err != nil {
			t.Fatalf("%s: %v, %v", s, pairs, err)
		}
		return pairs[0]
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "example.com"), append(key, chain...))
	if p := found(adopt.Autocert(dir, staging)); p.CA != staging {
		t.Errorf("%v", p)
	}
	dir = t.TempDir()
	for ext, data := range map[string][]byte{".crt": chain, ".key": key, ".json": []byte(`{"certUrl":"https://acme-staging-v02.api.letsencrypt.org/acme/cert/1"}`)} {
		write(t, filepath.Join(dir, "certificates", "example.com"+ext), data)
	}
	if p := found(adopt.Lego(dir)); p.CA != "" || !strings.Contains(p.URL, "staging") {
		t.Errorf("%v", p)
	}
	dir = t.TempDir()
	write(t, filepath.Join(dir, "live", "x", "fullchain.pem"), chain)
	write(t, filepath.Join(dir, "live", "x", "privkey.pem"), key)
	write(t, filepath.Join(dir, "renewal", "x.conf"), []byte("[renewalparams]\nserver = "+staging+"\n"))
	if p := found(adopt.Certbot(dir)); p.CA != staging {
		t.Errorf("%v", p)
	}
}

// TestFolderThatIsMissing is told and is no failure to read.
func TestFolderThatIsMissing(t *testing.T) {
	for _, store := range stores {
		dir := filepath.Join(t.TempDir(), "none")
		s := store.open(dir)
		pairs, err := s.Find(t.Context(), []string{"example.com"})
		bad := fileErrors(t, err)
		if len(pairs) > 0 || len(bad) != 1 || bad[0].Unreadable || bad[0].File != dir {
			t.Errorf("%s: %v, %v", s, pairs, bad)
		}
		if a, more := s.Account(t.Context(), letsEncrypt); a != nil || more == nil || more.Error() != err.Error() {
			t.Errorf("%s: account %v, %v; want the error %v", s, a, more, err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if pairs, err := s.Find(t.Context(), []string{"example.com"}); len(pairs) > 0 || err != nil {
			t.Errorf("%s in an empty folder: %v, %v", s, pairs, err)
		}
	}
}
