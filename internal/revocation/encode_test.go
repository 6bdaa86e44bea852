package revocation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"
)

// fakeSingle and fakeData build what ocsp.CreateResponse cannot.
type fakeSingle struct {
	ID         certID
	Good       asn1.Flag `asn1:"tag:0,optional"`
	ThisUpdate time.Time `asn1:"generalized"`
	NextUpdate time.Time `asn1:"generalized,explicit,tag:0"`
}

type fakeData struct {
	ID         asn1.RawValue
	ProducedAt time.Time `asn1:"generalized"`
	Responses  []fakeSingle
	Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
}

func (c *fakeCA) single(serial int64) fakeSingle {
	c.t.Helper()
	key, err := publicKeyBits(c.cert)
	if err != nil {
		c.t.Fatal(err)
	}
	return fakeSingle{
		ID: certID{
			Hash:       pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}},
			IssuerName: digest(crypto.SHA256, c.cert.RawSubject),
			IssuerKey:  digest(crypto.SHA256, key),
			Serial:     big.NewInt(serial),
		},
		Good: true, ThisUpdate: now, NextUpdate: now.Add(time.Hour),
	}
}

// encode signs d, which names its signer by the hash of keyOf's key.
func (c *fakeCA) encode(d fakeData, keyOf *x509.Certificate) []byte {
	c.t.Helper()
	must := func(b []byte, err error) []byte {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
		return b
	}
	key := must(publicKeyBits(keyOf))
	d.ID = asn1.RawValue{Class: 2, Tag: 2, IsCompound: true, Bytes: must(asn1.Marshal(digest(crypto.SHA1, key)))}
	d.ProducedAt = now
	tbs := must(asn1.Marshal(d))
	sum := sha256.Sum256(tbs)
	sig := must(ecdsa.SignASN1(rand.Reader, c.key, sum[:]))
	basic := must(asn1.Marshal(struct {
		Data      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		asn1.RawValue{FullBytes: tbs},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
		asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)},
	}))
	var outer ocspResponse
	outer.Bytes.Type = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	outer.Bytes.Basic = basic
	return must(asn1.Marshal(outer))
}

func TestParseHandmade(t *testing.T) {
	ca, other := newFakeCA(t, now), newFakeCA(t, now)
	leaf := ca.leaf(42)
	extension := func(critical bool) []pkix.Extension {
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: critical, Value: []byte{5, 0}}}
	}
	mixed := ca.single(42)
	mixed.ID.IssuerKey = other.single(42).ID.IssuerKey
	named := ca.single(42)
	named.ID.IssuerName = digest(crypto.SHA256, leaf.RawSubject)
	weak := ca.single(42)
	weak.ID.Hash.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5}
	for _, tt := range []struct {
		name  string
		data  fakeData
		keyOf *x509.Certificate
		want  string // in the error; empty: accepted
	}{
		{"signer named by key", fakeData{Responses: []fakeSingle{ca.single(42)}}, ca.cert, ""},
		{"signer named by another key", fakeData{Responses: []fakeSingle{ca.single(42)}}, other.cert, "key hash"},
		{"several certificates", fakeData{Responses: []fakeSingle{other.single(7), ca.single(41), ca.single(42)}}, ca.cert, ""},
		{"several, none ours", fakeData{Responses: []fakeSingle{ca.single(41), ca.single(43)}}, ca.cert, "matching"},
		{"none", fakeData{}, ca.cert, "number of responses"},
		{"right name, wrong key", fakeData{Responses: []fakeSingle{mixed}}, ca.cert, "another issuer"},
		{"right key, wrong name", fakeData{Responses: []fakeSingle{named}}, ca.cert, "another issuer"},
		{"MD5 certificate ID", fakeData{Responses: []fakeSingle{weak}}, ca.cert, "hash"},
		{"extension", fakeData{Responses: []fakeSingle{ca.single(42)}, Extensions: extension(false)}, ca.cert, ""},
		{"critical extension", fakeData{Responses: []fakeSingle{ca.single(42)}, Extensions: extension(true)}, ca.cert, "critical"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(ca.encode(tt.data, tt.keyOf), leaf, ca.cert, now)
			switch {
			case tt.want == "" && (err != nil || s.Status != Good):
				t.Errorf("got %v, %v", s, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}
