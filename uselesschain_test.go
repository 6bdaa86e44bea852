package certwright_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"testing/synctest"
	"time"
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
// no use, is not served in place of what is, and is not asked for in a loop.
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

// A CA issues what lives for a moment.
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
