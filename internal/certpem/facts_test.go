package certpem

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/revocation"
)

// publicLeaf returns a leaf of the size and with the extensions that a public CA
// gives it.
func publicLeaf(t testing.TB, by fakeCA, pub crypto.PublicKey, names ...string) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 140))
	if err != nil {
		t.Fatal(err)
	}
	scts := make([]byte, 2+2*120)
	return sign(t, &x509.Certificate{
		SerialNumber: serial, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		Subject:               pkix.Name{CommonName: names[0]},
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IssuingCertificateURL: []string{"http://e7.i.lencr.org/"},
		CRLDistributionPoints: []string{"http://e7.c.lencr.org/45.crl"},
		OCSPServer:            []string{"http://ocsp.ca.example/a1"},
		PolicyIdentifiers:     []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		ExtraExtensions:       []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: scts}},
	}, pub, by)
}

// fakeTBS is a certificate with whatever a test wants to be in it.
type fakeTBS struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   struct{ NotBefore, NotAfter asn1.RawValue }
	Subject    asn1.RawValue
	Key        asn1.RawValue
	Extensions []pkix.Extension `asn1:"optional,omitempty,explicit,tag:3"`
}

func utcTime(text string) asn1.RawValue {
	return asn1.RawValue{Tag: asn1.TagUTCTime, Bytes: []byte(text)}
}

func genTime(text string) asn1.RawValue {
	return asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(text)}
}

// handmade returns the DER of a certificate like leaf after an edit.
func handmade(t testing.TB, leaf *x509.Certificate, edit func(*fakeTBS)) []byte {
	t.Helper()
	tbs := fakeTBS{
		Version: 2, Serial: leaf.SerialNumber,
		Algorithm:  pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
		Issuer:     asn1.RawValue{FullBytes: leaf.RawIssuer},
		Subject:    asn1.RawValue{FullBytes: leaf.RawSubject},
		Key:        asn1.RawValue{FullBytes: leaf.RawSubjectPublicKeyInfo},
		Extensions: leaf.Extensions,
	}
	tbs.Validity.NotBefore, tbs.Validity.NotAfter = utcTime("260101000000Z"), utcTime("260401000000Z")
	edit(&tbs)
	data, err := asn1.Marshal(struct {
		TBS       fakeTBS
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{tbs, tbs.Algorithm, asn1.BitString{Bytes: []byte{1}, BitLength: 8}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkFacts compares what Scan says with what x509 and revocation say. It reports
// whether x509 parses the certificate.
func checkFacts(t testing.TB, name string, data []byte) bool {
	t.Helper()
	f, scanErr := Scan(data)
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return false
	}
	if scanErr != nil {
		t.Fatalf("%s: %v; x509 parses it", name, scanErr)
	}
	if !bytes.Equal(f.Serial, cert.SerialNumber.Bytes()) || !bytes.Equal(f.RawIssuer, cert.RawIssuer) ||
		!bytes.Equal(f.PublicKey, cert.RawSubjectPublicKeyInfo) || !bytes.Equal(f.authorityKey, cert.AuthorityKeyId) {
		t.Errorf("%s: serial, issuer, public key or authority key identifier is not that of x509: %+v", name, f)
	}
	if !f.NotBefore.Equal(cert.NotBefore) || !f.NotAfter.Equal(cert.NotAfter) || f.NotBefore.Location() != time.UTC || f.NotAfter.Location() != time.UTC {
		t.Errorf("%s: from %v to %v; want %v, %v", name, f.NotBefore, f.NotAfter, cert.NotBefore, cert.NotAfter)
	}
	if kt, _ := TypeOf(cert.PublicKey); f.KeyType != kt || f.Kind != kindOf(cert.PublicKey) {
		t.Errorf("%s: key type %q, kind %d; want %q, %d", name, f.KeyType, f.Kind, kt, kindOf(cert.PublicKey))
	}
	if want := revocation.Supported(cert); f.OCSP != want {
		t.Errorf("%s: OCSP %v; want %v for %q", name, f.OCSP, want, cert.OCSPServer)
	}
	if want := revocation.MustStaple(cert); f.MustStaple != want {
		t.Errorf("%s: MustStaple %v; want %v", name, f.MustStaple, want)
	}
	names := append(Names(cert), "example.com", "www.example.com", "a.b.example.com", "*.example.com", "192.0.2.1", "::1", "2.0.2.1", "x", ".x")
	for _, held := range Names(cert) {
		names = append(names, strings.TrimPrefix(held, "*."), "www."+strings.TrimPrefix(held, "*."), "1."+held, "*."+held, held+"0")
	}
	for _, n := range names {
		got, want := f.Covers([]string{n}), verify([]*x509.Certificate{cert}, nil, []string{n})
		if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
			t.Errorf("%s: Covers %q: %v; want %v", name, n, got, want)
		}
	}
	return true
}

func kindOf(pub crypto.PublicKey) KeyKind {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return KindP256
		}
		return KindECDSA
	case *rsa.PublicKey:
		return KindRSA
	}
	return KindOther
}

// fakeRSA returns a public key of that size that nobody has the private key of.
func fakeRSA(t testing.TB, bits uint) *rsa.PublicKey {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits-1))
	if err != nil {
		t.Fatal(err)
	}
	return &rsa.PublicKey{N: n.SetBit(n.SetBit(n, int(bits-1), 1), 0, 1), E: 65537}
}

// scanVectors are certificates that x509 parses.
func scanVectors(t testing.TB) map[string][]byte {
	p := newPKI(t)
	vectors := map[string][]byte{"leaf": p.leaf.Raw, "CA": p.low.cert.Raw, "root": p.root.cert.Raw}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, pub := range map[string]crypto.PublicKey{
		"P-256": p.key.Public(), "P-384": mustKey(t, P384).Public(), "P-521": p521.Public(), "Ed25519": mustKey(t, Ed25519).Public(),
		"RSA 1024": fakeRSA(t, 1024), "RSA 2048": fakeRSA(t, 2048), "RSA 2047": fakeRSA(t, 2047),
		"RSA 2041": fakeRSA(t, 2041), "RSA 2040": fakeRSA(t, 2040), "RSA 3072": fakeRSA(t, 3072), "RSA 4096": fakeRSA(t, 4096),
	} {
		vectors[name] = publicLeaf(t, p.low, pub, "example.com", "*.example.com", "xn--bcher-kva.example").Raw
	}
	extension := func(id asn1.ObjectIdentifier, value ...byte) []pkix.Extension {
		return []pkix.Extension{{Id: id, Value: value}}
	}
	feature := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	for name, template := range map[string]*x509.Certificate{
		"addresses":        {IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1), net.IPv6loopback, net.ParseIP("::ffff:192.0.2.7").To16()}},
		"address as name":  {DNSNames: []string{"192.0.2.1", "*.0.2.1", "*.example.com.", "EXAMPLE.org.", ".", "*.", "*..", "*", "a..b"}},
		"other names":      {EmailAddresses: []string{"example.com"}, URIs: []*url.URL{{Scheme: "https", Host: "www.example.com"}}},
		"no names":         {Subject: pkix.Name{CommonName: "example.com"}},
		"large serial":     {SerialNumber: new(big.Int).SetBytes(bytes.Repeat([]byte{0xff}, 20))},
		"small serial":     {SerialNumber: big.NewInt(0x80)},
		"must staple":      {ExtraExtensions: extension(feature, 0x30, 3, 2, 1, 5)},
		"several features": {ExtraExtensions: extension(feature, 0x30, 6, 2, 1, 17, 2, 1, 5)},
		"other feature":    {ExtraExtensions: extension(feature, 0x30, 3, 2, 1, 17)},
		"odd feature":      {ExtraExtensions: extension(feature, 0x30, 3, 2, 1, 5, 0)},
		"odder feature":    {ExtraExtensions: extension(feature, 0x31, 3, 2, 1, 5)},
		"https responder":  {OCSPServer: []string{"https://OCSP.example"}},
		"two responders":   {OCSPServer: []string{"ldap://x", "http://ocsp.example:8080/a?b=c"}},
		"ldap responder":   {OCSPServer: []string{"ldap://http/x"}},
		"no host":          {OCSPServer: []string{"http:///x", "http://", "http:", "https://", "http:x", "/"}},
		"bad host":         {OCSPServer: []string{"http://a b/"}},
		"capital scheme":   {OCSPServer: []string{"HTTP://ocsp.example"}},
		"odd host":         {OCSPServer: []string{"http://[::1", "http://%zz", "http://a:b"}},
		"issuer URL only":  {IssuingCertificateURL: []string{"http://ca.example"}},
	} {
		vectors[name] = sign(t, template, p.key.Public(), p.low).Raw
	}
	return vectors
}

func TestScanAgreesWithX509(t *testing.T) {
	for name, data := range scanVectors(t) {
		if !checkFacts(t, name, data) {
			t.Errorf("%s: x509 does not parse it", name)
		}
	}
}

// handmades are certificates that x509 may or may not parse.
func handmades(t testing.TB, p pki) map[string][]byte {
	out := map[string][]byte{}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(x25519.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	out["X25519"] = handmade(t, p.leaf, func(f *fakeTBS) { f.Key = asn1.RawValue{FullBytes: spki} })
	for version := range 5 {
		out["version "+string(rune('0'+version))] = handmade(t, p.leaf, func(f *fakeTBS) { f.Version = version - 1 })
	}
	out["negative serial"] = handmade(t, p.leaf, func(f *fakeTBS) { f.Serial = big.NewInt(-1) })
	out["zero serial"] = handmade(t, p.leaf, func(f *fakeTBS) { f.Serial = new(big.Int) })
	out["no extensions"] = handmade(t, p.leaf, func(f *fakeTBS) { f.Extensions = nil })
	for _, at := range []asn1.RawValue{
		utcTime("491231235959Z"), utcTime("500101000000Z"), utcTime("680229000000Z"), utcTime("690101000000Z"), utcTime("991231235959Z"),
		utcTime("000101000000Z"), utcTime("240229120000Z"), utcTime("230229120000Z"), utcTime("260431000000Z"), utcTime("260001000000Z"),
		utcTime("261301000000Z"), utcTime("260100000000Z"), utcTime("260101240000Z"), utcTime("260101006000Z"), utcTime("260101000060Z"),
		utcTime("2601010000Z"), utcTime("260101000000+0100"), utcTime("260101000000-0730"), utcTime("260101000000z"), utcTime("2601010000000"),
		utcTime("26010100000aZ"), utcTime("2a0101000000Z"), utcTime(" 60101000000Z"), utcTime(""), utcTime("20260101000000Z"),
		genTime("20500101000000Z"), genTime("99991231235959Z"), genTime("00000101000000Z"), genTime("19000229000000Z"), genTime("20000229000000Z"),
		genTime("20500101000000+0100"), genTime("205001010000Z"), genTime("20500101000000.5Z"), genTime("2050010100000"), genTime("500101000000Z"),
		{Tag: asn1.TagIA5String, Bytes: []byte("260101000000Z")},
	} {
		out["time "+string(at.Bytes)+" of tag "+string(rune('0'+at.Tag%32))] = handmade(t, p.leaf, func(f *fakeTBS) {
			f.Validity.NotBefore, f.Validity.NotAfter = at, at
		})
	}
	return out
}

func TestScanAgreesOnHandmadeCertificates(t *testing.T) {
	parsed := 0
	for name, data := range handmades(t, newPKI(t)) {
		if checkFacts(t, name, data) {
			parsed++
		} else if f, err := Scan(data); err == nil {
			t.Errorf("%s: %+v; x509 refuses it", name, f)
		}
	}
	if parsed < 15 {
		t.Errorf("x509 parses %d of them; want more, or the test says little", parsed)
	}
}

func TestScanRefuses(t *testing.T) {
	leaf := newPKI(t).leaf.Raw
	for n := range len(leaf) {
		if _, err := Scan(leaf[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes are a certificate", n, len(leaf))
		}
	}
	if _, err := Scan(append(slices.Clone(leaf), 0)); err == nil {
		t.Error("bytes behind the certificate are let be")
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	p := newPKI(t)
	leaf := publicLeaf(t, p.low, p.key.Public(), "example.com", "*.example.com").Raw
	names := []string{"example.com", "*.example.com", "www.example.com"}
	if n := testing.AllocsPerRun(100, func() {
		f, err := Scan(leaf)
		if err != nil || !f.OCSP || f.Covers(names) != nil {
			t.Fatalf("%+v, %v", f, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations; want none", n)
	}
	f, err := Scan(p.leaf.Raw)
	if err != nil {
		t.Fatal(err)
	}
	addrs := []string{"192.0.2.1", "2001:db8::1"}
	if n := testing.AllocsPerRun(100, func() {
		if f.Covers(addrs) != nil {
			t.Fatal("the addresses are not covered")
		}
	}); n != 0 {
		t.Errorf("addresses: %v allocations; want none", n)
	}
}

func FuzzScan(f *testing.F) {
	for _, data := range scanVectors(f) {
		f.Add(data)
	}
	for _, data := range handmades(f, newPKI(f)) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkFacts(t, "input", data) })
}

func BenchmarkScan(b *testing.B) {
	p := newPKI(b)
	leaf := publicLeaf(b, p.low, p.key.Public(), "www.example.com", "example.com").Raw
	b.ReportMetric(float64(len(leaf)), "leaf-bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Scan(leaf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkX509ParseCertificate(b *testing.B) {
	p := newPKI(b)
	leaf := publicLeaf(b, p.low, p.key.Public(), "www.example.com", "example.com").Raw
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x509.ParseCertificate(leaf); err != nil {
			b.Fatal(err)
		}
	}
}
