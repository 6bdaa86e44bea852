package certwright_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
)

// pairFor makes a certificate that signs itself, and its key.
func pairFor(t testing.TB, notBefore, notAfter time.Time, names ...string) (chain, key []byte) {
	t.Helper()
	signer, err := certpem.GenerateKey(certpem.P256)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: names, NotBefore: notBefore, NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = certpem.EncodeKey(signer); err != nil {
		t.Fatal(err)
	}
	return certpem.EncodeChain([]*x509.Certificate{leaf}), key
}

// place is where a layout keeps the certificate of example.com, and the name of
// another that stays whole.
type place struct {
	tree       string
	source     func(dir string) adopt.Source
	chain, key string
	other      string
}

var places = []place{
	{
		"certmagic",
		adopt.CertMagic,
		"certificates/acme-v02.api.letsencrypt.org-directory/example.com/example.com.crt",
		"certificates/acme-v02.api.letsencrypt.org-directory/example.com/example.com.key", "rsa.example.com",
	},
	{"autocert", autocertIn, "example.com", "example.com", "www.example.com"},
	{"lego5", adopt.Lego, "certificates/example.com.crt", "certificates/example.com.key", "api.example.org"},
	{"certbot", adopt.Certbot, "live/example.com/fullchain.pem", "live/example.com/privkey.pem", "copied.example.org"},
}

// pemPair is a chain and its key.
type pemPair struct{ chain, key []byte }

// pairDamage is something that happens to a pair.
type pairDamage struct {
	name  string
	spoil func(t *testing.T, f pemPair) pemPair
	key   bool // the key's file is named
}

// TestAdoptPassesOverDamage has one certificate of a source spoilt: it alone is
// ordered, and a warning names the file.
func TestAdoptPassesOverDamage(t *testing.T) {
	damages := []pairDamage{
		{"truncated key", func(t *testing.T, f pemPair) pemPair { return pemPair{f.chain, f.key[:len(f.key)/2]} }, true},
		{"empty key", func(t *testing.T, f pemPair) pemPair { return pemPair{f.chain, nil} }, true},
		{"truncated chain", func(t *testing.T, f pemPair) pemPair { return pemPair{f.chain[:len(f.chain)/3], f.key} }, false},
		{"HTML", func(t *testing.T, f pemPair) pemPair { return pemPair{[]byte("<html>502 Bad Gateway</html>"), f.key} }, false},
		{"other key", func(t *testing.T, f pemPair) pemPair {
			_, key := pairFor(t, time.Now(), time.Now().Add(day), "example.com")
			return pemPair{f.chain, key}
		}, false},
		{"expired", func(t *testing.T, f pemPair) pemPair {
			chain, key := pairFor(t, time.Now().Add(-90*day), time.Now(), "example.com")
			return pemPair{chain, key}
		}, false},
		{"giant", func(t *testing.T, f pemPair) pemPair {
			return pemPair{bytes.Repeat([]byte("\n"), 3<<20), f.key}
		}, false},
		{"other name", func(t *testing.T, f pemPair) pemPair {
			chain, key := pairFor(t, time.Now(), time.Now().Add(day), "other.example.com")
			return pemPair{chain, key}
		}, false},
	}
	for _, p := range places {
		for _, d := range damages {
			t.Run(p.tree+"/"+d.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { p.spoil(t, d) })
			})
		}
	}
}

// spoil damages the certificate in p and looks at what is adopted then.
func (p place) spoil(t *testing.T, d pairDamage) {
	ca, conf := newFakeLetsEncrypt(t)
	dir := unpack(t, p.tree)
	one := p.chain == p.key
	chainFile, keyFile := filepath.Join(dir, filepath.FromSlash(p.chain)), filepath.Join(dir, filepath.FromSlash(p.key))
	whole := pemPair{mustRead(t, chainFile), mustRead(t, keyFile)}
	if one { // the key comes first
		i := bytes.Index(whole.chain, []byte("-----BEGIN CERT"))
		whole.chain, whole.key = whole.chain[i:], whole.key[:i]
	}
	spoilt := d.spoil(t, whole)
	named := p.chain
	if d.key {
		named = p.key
	}
	if one {
		spoilt.chain = slices.Concat(spoilt.key, spoilt.chain)
		if err := os.Remove(chainFile + "+rsa"); err != nil { // as good
			t.Fatal(err)
		}
	} else {
		mustWrite(t, keyFile, spoilt.key)
	}
	mustWrite(t, chainFile, spoilt.chain)
	logger, logs := observed(slog.LevelWarn)
	conf.Logger, conf.Adopt = logger, []adopt.Source{p.source(dir)}
	m := start(t, conf)
	manage(t, m, "example.com", p.other)
	if n := ca.Count("newOrder"); n != 1 {
		t.Errorf("%d orders; want one", n)
	}
	said := ""
	for _, e := range logs.All() {
		said += e.Message + " " + e.Fields["err"] + "\n"
	}
	// lego and certbot find a certificate by the names in it.
	found := d.name != "other name" || p.tree == "certmagic" || p.tree == "autocert"
	if found != strings.Contains(said, named) || strings.Count(said, "\n") > 1 {
		t.Errorf("warnings:\n%s\nwant one that names %q", said, named)
	}
}

func mustRead(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustWrite(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
