package certpem

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// mustPack packs a chain, and checks that the packed form gives back what went in.
func mustPack(t testing.TB, chain []*x509.Certificate, key crypto.Signer, in *Chains) Packed {
	t.Helper()
	p, err := Pack(chain, key, in)
	if err != nil {
		t.Fatal(err)
	}
	checkPacked(t, &p, chain, key)
	return p
}

func checkPacked(t testing.TB, p *Packed, chain []*x509.Certificate, key crypto.Signer) {
	t.Helper()
	cert, err := p.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok || !Match(signer.Public(), key.Public()) {
		t.Error("the key is another one")
	}
	checkSigns(t, signer)
	if !cert.Leaf.Equal(chain[0]) || !bytes.Equal(p.Leaf(), chain[0].Raw) || p.KeyKind() != kindOf(key.Public()) {
		t.Errorf("the leaf is %q, with a key of kind %d", title(cert.Leaf), p.KeyKind())
	}
	all := p.Chain()
	if len(all) != len(chain) || len(cert.Certificate) != len(chain) || len(p.Rest()) != len(chain)-1 {
		t.Fatalf("%d certificates, %d behind the leaf; want %d", len(all), len(p.Rest()), len(chain))
	}
	for i, c := range chain {
		if !bytes.Equal(all[i], c.Raw) || !bytes.Equal(cert.Certificate[i], c.Raw) {
			t.Errorf("certificate %d is another one", i+1)
		}
	}
	if issuer := p.Issuer(); len(chain) > 1 && !chain[1].Equal(issuer) || len(chain) == 1 && issuer != nil {
		t.Errorf("the issuer is %v", issuer)
	}
	if f := p.Facts(); !f.NotAfter.Equal(chain[0].NotAfter) {
		t.Errorf("the facts are %+v", f)
	}
}

func checkSigns(t testing.TB, key crypto.Signer) {
	t.Helper()
	digest := sha256.Sum256([]byte("text"))
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return
	}
	sig, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(&k.PublicKey, digest[:], sig) {
		t.Errorf("the key does not sign: %v", err)
	}
}

func TestPack(t *testing.T) {
	p := newPKI(t)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var in Chains
	for name, tt := range map[string]struct {
		key  crypto.Signer
		size int // of the key; 0: not checked
	}{
		"P-256": {p.key, 32}, "P-384": {mustKey(t, P384), 48}, "P-521": {p521, 0}, "RSA": {mustKey(t, RSA2048), 0}, "Ed25519": {mustKey(t, Ed25519), 48},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := publicLeaf(t, p.low, tt.key.Public(), "example.com")
			whole := mustPack(t, []*x509.Certificate{leaf, p.low.cert, p.mid.cert}, tt.key, &in)
			alone := mustPack(t, []*x509.Certificate{leaf}, tt.key, &in)
			unshared := mustPack(t, []*x509.Certificate{leaf, p.low.cert}, tt.key, nil)
			if !whole.SameLeaf(&alone) || !alone.SameLeaf(&unshared) {
				t.Error("the leaves are not the same")
			}
			for _, p := range []*Packed{&whole, &alone, &unshared} {
				if secret, last := p.cut(); tt.size != 0 && len(secret) != tt.size || cap(p.blob) != len(secret)+len(last) {
					t.Errorf("the key takes %d bytes; want %d", len(secret), tt.size)
				}
			}
			if whole.delta == 0 || alone.delta != 0 || unshared.delta != 0 {
				t.Error("the leaf is kept as it is although there is a template, or it is not and there is none")
			}
		})
	}
}

func TestPackedIsSmallAndShares(t *testing.T) {
	if size := unsafe.Sizeof(Packed{}); size > 40 {
		t.Errorf("a Packed has %d bytes; want at most 40", size)
	}
	p := newPKI(t)
	var in Chains
	a := mustPack(t, []*x509.Certificate{p.leaf, p.low.cert, p.mid.cert}, p.key, &in)
	other := publicLeaf(t, p.low, p.key.Public(), "example.org")
	b := mustPack(t, []*x509.Certificate{other, p.low.cert, p.mid.cert}, p.key, &in)
	if a.SameLeaf(&b) || a.links != b.links {
		t.Error("the leaves are the same, or what follows them is not shared")
	}
	cert, err := a.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if &cert.Certificate[0][0] != &cert.Leaf.Raw[0] || &cert.Certificate[1][0] != &b.Rest()[0][0] {
		t.Error("the certificates are copied")
	}
	alone := mustPack(t, []*x509.Certificate{p.leaf}, p.key, &in)
	if parsed, err := alone.Parse(); err != nil || &parsed.Raw[0] != &alone.blob[32] || &alone.Leaf()[0] != &alone.blob[32] {
		t.Errorf("a leaf that is kept as it is is copied, %v", err)
	}
	// What is handed out cannot be made longer to reach other leaves' chains.
	if leaf := a.Leaf(); cap(leaf) != len(leaf) || cap(alone.Leaf()) != len(alone.Leaf()) || cap(a.Rest()) != len(a.Rest()) {
		t.Error("there is room behind the leaf or the chain")
	}
	var zero Packed
	if zero.SameLeaf(&zero) || zero.SameLeaf(&a) || a.SameLeaf(&zero) || zero.Chain() != nil || zero.Rest() != nil || zero.Issuer() != nil {
		t.Error("the zero Packed is something")
	}
	if _, err := zero.Certificate(); err == nil {
		t.Error("the zero Packed has a certificate")
	}
}

// hardware is a key that is not in memory.
type hardware struct{ crypto.Signer }

func TestPackRefuses(t *testing.T) {
	p := newPKI(t)
	for name, tt := range map[string]struct {
		chain []*x509.Certificate
		key   crypto.Signer
		says  string
	}{
		"no chain":  {nil, p.key, "empty"},
		"no key":    {[]*x509.Certificate{p.leaf}, nil, "private key"},
		"other key": {[]*x509.Certificate{p.leaf}, mustKey(t, P256), "private key"},
		"hardware":  {[]*x509.Certificate{p.leaf}, hardware{p.key}, "unknown key type"},
		"a hole":    {[]*x509.Certificate{p.leaf, p.low.cert, p.root.cert}, p.key, "not signed"},
		"no DER":    {[]*x509.Certificate{{PublicKey: p.key.Public()}}, p.key, "DER"},
	} {
		if _, err := Pack(tt.chain, tt.key, new(Chains)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want an error that says %q", name, err, tt.says)
		}
	}
}

func TestCertificateFindsADamagedKey(t *testing.T) {
	p := newPKI(t)
	for name, key := range map[string]crypto.Signer{"P-256": p.key, "RSA": mustKey(t, RSA2048)} {
		leaf := leafFor(t, p.low, key.Public(), "example.com")
		good := mustPack(t, []*x509.Certificate{leaf}, key, nil)
		for what, edit := range map[string]func(secret []byte){
			"changed": func(secret []byte) { secret[len(secret)-1] ^= 1 },
			"zero":    func(secret []byte) { clear(secret) },
		} {
			bad := good
			bad.blob = slices.Clone(good.blob)
			secret, _ := bad.cut()
			edit(secret)
			if _, err := bad.Certificate(); err == nil {
				t.Errorf("%s: a key that is %s passes", name, what)
			}
		}
		bad := good
		bad.blob = slices.Clone(good.blob)
		clear(bad.Leaf())
		if _, err := bad.Certificate(); err == nil {
			t.Errorf("%s: a leaf of zeros passes", name)
		}
	}
}

func TestChainsAreBounded(t *testing.T) {
	var in Chains
	for i := range 3 * maxChains {
		text := strconv.Itoa(i)
		l := in.add(text, &links{})
		if in.find([]byte(text)) != l || in.add(text, &links{}) != l {
			t.Fatal("what was added is not known")
		}
		if len(in.known) > maxChains {
			t.Fatalf("%d chains are kept; want at most %d", len(in.known), maxChains)
		}
	}
	if in.find([]byte("0")) != nil || in.find([]byte(strconv.Itoa(3*maxChains-1))) == nil {
		t.Error("an old chain is kept and a new one is not")
	}
	p := newPKI(t)
	long := make([]*x509.Certificate, 0, 40)
	for by := p.root; len(EncodeChain(long)) <= maxSharedText; {
		by = newCA(t, "CA "+strconv.Itoa(len(long)), by)
		long = slices.Insert(long, 0, by.cert)
	}
	in.known = nil
	for range 2 {
		if l, err := in.intern(long); err != nil || len(l.der) != len(long) || len(in.known) != 0 {
			t.Errorf("a very long chain: %v, %d kept; want none", err, len(in.known))
		}
	}
}
