package revocation

import (
	"bytes"
	"crypto/x509"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Whatever Parse accepts is one of the seeds as far as the CA signed it: a
// change of one signed byte is refused.
func FuzzParse(f *testing.F) {
	ca := newFakeCA(f, now)
	leaf := ca.leaf(42)
	delegate, key := ca.delegate(func(*x509.Certificate) {})
	good := ca.good(leaf)
	delegated, revoked, open := good, good, good
	delegated.Certificate = delegate
	revoked.Status, revoked.RevokedAt = ocsp.Revoked, now
	open.NextUpdate = time.Time{}
	signed := map[string]bool{}
	for _, raw := range [][]byte{
		ca.respond(good), ca.respond(revoked), ca.respond(open),
		createResponse(f, ca.cert, signer{delegate, key}, delegated),
		ca.encode(fakeData{Responses: []fakeSingle{ca.single(41), ca.single(42)}}, ca.cert),
	} {
		r, err := ocsp.ParseResponseForCert(raw, leaf, nil)
		if err != nil {
			f.Fatal(err)
		}
		signed[string(r.TBSResponseData)] = true
		f.Add(raw)
	}
	f.Add(ocsp.TryLaterErrorResponse)
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := Parse(raw, leaf, ca.cert, now)
		if err != nil {
			if s != nil {
				t.Error("a staple and an error")
			}
			return
		}
		r, err := ocsp.ParseResponseForCert(raw, leaf, nil)
		if err != nil || !signed[string(r.TBSResponseData)] {
			t.Errorf("accepted what the CA did not sign (%v)", err)
		}
		if !bytes.Equal(s.Raw, raw) || Usable(s, now) != (s.Status == Good) {
			t.Errorf("got %v, usable %v", s.Status, Usable(s, now))
		}
		if at := RefreshAt(s, leaf.NotAfter, 1); !at.After(s.ThisUpdate) || !at.Before(s.end(leaf.NotAfter)) {
			t.Errorf("refreshed at %v", at)
		}
	})
}
