package revocation

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestParseGood(t *testing.T) {
	ca := newFakeCA(t, now)
	leaf := ca.leaf(42)
	delegate, key := ca.delegate(func(*x509.Certificate) {})
	byIssuer := func(edit func(*ocsp.Response)) []byte { r := ca.good(leaf); edit(&r); return ca.respond(r) }
	for _, tt := range []struct {
		name string
		raw  []byte
	}{
		{"signed by the issuer", byIssuer(func(*ocsp.Response) {})},
		{"with the issuer's certificate", byIssuer(func(r *ocsp.Response) { r.Certificate = ca.cert })},
		{"SHA-256 certificate ID", byIssuer(func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 })},
		{"SHA-384 certificate ID", byIssuer(func(r *ocsp.Response) { r.IssuerHash = crypto.SHA384 })},
		{"SHA-512 certificate ID", byIssuer(func(r *ocsp.Response) { r.IssuerHash = crypto.SHA512 })},
		{"responder's clock ahead", byIssuer(func(r *ocsp.Response) { r.ThisUpdate = now.Add(4 * time.Minute) })},
		{"uncritical extension", byIssuer(func(r *ocsp.Response) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		})},
		{"delegated", func() []byte {
			r := ca.good(leaf)
			r.Certificate = delegate
			return createResponse(t, ca.cert, signer{delegate, key}, r)
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(tt.raw, leaf, ca.cert, now)
			if err != nil {
				t.Fatal(err)
			}
			if s.Status != Good || string(s.Raw) != string(tt.raw) || !Usable(s, now) {
				t.Errorf("got %v, usable %v", s.Status, Usable(s, now))
			}
			if !s.NextUpdate.Equal(now.Add(7*24*time.Hour)) || !s.RevokedAt.IsZero() {
				t.Errorf("got times %v, %v", s.NextUpdate, s.RevokedAt)
			}
		})
	}
}

func TestA14_RevokedWithEachReason(t *testing.T) {
	ca := newFakeCA(t, now)
	leaf := ca.leaf(42)
	for _, reason := range []int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10} {
		t.Run(fmt.Sprint(reason), func(t *testing.T) {
			r := ca.good(leaf)
			r.Status, r.RevocationReason, r.RevokedAt = ocsp.Revoked, reason, now.Add(-2*time.Hour)
			s, err := Parse(ca.respond(r), leaf, ca.cert, now)
			if err != nil {
				t.Fatal(err)
			}
			if s.Status != Revoked || s.Reason != reason || !s.RevokedAt.Equal(now.Add(-2*time.Hour)) {
				t.Errorf("got %v, reason %d, at %v", s.Status, s.Reason, s.RevokedAt)
			}
			if Usable(s, now) {
				t.Error("usable")
			}
		})
	}
}

func TestParseUnknown(t *testing.T) {
	ca := newFakeCA(t, now)
	leaf := ca.leaf(42)
	r := ca.good(leaf)
	r.Status = ocsp.Unknown
	s, err := Parse(ca.respond(r), leaf, ca.cert, now)
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != Unknown || Usable(s, now) {
		t.Errorf("got %v, usable %v", s.Status, Usable(s, now))
	}
}

func TestA11_ResponseThatOutlivesTheLeaf(t *testing.T) {
	ca := newFakeCA(t, now)
	template := ca.template(42, "leaf")
	template.NotAfter = now.Add(48 * time.Hour)
	leaf := ca.sign(template, ca.cert, newKey(t))
	r := ca.good(leaf)
	r.ThisUpdate = now
	s, err := Parse(ca.respond(r), leaf, ca.cert, now)
	if err != nil {
		t.Fatal(err)
	}
	if !s.NextUpdate.After(leaf.NotAfter) {
		t.Fatal("the response ends with the leaf: nothing is tested")
	}
	if !Usable(s, leaf.NotAfter.Add(-1)) || Usable(s, leaf.NotAfter) {
		t.Error("not usable exactly until the leaf expires")
	}
	if got := RefreshAt(s, leaf.NotAfter, 0); !got.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("RefreshAt = %v", got)
	}
}

func TestParseWithoutNextUpdate(t *testing.T) {
	ca := newFakeCA(t, now)
	leaf := ca.leaf(42)
	r := ca.good(leaf)
	r.NextUpdate = time.Time{}
	raw := ca.respond(r)
	s, err := Parse(raw, leaf, ca.cert, now)
	if err != nil {
		t.Fatal(err)
	}
	if !s.NextUpdate.IsZero() || !Usable(s, now) {
		t.Errorf("got NextUpdate %v, usable %v", s.NextUpdate, Usable(s, now))
	}
	if _, err := Parse(raw, leaf, ca.cert, r.ThisUpdate.Add(24*time.Hour)); err == nil {
		t.Error("accepted when a day old")
	}
}

func TestParseRefuses(t *testing.T) {
	ca, other := newFakeCA(t, now), newFakeCA(t, now)
	leaf := ca.leaf(42)
	by := signer{ca.cert, ca.key}
	edited := func(edit func(*ocsp.Response)) []byte { r := ca.good(leaf); edit(&r); return ca.respond(r) }
	good := edited(func(*ocsp.Response) {})
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	changed := append([]byte(nil), good...)
	changed[strings.Index(string(good), "intermediate")] ^= 1
	for _, tt := range []struct {
		name string
		raw  []byte
		want string // in the error
	}{
		{"empty", nil, "asn1"},
		{"HTML", []byte("<html>sign in</html>"), "asn1"},
		{"cut", good[:len(good)/2], "asn1"},
		{"trailing data", append(append([]byte(nil), good...), 0), "trailing data"},
		{"bad signature", broken, "signature"},
		{"changed data", changed, "signature"},
		{"another CA's key", createResponse(t, ca.cert, signer{ca.cert, other.key}, ca.good(leaf)), "signature"},
		{"SHA-1 signature", edited(func(r *ocsp.Response) { r.SignatureAlgorithm = x509.ECDSAWithSHA1 }), "broken"},
		{"another serial", edited(func(r *ocsp.Response) { r.SerialNumber = big.NewInt(43) }), "matching"},
		{"another issuer", createResponse(t, other.cert, by, ca.good(leaf)), "another issuer"},
		{"another responder's name", createResponse(t, ca.cert, signer{leaf, ca.key}, ca.good(leaf)), "responder name"},
		{"no status", edited(func(r *ocsp.Response) { r.Status = 99 }), "no certificate status"},
		{"future", edited(func(r *ocsp.Response) { r.ThisUpdate = now.Add(6 * time.Minute) }), "future"},
		{"over", edited(func(r *ocsp.Response) { r.NextUpdate = now }), "ended at"},
		{"ends before it begins", edited(func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = now, now.Add(-time.Second)
		}), "ends before"},
		{"critical extension", edited(func(r *ocsp.Response) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), "critical"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(tt.raw, leaf, ca.cert, now)
			if err == nil {
				t.Fatalf("accepted as %v", s.Status)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func TestParseRefusesDelegate(t *testing.T) {
	ca, other := newFakeCA(t, now), newFakeCA(t, now)
	leaf := ca.leaf(42)
	for _, tt := range []struct {
		name string
		by   *fakeCA
		edit func(*x509.Certificate)
		want string
	}{
		{"without the EKU", ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "OCSPSigning"},
		{"with serverAuth", ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, "OCSPSigning"},
		{"with anyExtendedKeyUsage", ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}, "OCSPSigning"},
		{"key for encryption only", ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, "key usage"},
		{"expired", ca, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "valid only"},
		{"not yet valid", ca, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, "valid only"},
		{"unknown critical extension", ca, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, "critical extension"},
		{"of another CA", other, func(*x509.Certificate) {}, "responder certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, key := tt.by.delegate(tt.edit)
			r := ca.good(leaf)
			r.Certificate = cert
			_, err := Parse(createResponse(t, ca.cert, signer{cert, key}, r), leaf, ca.cert, now)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestParseRefusesDelegateThatNamesAnotherIssuer(t *testing.T) {
	ca := newFakeCA(t, now)
	leaf, key := ca.leaf(42), newKey(t)
	template := ca.template(3, "responder")
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	cert := ca.sign(template, &x509.Certificate{Subject: pkix.Name{CommonName: "other"}}, key)
	r := ca.good(leaf)
	r.Certificate = cert
	if _, err := Parse(createResponse(t, ca.cert, signer{cert, key}, r), leaf, ca.cert, now); err == nil {
		t.Error("accepted")
	}
}

func TestParseRefusesIssuer(t *testing.T) {
	ca, other := newFakeCA(t, now), newFakeCA(t, now)
	leaf := ca.leaf(42)
	raw := ca.respond(ca.good(leaf))
	for _, tt := range []struct {
		name         string
		leaf, issuer *x509.Certificate
	}{
		{"nil leaf", nil, ca.cert},
		{"nil issuer", leaf, nil},
		{"another name", leaf, leaf},
		{"same name, another key", leaf, other.cert},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(raw, tt.leaf, tt.issuer, now); err == nil {
				t.Error("accepted")
			}
		})
	}
	// A leaf that names another CA, although this one's key signed it.
	stray := ca.sign(ca.template(42, "leaf"), &x509.Certificate{Subject: pkix.Name{CommonName: "other"}}, newKey(t))
	if _, err := Parse(raw, stray, ca.cert, now); err == nil {
		t.Error("accepted for a leaf that names another issuer")
	}
	// A leaf of the other CA with the same serial gets no answer from this one.
	if _, err := Parse(raw, other.leaf(42), other.cert, now); err == nil {
		t.Error("accepted another CA's response for the same serial")
	}
}

func TestParseErrorStatus(t *testing.T) {
	ca := newFakeCA(t, now)
	leaf := ca.leaf(42)
	for _, tt := range []struct {
		raw    []byte
		status ocsp.ResponseStatus
	}{
		{ocsp.MalformedRequestErrorResponse, ocsp.Malformed},
		{ocsp.InternalErrorErrorResponse, ocsp.InternalError},
		{ocsp.TryLaterErrorResponse, ocsp.TryLater},
		{ocsp.SigRequredErrorResponse, ocsp.SignatureRequired},
		{ocsp.UnauthorizedErrorResponse, ocsp.Unauthorized},
	} {
		t.Run(tt.status.String(), func(t *testing.T) {
			_, err := Parse(tt.raw, leaf, ca.cert, now)
			var re *ResponderError
			if !errors.As(err, &re) || re.Status != tt.status {
				t.Errorf("got %v", err)
			}
		})
	}
}
