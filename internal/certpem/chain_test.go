package certpem

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeCA is a certificate that signs others.
type fakeCA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func sign(t testing.TB, template *x509.Certificate, pub crypto.PublicKey, by fakeCA) *x509.Certificate {
	t.Helper()
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, pub, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// newCA makes a CA signed by another, or by itself when that is the zero fakeCA.
func newCA(t testing.TB, name string, by fakeCA) fakeCA {
	t.Helper()
	key := mustKey(t, P256)
	template := caTemplate(name)
	if by.key == nil {
		by = fakeCA{template, key}
	}
	return fakeCA{sign(t, template, key.Public(), by), key}
}

func leafFor(t testing.TB, by fakeCA, pub crypto.PublicKey, names ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return sign(t, template, pub, by)
}

type pki struct {
	root, mid, low fakeCA
	key            crypto.Signer
	leaf           *x509.Certificate
}

func newPKI(t testing.TB) pki {
	t.Helper()
	var p pki
	p.root = newCA(t, "Root", fakeCA{})
	p.mid = newCA(t, "Middle", p.root)
	p.low = newCA(t, "Low", p.mid)
	p.key = mustKey(t, P256)
	p.leaf = leafFor(t, p.low, p.key.Public(), "example.com", "*.Example.com", "192.0.2.1", "2001:db8::1")
	return p
}

func pemOf(certs ...*x509.Certificate) string { return string(EncodeChain(certs)) }

func titles(chain []*x509.Certificate) string {
	var out []string
	for _, cert := range chain {
		out = append(out, title(cert))
	}
	return strings.Join(out, " ")
}

func TestP22_ParseChain(t *testing.T) {
	p := newPKI(t)
	leaf, low, mid, root := p.leaf, p.low.cert, p.mid.cert, p.root.cert
	other := newCA(t, "Other root", fakeCA{})
	cross := sign(t, caTemplate("Root"), p.root.key.Public(), other)
	stranger := newCA(t, "Stranger", other)
	good := pemOf(leaf, low, mid)
	whole := "example.com Low Middle"
	keyPEM, err := EncodeKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, in, want string }{
		{"in order", good, whole},
		{"CRLF", strings.ReplaceAll(good, "\n", "\r\n"), whole},
		{"blank lines", strings.ReplaceAll(good, "-----BEGIN", "\n\r\n  \n-----BEGIN"), whole},
		{"text between", "subject=example.com\n" + pemOf(leaf) + "issuer: CN = Low\r\n" + pemOf(low) + "\n# next\n" + pemOf(mid) + "bye", whole},
		{"no line feed between", strings.ReplaceAll(good, "-----\n-----", "----------"), whole},
		{"no line feed at the end", strings.TrimSpace(good), whole},
		{"BOM", "\ufeff" + good, whole},
		{"key in front", string(keyPEM) + good, whole},
		{"duplicates", pemOf(leaf, leaf, low, mid, low), whole},
		{"root at the end", pemOf(leaf, low, mid, root), whole},
		{"duplicate root", pemOf(leaf, low, mid, root, root), whole},
		{"reversed", pemOf(root, mid, low, leaf), whole},
		{"leaf in the middle", pemOf(mid, leaf, low), whole},
		{"leaf only", pemOf(leaf), "example.com"},
		{"leaf and root", pemOf(leaf, root), "example.com"},
		{"cross-signed root", pemOf(leaf, low, mid, root, cross), whole + " Root"},
		{"cross-signed root and its issuer", pemOf(leaf, low, mid, cross, root, other.cert), whole + " Root"},
		{"foreign root", pemOf(leaf, low, mid, other.cert), whole},
		{"a hole", pemOf(leaf, mid, root), "example.com Middle"},
		{"foreign intermediate", pemOf(stranger.cert, leaf), "example.com Stranger"},
		{"root only", pemOf(root), "Root"},
		{"CA as leaf", pemOf(mid, low, root), "Low Middle"},
	}
	for _, tt := range tests {
		chain, err := ParseChain([]byte(tt.in))
		if err != nil || titles(chain) != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, titles(chain), err, tt.want)
			continue
		}
		again, err := ParseChain(EncodeChain(chain))
		if err != nil || titles(again) != tt.want {
			t.Errorf("%s: once more: %q, %v", tt.name, titles(again), err)
		}
	}
}

func TestP22_ParseChainPrefersTheKeyThatSigned(t *testing.T) {
	root := newCA(t, "Root", fakeCA{})
	key := mustKey(t, P256)
	// Two CAs of one name whose key identifiers were left out: only the
	// signature tells them apart.
	var cas []fakeCA
	for range 2 {
		k := mustKey(t, P256)
		template := caTemplate("Twin")
		template.SubjectKeyId = []byte{}
		cas = append(cas, fakeCA{sign(t, template, k.Public(), root), k})
	}
	leaf := leafFor(t, cas[1], key.Public(), "example.com")
	for _, in := range [][]*x509.Certificate{{leaf, cas[0].cert, cas[1].cert}, {leaf, cas[1].cert, cas[0].cert}} {
		chain, err := ParseChain(EncodeChain(in))
		if err != nil || len(chain) < 2 || !chain[1].Equal(cas[1].cert) {
			t.Errorf("%q, %v; want the leaf and its issuer", titles(chain), err)
		}
	}
}

func TestP22_ParseChainRefuses(t *testing.T) {
	p := newPKI(t)
	good := pemOf(p.leaf, p.low.cert)
	keyPEM, err := EncodeKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.Split(string(keyPEM), "\n")[1]
	tests := []struct{ name, in, says string }{
		{"empty", "", "empty"},
		{"space", " \r\n", "empty"},
		{"HTML", "<html><head><title>502 Bad Gateway</title>", `begins with "<html><head><title>502`},
		{"JSON", `{"type":"urn:ietf:params:acme:error:rateLimited"}`, `begins with "{`},
		{"text", "no such certificate", "no such certificate"},
		{"key", string(keyPEM), "private key"},
		{"bare key", bare, "no PEM block"},
		{"DER", string(p.leaf.Raw), "no PEM block"},
		{"cut short", good[:len(good)-100], "1 of 2"},
		{"damaged in the middle", strings.Replace(good, "MII", "M!I", 1), "1 of 2"},
		{"not a certificate", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}})), "certificate 1"},
		{"a bundle of roots", strings.Repeat(pemOf(p.root.cert), maxCerts+1), "give one chain"},
		{"too long", strings.Repeat("\n", maxChain) + good, "longer"},
	}
	for _, tt := range tests {
		chain, err := ParseChain([]byte(tt.in))
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %q, %v; want an error that says %q", tt.name, titles(chain), err, tt.says)
			continue
		}
		if strings.Contains(err.Error(), bare[:12]) {
			t.Errorf("%s: the error holds key bytes: %v", tt.name, err)
		}
	}
}

func TestVerify(t *testing.T) {
	p := newPKI(t)
	whole := []*x509.Certificate{p.leaf, p.low.cert, p.mid.cert}
	pub := p.key.Public()
	impostor := newCA(t, "Low", p.mid)
	tests := []struct {
		name  string
		chain []*x509.Certificate
		key   crypto.PublicKey
		names []string
		says  string
	}{
		{"whole", whole, pub, []string{"example.com"}, ""},
		{"all names", whole, pub, []string{"example.com", "*.example.com", "192.0.2.1", "2001:db8::1"}, ""},
		{"under the wildcard", whole, pub, []string{"www.example.com"}, ""},
		{"nothing asked", whole, nil, nil, ""},
		{"leaf only", whole[:1], pub, []string{"example.com"}, ""},
		{"with root", append(slices.Clone(whole), p.root.cert), pub, nil, ""},
		{"empty", nil, pub, nil, "empty"},
		{"other key", whole, mustKey(t, P256).Public(), nil, "private key"},
		{"other type of key", whole, mustKey(t, Ed25519).Public(), nil, "private key"},
		{"other name", whole, pub, []string{"example.com", "example.org"}, `"example.org"`},
		{"too deep", whole, pub, []string{"a.b.example.com"}, `"a.b.example.com"`},
		{"other address", whole, pub, []string{"192.0.2.2"}, `"192.0.2.2"`},
		{"a hole", []*x509.Certificate{p.leaf, p.mid.cert}, pub, nil, `"Middle"`},
		{"same name, other key", []*x509.Certificate{p.leaf, impostor.cert}, pub, nil, `"Low"`},
		{"signed by a leaf", []*x509.Certificate{p.low.cert, p.leaf}, nil, nil, `"example.com"`},
	}
	for _, tt := range tests {
		err := Verify(tt.chain, tt.key, tt.names)
		if tt.says == "" && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v; want an error that says %q", tt.name, err, tt.says)
		}
	}
}

func TestNamesAndTLSCertificate(t *testing.T) {
	p := newPKI(t)
	want := []string{"example.com", "*.example.com", "192.0.2.1", "2001:db8::1"}
	if got := Names(p.leaf); !slices.Equal(got, want) {
		t.Errorf("Names = %q; want %q", got, want)
	}
	if got := Names(p.root.cert); len(got) != 0 {
		t.Errorf("Names of a CA = %q", got)
	}
	cert := TLSCertificate([]*x509.Certificate{p.leaf, p.low.cert}, p.key)
	if cert.Leaf != p.leaf || cert.PrivateKey != p.key || len(cert.Certificate) != 2 || !bytes.Equal(cert.Certificate[1], p.low.cert.Raw) {
		t.Errorf("TLSCertificate = %+v", cert)
	}
	if TLSCertificate(nil, p.key) != nil {
		t.Error("TLSCertificate of no chain is not nil")
	}
	if got := EncodeChain(nil); len(got) != 0 {
		t.Errorf("EncodeChain(nil) = %q", got)
	}
}

func TestCertID(t *testing.T) {
	aki := []byte{
		0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c, 0xde, 0x01, 0xc8, 0xd4,
	}
	tests := []struct {
		name   string
		serial *big.Int
		want   string
	}{
		{"the example of RFC 9773", big.NewInt(0x87654321), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"},
		{"without sign byte", big.NewInt(0x7f), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.fw"},
		{"zero", big.NewInt(0), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AA"},
	}
	for _, tt := range tests {
		got, err := CertID(&x509.Certificate{AuthorityKeyId: aki, SerialNumber: tt.serial})
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	for _, cert := range []*x509.Certificate{{SerialNumber: big.NewInt(1)}, {AuthorityKeyId: aki}, {AuthorityKeyId: aki, SerialNumber: big.NewInt(-1)}} {
		if got, err := CertID(cert); err == nil {
			t.Errorf("CertID(%+v) = %q; want an error", cert.Subject, got)
		}
	}
	// The serial's bytes are those of its DER, whatever the number.
	for range 50 {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
		if err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := CertID(&x509.Certificate{AuthorityKeyId: der[2:], SerialNumber: n})
		id, serial, _ := strings.Cut(got, ".")
		if err != nil || id != serial {
			t.Fatalf("CertID of serial %v = %q, %v; want %q twice", n, got, err, id)
		}
	}
}

func FuzzParseChain(f *testing.F) {
	p := newPKI(f)
	good := pemOf(p.leaf, p.low.cert, p.mid.cert, p.root.cert)
	f.Add([]byte(good))
	f.Add([]byte(pemOf(p.root.cert, p.leaf)))
	f.Add([]byte(good[:len(good)-30]))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := ParseChain(data)
		if err != nil {
			return
		}
		if len(chain) == 0 {
			t.Fatal("no certificate and no error")
		}
		again, err := ParseChain(EncodeChain(chain))
		if err != nil || !slices.EqualFunc(chain, again, (*x509.Certificate).Equal) {
			t.Fatalf("%q, then %q, %v", titles(chain), titles(again), err)
		}
		_ = Verify(chain, chain[0].PublicKey, Names(chain[0])) // must not panic
	})
}
