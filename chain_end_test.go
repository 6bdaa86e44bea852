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

	. "github.com/certwright/certwright"
)

// below makes a CA certificate for key, signed by the test root.
func below(t *testing.T, root *x509.Certificate, rootKey *ecdsa.PrivateKey, key *ecdsa.PublicKey, from, to time.Time) []byte {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano() + 7), Subject: pkix.Name{CommonName: "test intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: from, NotAfter: to,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, root, key, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// signBelow has f sign by an intermediate that lives for a time, and is made anew
// when it has lived for two thirds of that, as private CAs do. f's own key is the
// root's.
func signBelow(t *testing.T, f *fakeSigner, life time.Duration) {
	root, rootKey := f.root, f.key
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var made time.Time
	f.hook = func(context.Context) error {
		f.set(func() {
			if now := time.Now(); made.IsZero() || now.Sub(made) > life*2/3 {
				made = now
				der := below(t, root, rootKey, &key.PublicKey, now.Add(-time.Hour), now.Add(life))
				cert, err := x509.ParseCertificate(der)
				if err != nil {
					t.Error(err)
				}
				f.by, f.key, f.above = cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
			}
		})
		return nil
	}
}

// TestChainEndsWithItsFirstCertificate has leaves of 90 days below intermediates
// of 30: for 120 days, at each hour, all that is served is valid, and Status says
// when the chain ends. (F9)
func TestChainEndsWithItsFirstCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		signBelow(t, f, 30*day)
		var events eventLog
		m := offline(t, f, func(c *Config) { c.OnEvent = events.add })
		manage(t, m, "a.example.com")
		for range 120 * 24 {
			time.Sleep(time.Hour)
			cert, err := m.GetCertificate(helloFor("a.example.com", ""))
			if err != nil {
				t.Fatal(err)
			}
			end := cert.Leaf.NotAfter
			for i, der := range cert.Certificate {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				if !time.Now().Before(c.NotAfter) {
					t.Fatalf("certificate %d of the chain ended at %v", i, c.NotAfter)
				}
				if c.NotAfter.Before(end) {
					end = c.NotAfter
				}
			}
			if s := statusFor(t, m, "a.example.com"); !s.NotAfter.Equal(end) || s.State != StateValid && s.State != StateRenewing {
				t.Fatalf("the chain ends at %v, Status is %+v", end, s)
			}
		}
		if n := f.count(); n < 5 || n > 14 || events.count(EventExpired)+events.count(EventFailed) != 0 {
			t.Errorf("%d orders in 120 days, events %v", n, events.kinds(""))
		}
	})
}

// TestExpiredExtraCertificateIsNoReasonToRenew has a CA send a cross-sign that
// ended years ago behind the chain. (F9)
func TestExpiredExtraCertificateIsNoReasonToRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		rootKey := f.key
		f.addIntermediate(t)
		now := time.Now()
		der := below(t, f.root, rootKey, &f.key.PublicKey, now.Add(-4000*day), now.Add(-day))
		f.above = append(f.above, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		m := offline(t, f)
		manage(t, m, "a.example.com")
		time.Sleep(30 * day)
		if s := statusFor(t, m, "a.example.com"); s.State != StateValid || f.count() != 1 {
			t.Errorf("%d orders in 30 days, Status is %+v", f.count(), s)
		}
		cert, err := m.GetCertificate(helloFor("a.example.com", ""))
		if err != nil || len(cert.Certificate) != 2 {
			t.Errorf("served are %d certificates, %v; want leaf and intermediate", len(cert.Certificate), err)
		}
	})
}

// TestRenewPassesTheWaitAfterARefusedChain has a CA whose intermediate is about to
// end. That its certificates are refused for a day is no wait that the CA asked
// for: with a new intermediate Renew has a certificate at once. (F10, F29)
func TestRenewPassesTheWaitAfterARefusedChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		rootKey := f.key
		signBelow(t, f, 15*time.Second)
		m := offline(t, f)
		if err := m.ManageSync(t.Context(), []string{"a.example.com"}); err == nil {
			t.Fatal("a chain that ends in 15 seconds was taken")
		}
		time.Sleep(time.Hour)
		if f.count() != 1 {
			t.Errorf("%d orders in an hour", f.count())
		}
		f.set(func() { f.key = rootKey })
		signBelow(t, f, 30*day)
		if err := m.Renew(t.Context(), "a.example.com"); err != nil {
			t.Errorf("with a new intermediate: %v", err)
		}
	})
}

// TestChainThatIsAboutToEndCostsFewOrders has a CA go on with an intermediate, or
// with a cross-sign above it, until that has ended. Of the first there is nothing
// better to be had; the second is left out then, and the name is never without a
// valid chain. (F9, F10)
func TestChainThatIsAboutToEndCostsFewOrders(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cross bool
		after time.Duration
		life  time.Duration // of the leaves
		most  int           // orders until a day after
	}{
		{"intermediate", false, 5 * day, 90 * day, 7},
		{"intermediate, soon", false, time.Hour, 90 * day, 4},
		{"intermediate, leaves of a day", false, 5 * day, day, 14},
		{"cross-sign", true, 5 * day, 90 * day, 7},
		{"cross-sign, later", true, 12 * day, 18 * day, 9},
		{"cross-sign, leaves of six days", true, 8 * day, 6 * day, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				root, rootKey := f.root, f.key
				f.addIntermediate(t)
				now := time.Now()
				f.validity = func() (from, to time.Time) { return time.Now().Add(-time.Hour), time.Now().Add(tt.life) }
				if tt.cross {
					other := newFakeSigner(t)
					older := *other.root
					older.RawSubject, older.Subject = nil, pkix.Name{CommonName: "older root"}
					tmpl := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: root.Subject, IsCA: true, BasicConstraintsValid: true, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(tt.after)}
					der, err := x509.CreateCertificate(rand.Reader, tmpl, &older, root.PublicKey, other.key)
					if err != nil {
						t.Fatal(err)
					}
					f.above = append(f.above, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
				} else {
					der := below(t, root, rootKey, &f.key.PublicKey, now.Add(-time.Hour), now.Add(tt.after))
					f.above = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
				}
				m := offline(t, f)
				manage(t, m, "a.example.com")
				time.Sleep(time.Second / 2)
				for time.Since(now) < tt.after+day {
					s := statusFor(t, m, "a.example.com")
					if isValid := time.Now().Before(s.NotAfter); !isValid && (tt.cross || time.Since(now) < tt.after) {
						t.Fatalf("after %v: %+v", time.Since(now), s)
					}
					time.Sleep(max(tt.after/500, time.Minute))
				}
				if n := f.count(); n > tt.most {
					t.Errorf("%d orders", n)
				}
			})
		})
	}
}
