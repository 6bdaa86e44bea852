package certwright_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
)

// mostOrders ends a loop of orders that costs no fake time.
const mostOrders = 500

// atMost has the signer take its time once it was asked too often.
func (f *fakeSigner) atMost(n int) {
	f.set(func() {
		f.hook = func(ctx context.Context) error {
			if f.count() < n {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
	})
}

// endIntermediate has an intermediate sign from now on that has ended already, but
// not before the leaves begin, which are backdated by an hour.
func (f *fakeSigner) endIntermediate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ended"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: f.root.NotBefore, NotAfter: time.Now().Add(-time.Minute),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, f.root, key.Public(), f.key)
	if err != nil {
		t.Fatal(err)
	}
	by, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		f.by, f.key, f.above = by, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		f.validity = func() (from, to time.Time) { return time.Now().Add(-time.Hour), time.Now().Add(90 * day) }
	})
}

// A CA goes on signing with an intermediate that has ended: what it issues is of
// no use, is not served in place of what is, and is not asked for in a loop. (F9)
func TestChainThatHasEndedReplacesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		m := offline(t, f)
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		f.endIntermediate(t)
		f.atMost(mostOrders)
		if m.Renew(t.Context(), "a.example.com") == nil {
			t.Error("Renew is content with a chain that has ended")
		}
		time.Sleep(day)
		if !mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Error("a chain that has ended is served in place of a good one")
		}
		if n := f.count(); n > 10 {
			t.Errorf("%d orders in a day", n)
		}
	})
}

// A CA issues what lives for a moment (F53).
func TestCertificatesOfAMomentMakeNoLoop(t *testing.T) {
	for _, life := range []time.Duration{0, time.Second, 10 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				f.validity = func() (from, to time.Time) { return time.Now().Add(-time.Second), time.Now().Add(life) }
				f.atMost(mostOrders)
				m := offline(t, f)
				if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				if n := f.count(); n > 100 {
					t.Errorf("%d orders in an hour", n)
				}
			})
		})
	}
}

// What an issuer sends beside leaf and chain is left out, and what is of no use is
// asked for about once a day. (F10)
func TestChainsAsIssuersSendThem(t *testing.T) {
	stranger := newFakeSigner(t)
	stranger.addIntermediate(t)
	odd := func(f *fakeSigner) []byte { // as of a root with a negative serial number, which Go refuses
		der := slices.Clone(f.root.Raw)
		at := bytes.Index(der, []byte{2, 1, 1, 0x30}) // its serial number
		der[at+2] = 0x81
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	noDER := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})
	for _, tt := range []struct {
		name   string
		send   func(f *fakeSigner, chain []byte) []byte
		served bool
	}{
		{"one that cannot be parsed behind it", func(f *fakeSigner, c []byte) []byte { return append(c, odd(f)...) }, true},
		{"one that cannot be parsed before it", func(f *fakeSigner, c []byte) []byte { return append(odd(f), c...) }, true},
		{"one that is no DER", func(_ *fakeSigner, c []byte) []byte { return append(noDER, c...) }, true},
		{"a stray one", func(_ *fakeSigner, c []byte) []byte { return append(c, stranger.above...) }, true},
		{"a stray one first", func(_ *fakeSigner, c []byte) []byte { return append(slices.Clone(stranger.above), c...) }, true},
		{"all twice", func(_ *fakeSigner, c []byte) []byte { return append(c, c...) }, true},
		{"half of one behind it", func(f *fakeSigner, c []byte) []byte { return append(c, f.above[:len(f.above)/2]...) }, true},
		{"words and a key", func(_ *fakeSigner, c []byte) []byte {
			return append([]byte("Dear customer,\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), c...)
		}, true},
		{"CRLF and a byte order mark", func(_ *fakeSigner, c []byte) []byte {
			return append([]byte("\ufeff"), bytes.ReplaceAll(c, []byte("\n"), []byte("\r\n"))...)
		}, true},
		{"the leaf last", func(f *fakeSigner, c []byte) []byte { return append(slices.Clone(f.above), c[:len(c)-len(f.above)]...) }, true},
		{"the leaf alone", func(f *fakeSigner, c []byte) []byte { return c[:len(c)-len(f.above)] }, true},
		{"no leaf", func(f *fakeSigner, _ []byte) []byte { return f.above }, false},
		{"another's leaf", func(_ *fakeSigner, _ []byte) []byte { return stranger.above }, false},
		{"half of the leaf", func(_ *fakeSigner, c []byte) []byte { return c[:200] }, false},
		{"nothing", func(*fakeSigner, []byte) []byte { return nil }, false},
		{"a page", func(*fakeSigner, []byte) []byte { return []byte("<html></html>") }, false},
		{"a file of roots", func(_ *fakeSigner, c []byte) []byte { return bytes.Repeat(c, 30) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				f.addIntermediate(t)
				iss := &aroundIssuer{fakeSigner: f, issue: func(_ context.Context, _ IssueRequest, next func() (Issued, error)) (Issued, error) {
					out, err := next()
					out.Chain = tt.send(f, out.Chain)
					return out, err
				}}
				m := offline(t, f, func(c *Config) { c.Issuers = []Issuer{iss} })
				if err := m.ManageSync(t.Context(), []string{"a.example.com"}); (err == nil) != tt.served {
					t.Errorf("ManageSync: %v", err)
				}
				time.Sleep(3 * day)
				if leaf := leafOf(m, "a.example.com"); (leaf != nil) != tt.served {
					t.Errorf("served: %v", leaf != nil)
				}
				if n := f.count(); n > 5 || tt.served && n != 1 {
					t.Errorf("%d orders in three days", n)
				}
			})
		})
	}
}
