package records_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

var keyTypes = []certpem.KeyType{certpem.P256, certpem.P384, certpem.RSA2048, certpem.Ed25519}

func TestBundleIsTheSameAfterAStart(t *testing.T) {
	s := newFakeStorage()
	ca := newFakeCA(t)
	for _, kt := range keyTypes {
		r := records.New(s, records.Options{})
		key := newKey(t, kt)
		names := []string{"*.a.example", "a.example", "2001:db8::1"}
		leaf := ca.leaf(key, names, func(c *x509.Certificate) {
			c.OCSPServer = []string{"http://ocsp.example"}
			mustStaple(c)
		})
		b := ca.make(r, records.NewBundle{
			Names: names, KeyType: kt, CA: "https://ca.example/dir", Account: "ca.example-dir+12345678", Profile: "short", Key: key,
			Chain: certpem.EncodeChain([]*x509.Certificate{leaf, ca.inter, ca.root}), Stored: began.Add(time.Hour), Flags: records.Adopted,
		})
		check(t, r.StoreBundle(t.Context(), records.Stored{Bundle: b, Data: json.RawMessage(`{"url":"https://ca.example/cert/1?a=<b>"}`)}))

		got, err := records.New(s, records.Options{}).LoadBundle(t.Context(), b.ID(), now)
		if err != nil || got.Mended != nil {
			t.Fatalf("%s: %v, mended %v", kt, err, got.Mended)
		}
		type facts struct {
			Names                            []string
			NotBefore, NotAfter, End, Stored int64
			ID, CA, Account, Profile, Serial string
			KeyType                          certpem.KeyType
			Flags                            [3]bool
			Fraction, Salted                 float64
		}
		of := func(b *records.Bundle) facts {
			return facts{
				b.Names, b.NotBefore, b.NotAfter, b.End, b.Stored, b.ID(), b.CA(), b.Account(), b.Profile(), b.Serial(), b.KeyType(),
				[3]bool{b.Has(records.OCSP), b.Has(records.MustStaple), b.Has(records.Adopted)},
				b.Fraction(), b.Fraction(1, 2),
			}
		}
		want := of(b)
		if !reflect.DeepEqual(of(got.Bundle), want) {
			t.Errorf("%s: loaded %+v, stored %+v", kt, of(got.Bundle), want)
		}
		if want.Serial != leaf.SerialNumber.Text(16) || want.NotAfter != leaf.NotAfter.Unix() || want.End != want.NotAfter ||
			want.CA != "https://ca.example/dir" || want.Profile != "short" || want.Flags != [3]bool{true, true, true} ||
			want.KeyType != kt || want.Fraction == want.Salted {
			t.Errorf("%s: made %+v", kt, want)
		}
		if string(got.Data) != `{"url":"https://ca.example/cert/1?a=\u003cb\u003e"}` {
			t.Errorf("%s: data %s", kt, got.Data)
		}
		if !got.Same(b) || !got.HasKey(key.Public()) || got.HasKey(ca.key.Public()) {
			t.Errorf("%s: another leaf or key", kt)
		}
		serve(t, ca, got.Bundle, key)
	}
}

// serve has a client verify what the bundle gives crypto/tls.
func serve(t *testing.T, ca *fakeCA, b *records.Bundle, key crypto.Signer) {
	t.Helper()
	cert, err := b.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := cert.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }); !ok || !k.Equal(key) {
		t.Errorf("%s: it has another private key", b.ID())
	}
	if cert.Leaf == nil || !bytes.Equal(cert.Certificate[0], cert.Leaf.Raw) || len(cert.Certificate) != 2 {
		t.Errorf("%s: a chain of %d", b.ID(), len(cert.Certificate))
	}
	issuer, err := b.Issuer()
	if err != nil || !issuer.Equal(ca.inter) {
		t.Errorf("%s: Issuer: %v, %v", b.ID(), issuer, err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.root)
	between.AddCert(issuer)
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now}); err != nil {
		t.Error(err)
	}
	_ = tls.Config{Certificates: []tls.Certificate{*cert}}
}

func TestSerialIsThatOfX509(t *testing.T) {
	ca := newFakeCA(t)
	r := records.New(newFakeStorage(), records.Options{})
	for _, text := range []string{"1", "7f", "80", "ff00", "100", "8000000000000000000000000000000000000000"} {
		n, _ := new(big.Int).SetString(text, 16)
		b := ca.bundle(r, []string{"a.example"}, func(c *x509.Certificate) { c.SerialNumber = n })
		if b.Serial() != text {
			t.Errorf("Serial() = %q, want %q", b.Serial(), text)
		}
	}
}

func TestLeavesOfOneIssuerShareIt(t *testing.T) {
	s := newFakeStorage()
	ca := newFakeCA(t)
	first := records.New(s, records.Options{})
	var ids []string
	for i := range 3 {
		b := ca.bundle(first, []string{fmt.Sprintf("%d.example", i)}, nil)
		store(t, first, b)
		ids = append(ids, b.ID())
	}
	r := records.New(s, records.Options{})
	var issuers []*x509.Certificate
	for _, id := range ids {
		got, err := r.LoadBundle(t.Context(), id, now)
		check(t, err)
		issuer, err := got.Issuer()
		check(t, err)
		issuers = append(issuers, issuer)
	}
	if issuers[0] != issuers[1] || issuers[0] != issuers[2] {
		t.Error("the issuer was parsed more than once")
	}
}

func TestNamesAreShared(t *testing.T) {
	ca := newFakeCA(t)
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	names := []string{"a.example", "b.example"}
	b := ca.bundle(r, names, nil)
	if &b.Names[0] != &names[0] {
		t.Error("Make copied the names")
	}
	store(t, r, b)
	got, err := r.LoadBundle(t.Context(), b.ID(), now)
	check(t, err)
	got.ShareNames([]string{"b.example", "a.example"})
	if !slices.Equal(got.Names, names) {
		t.Errorf("other names were taken: %q", got.Names)
	}
	if got.ShareNames(names); &got.Names[0] != &names[0] {
		t.Error("equal names are not shared")
	}
}

func TestCovers(t *testing.T) {
	ca := newFakeCA(t)
	r := records.New(newFakeStorage(), records.Options{})
	b := ca.bundle(r, []string{"a.example", "*.b.example", "192.0.2.1"}, nil)
	for names, want := range map[string]bool{
		"a.example": true, "a.example 192.0.2.1": true, "x.b.example a.example": true, "*.b.example": true,
		"b.example": false, "x.y.b.example": false, "a.example c.example": false, "": false,
	} {
		if got := b.Covers(strings.Fields(names)); got != want {
			t.Errorf("Covers(%q) = %v", names, got)
		}
	}
	var none *records.Bundle
	if none.Same(b) || b.Same(none) || none.Same(none) {
		t.Error("a nil Bundle is the same as something")
	}
}

func TestFractionIsUniform(t *testing.T) {
	ca := newFakeCA(t)
	b := ca.bundle(records.New(newFakeStorage(), records.Options{}), []string{"a.example"}, nil)
	var buckets [10]int
	for i := range int64(10_000) {
		f := b.Fraction(i)
		if f < 0 || f >= 1 {
			t.Fatalf("Fraction(%d) = %v", i, f)
		}
		buckets[int(f*10)]++
	}
	for i, n := range buckets {
		if n < 800 || n > 1200 {
			t.Errorf("%d of 10,000 in tenth %d", n, i)
		}
	}
}

func TestPreviousBundleStandsInWhileTheNextCannotBeServed(t *testing.T) {
	ca := newFakeCA(t)
	ctx := t.Context()
	names := []string{"a.example"}
	ahead := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = began.Add(5*day), began.Add(95*day) }
	ended := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = began.Add(-9*day), began }
	tests := []struct {
		name       string
		next, prev func(*x509.Certificate) // nil: none
		broken     bool                    // the next one's file
		bundle     string                  // "next", "prev" or ""
		hasPrev    bool
		err        string // "", "missing" or "damaged"
	}{
		{"valid", noChange, noChange, false, "next", false, ""},
		{"not valid yet", ahead, noChange, false, "next", true, ""},
		{"not valid yet, nothing else", ahead, nil, false, "next", false, ""},
		{"not valid yet, the other has ended", ahead, ended, false, "next", false, ""},
		{"must be stapled", mustStaple, noChange, false, "next", true, ""},
		{"ended", ended, noChange, false, "next", true, ""},
		{"missing", nil, noChange, false, "prev", false, ""},
		{"missing, the other has ended", nil, ended, false, "", false, "missing"},
		{"damaged", noChange, noChange, true, "prev", false, "damaged"},
		{"damaged, nothing else", noChange, nil, true, "", false, "damaged"},
		{"nothing", nil, nil, false, "", false, "missing"},
	}
	for _, tt := range tests {
		s := newFakeStorage()
		r := records.New(s, records.Options{})
		var next, prev *records.Bundle
		if tt.prev != nil {
			prev = ca.bundle(r, names, tt.prev)
			check(t, r.KeepPrevious(ctx, records.Stored{Bundle: prev}))
		}
		if tt.next != nil {
			next = ca.bundle(r, names, tt.next)
			store(t, r, next)
		}
		if tt.broken {
			s.put("v1/certs/a.example+p256.pem", []byte("broken"))
		}
		got, err := r.LoadBundle(ctx, "a.example+p256", now)
		var damaged *records.DamagedError
		if isDamage := errors.As(err, &damaged); isDamage != (tt.err == "damaged") || errors.Is(err, fs.ErrNotExist) != (tt.err == "missing") || (err == nil) != (tt.err == "") {
			t.Errorf("%s: %v", tt.name, err)
		}
		want := map[string]*records.Bundle{"next": next, "prev": prev}[tt.bundle]
		if (got.Bundle == nil) != (want == nil) || want != nil && !want.Same(got.Bundle) {
			t.Errorf("%s: another bundle", tt.name)
		}
		if (got.Prev != nil) != tt.hasPrev || tt.hasPrev && !got.Prev.Same(prev) {
			t.Errorf("%s: another previous one", tt.name)
		}
	}
}

func noChange(*x509.Certificate) {}

func mustStaple(c *x509.Certificate) {
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}}}
}

func TestPreviousBundleThatCannotBeReachedIsNotMissing(t *testing.T) {
	ca := newFakeCA(t)
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	down := errors.New("cannot be reached")
	s.fail = func(verb, key string) error {
		if verb == "load" && strings.Contains(key, "+prev") {
			return down
		}
		return nil
	}
	if _, err := r.LoadBundle(t.Context(), "a.example+p256", now); !errors.Is(err, down) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other is missing: %v", err)
	}
	names := []string{"a.example"}
	store(t, r, ca.bundle(r, names, func(c *x509.Certificate) { c.NotBefore = began.Add(5 * day) }))
	if got, err := r.LoadBundle(t.Context(), "a.example+p256", now); !errors.Is(err, down) || got.Bundle != nil {
		t.Errorf("the other is not valid yet: %v, %v", got.Bundle, err)
	}
	store(t, r, ca.bundle(r, names, mustStaple))
	if got, err := r.LoadBundle(t.Context(), "a.example+p256", now); err != nil || got.Bundle == nil {
		t.Errorf("the other is valid: %v, %v", got.Bundle, err)
	}
}

func TestDropPrevious(t *testing.T) {
	ca := newFakeCA(t)
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	b := ca.bundle(r, []string{"a.example"}, nil)
	check(t, r.KeepPrevious(t.Context(), records.Stored{Bundle: b}))
	check(t, r.DropPrevious(t.Context(), b.ID()))
	if len(s.values) != 0 {
		t.Error("it is still there")
	}
	check(t, r.DropPrevious(t.Context(), b.ID()))
}

func TestNoVerbShowsAKey(t *testing.T) {
	ca := newFakeCA(t)
	b := ca.bundle(records.New(newFakeStorage(), records.Options{}), []string{"a.example"}, nil)
	for _, v := range []any{b, records.Stored{Bundle: b}, &records.Stored{Bundle: b}, records.Stored{}, records.Order{KeyPEM: "KEY"}, &records.Order{KeyPEM: "KEY"}, &records.Account{KeyPEM: "KEY"}} {
		for _, verb := range []string{"%v", "%+v", "%s"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "KEY") || strings.Contains(text, "PANIC") || len(text) > 60 {
				t.Errorf("%s of a %T: %s", verb, v, text)
			}
		}
	}
}
