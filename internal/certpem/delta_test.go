package certpem

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// fakeLogs are the IDs of the logs that a CA sends its certificates to.
type fakeLogs [4][32]byte

func newLogs() (logs fakeLogs) {
	for i := range logs {
		_, _ = rand.Read(logs[i][:])
	}
	return logs
}

// scts returns an extension with two signed certificate timestamps of two of the
// logs (RFC 6962 §3.3).
func (l *fakeLogs) scts(t testing.TB) pkix.Extension {
	t.Helper()
	var list []byte
	for _, i := range mathrand.Perm(len(l))[:2] {
		sig := make([]byte, 64)
		_, _ = rand.Read(sig)
		// An ECDSA signature is two INTEGERs, with a zero before a high bit.
		var der []byte
		for _, n := range [][]byte{sig[:32], sig[32:]} {
			v, err := asn1.Marshal(new(big.Int).SetBytes(n))
			if err != nil {
				t.Fatal(err)
			}
			der = append(der, v...)
		}
		der = append([]byte{0x30, byte(len(der))}, der...)
		sct := append([]byte{0}, l[i][:]...)
		sct = binary.BigEndian.AppendUint64(sct, uint64(time.Now().UnixMilli())-mathrand.Uint64N(1<<32))
		sct = append(sct, 0, 0, 4, 3, 0, byte(len(der)))
		sct = append(sct, der...)
		list = append(binary.BigEndian.AppendUint16(list, uint16(len(sct))), sct...)
	}
	list = append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
	value, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// shapedLeaf returns a leaf of the shape and size that Let's Encrypt gives it.
func shapedLeaf(t testing.TB, by fakeCA, logs *fakeLogs, pub crypto.PublicKey, names ...string) *x509.Certificate {
	t.Helper()
	serial := make([]byte, 18)
	_, _ = rand.Read(serial)
	serial[0] = 5
	ski := make([]byte, 20)
	_, _ = rand.Read(ski)
	return sign(t, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IssuingCertificateURL: []string{"http://e7.i.lencr.org/"},
		CRLDistributionPoints: []string{fmt.Sprintf("http://e7.c.lencr.org/%d.crl", mathrand.IntN(128))},
		PolicyIdentifiers:     []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		SubjectKeyId:          ski, ExtraExtensions: []pkix.Extension{logs.scts(t)},
	}, pub, by)
}

// newIssuer makes a CA with a name as long as public ones have.
func newIssuer(t testing.TB) fakeCA {
	t.Helper()
	template := caTemplate("E7")
	template.Subject.Country, template.Subject.Organization = []string{"US"}, []string{"Let's Encrypt"}
	key := mustKey(t, P256)
	return fakeCA{sign(t, template, key.Public(), newCA(t, "Root", fakeCA{})), key}
}

func TestDeltasAreSmall(t *testing.T) {
	ca, logs := newIssuer(t), newLogs()
	var in Chains
	const n = 300
	leaves, blobs, smallest, largest := 0, 0, 1<<20, 0
	for i := range n + 1 {
		key := mustKey(t, P256)
		leaf := shapedLeaf(t, ca, &logs, key.Public(), fmt.Sprintf("www%d.example.com", i))
		p, err := Pack([]*x509.Certificate{leaf, ca.cert}, key, &in)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Leaf(), leaf.Raw) {
			t.Fatalf("%x is kept as %x", leaf.Raw, p.Leaf())
		}
		if i == 0 { // the template
			if len(p.blob) > 50 {
				t.Errorf("the first takes %d bytes beside the template", len(p.blob))
			}
			continue
		}
		leaves, blobs = leaves+len(leaf.Raw), blobs+len(p.blob)
		smallest, largest = min(smallest, len(p.blob)), max(largest, len(p.blob))
	}
	t.Logf("a leaf of %d bytes and its key take %d bytes, from %d to %d", leaves/n, blobs/n, smallest, largest)
	if saved := (leaves - blobs) / n; saved < 300 {
		t.Errorf("with the key, %d bytes are saved of a leaf of %d; want 300", saved, leaves/n)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// checkDelta reports whether leaf is kept as a difference.
func checkDelta(t testing.TB, model *template, leaf []byte) bool {
	t.Helper()
	room := []byte("before")
	script, ok := model.encode(room, leaf)
	if !ok {
		return false
	}
	if again, ok := model.encode(room, leaf); !ok || !bytes.Equal(script, again) {
		t.Fatalf("one leaf has two scripts, %x and %x", script, again)
	}
	script = script[len(room):]
	if most := len(leaf) * 15 / 16; len(script) > most {
		t.Fatalf("the script has %d bytes; want at most %d", len(script), most)
	}
	got := make([]byte, len(leaf))
	model.decode(got, script)
	if !bytes.Equal(got, leaf) {
		t.Fatalf("%x is decoded from %x; want %x", got, script, leaf)
	}
	return true
}

func TestDelta(t *testing.T) {
	a, b, c := randomBytes(200), randomBytes(300), randomBytes(maxDelta-500)
	whole := slices.Concat(a, b, c)
	cut := bytes.Clone(whole)
	for i := 0; i < len(cut); i += window + 2 {
		cut[i] ^= 1
	}
	for name, tt := range map[string]struct {
		template, leaf []byte
		want           bool
	}{
		"the same":             {whole, whole, true},
		"the first part":       {whole, a, true},
		"the last part":        {whole, c, true},
		"longer":               {a, slices.Concat(a, b), true},
		"longer in front":      {c, slices.Concat(b, c), true},
		"turned round":         {whole, slices.Concat(c, b, a), true},
		"ends far apart":       {whole, slices.Concat(whole[maxDelta-20:], whole[:20], whole[maxDelta-20:], whole[:20]), true},
		"one part over again":  {slices.Concat(a, b), bytes.Repeat(a, 10), true},
		"a byte in each part":  {whole, slices.Concat(a, []byte{1}, b, []byte{2}, c[:100]), true},
		"a byte less":          {whole, whole[1:], true},
		"nothing but one byte": {make([]byte, maxDelta), make([]byte, 1000), true},
		"a window":             {whole, a[:window], true},
		"shorter than that":    {whole, a[:window-1], false},
		"nothing":              {whole, nil, true},
		"nothing in common":    {b, a, false},
		"little in common":     {b, slices.Concat(c[:2000], b[:100]), false},
		"very short parts":     {whole, cut, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := checkDelta(t, newTemplate(tt.template), tt.leaf); got != tt.want {
				t.Errorf("kept as a difference: %v; want %v", got, tt.want)
			}
		})
	}
}

func FuzzDelta(f *testing.F) {
	ca, logs := newIssuer(f), newLogs()
	key := mustKey(f, P256).Public()
	a, b := shapedLeaf(f, ca, &logs, key, "example.com").Raw, shapedLeaf(f, ca, &logs, key, "www.example.org").Raw
	f.Add(a, b)
	f.Add(a, a[:100])
	f.Add([]byte("abcdefghijklmnop"), []byte("ijklmnopabcdefgh, efghijk and aaaaaaaaaa"))
	f.Add(make([]byte, 300), bytes.Repeat([]byte{0, 0, 0, 0, 0, 1}, 99))
	f.Fuzz(func(t *testing.T, model, leaf []byte) {
		if len(model) >= window && len(model) <= maxDelta && len(leaf) <= maxDelta {
			checkDelta(t, newTemplate(model), leaf)
		}
	})
}

func TestLongLeavesAreKeptAsTheyAre(t *testing.T) {
	p := newPKI(t)
	var names []string
	for i := range 300 {
		names = append(names, fmt.Sprintf("name%d.example.com", i))
	}
	long := leafFor(t, p.low, p.key.Public(), names...)
	var in Chains
	if got := mustPack(t, []*x509.Certificate{long, p.low.cert}, p.key, &in); len(long.Raw) <= maxDelta || got.delta != 0 || got.links.template.Load() != nil {
		t.Errorf("a leaf of %d bytes is a template, or a difference of %d bytes", len(long.Raw), got.delta)
	}
	if got := mustPack(t, []*x509.Certificate{p.leaf, p.low.cert}, p.key, &in); got.delta == 0 {
		t.Error("the first leaf behind it is not a template")
	}
}

func TestSameLeafWhateverItsForm(t *testing.T) {
	ca, logs := newIssuer(t), newLogs()
	key := mustKey(t, P256)
	var leaves []*x509.Certificate
	var in, other Chains
	for i := range 3 {
		leaf := shapedLeaf(t, ca, &logs, key.Public(), fmt.Sprintf("www%d.example.com", i))
		leaves = append(leaves, leaf)
		mustPack(t, []*x509.Certificate{leaf, ca.cert}, key, &in)
	}
	slices.Reverse(leaves) // for another template
	forms := map[string][]Packed{}
	for _, leaf := range leaves {
		chain := []*x509.Certificate{leaf, ca.cert}
		for name, p := range map[string]Packed{
			"a difference": mustPack(t, chain, key, &in), "the same again": mustPack(t, chain, key, &in),
			"from another template": mustPack(t, chain, key, &other), "whole": mustPack(t, chain, key, nil), "alone": mustPack(t, chain[:1], key, &in),
		} {
			forms[name] = append(forms[name], p)
		}
	}
	for a, as := range forms {
		for b, bs := range forms {
			for i := range as {
				for j := range bs {
					if got := as[i].SameLeaf(&bs[j]); got != (i == j) {
						t.Errorf("leaf %d %s and leaf %d %s are the same: %v", i, a, j, b, got)
					}
				}
			}
		}
	}
}

func TestManyPackTheFirstLeafAtOnce(t *testing.T) {
	ca, logs := newIssuer(t), newLogs()
	const n = 16
	keys, texts, leaves := make([][]byte, n), make([][]byte, n), make([]*x509.Certificate, n)
	for i := range n {
		key := mustKey(t, P256)
		leaves[i] = shapedLeaf(t, ca, &logs, key.Public(), fmt.Sprintf("www%d.example.com", i))
		keys[i], texts[i] = keyPEM(t, key), EncodeChain([]*x509.Certificate{leaves[i], ca.cert})
	}
	for range 20 {
		var in Chains
		var wg sync.WaitGroup
		var got [2 * n]Packed
		start := make(chan struct{})
		for i := range got {
			wg.Go(func() {
				<-start
				p, facts, err := FromPEM(keys[i/2], texts[i/2], &in)
				if err != nil || !bytes.Equal(p.Leaf(), leaves[i/2].Raw) || !bytes.Equal(facts.Serial, leaves[i/2].SerialNumber.Bytes()) {
					t.Errorf("leaf %d is another one, %v", i/2, err)
				}
				got[i] = p
			})
		}
		close(start)
		wg.Wait()
		for i := range got {
			if p, twin := &got[i], &got[i^1]; p.delta == 0 || p.links != got[0].links || !p.SameLeaf(twin) || !bytes.Equal(p.blob, twin.blob) {
				t.Errorf("leaf %d is kept in two forms", i/2)
			}
			if cert, err := got[i].Certificate(); err != nil || !cert.Leaf.Equal(leaves[i/2]) {
				t.Errorf("the certificate of leaf %d: %v", i/2, err)
			}
		}
	}
}

// shapedPair returns two leaves of an issuer, packed, and the texts of the second.
func shapedPair(t testing.TB, in *Chains) (a, b Packed, key, text []byte) {
	t.Helper()
	ca, logs := newIssuer(t), newLogs()
	signer := mustKey(t, P256)
	one := []*x509.Certificate{shapedLeaf(t, ca, &logs, signer.Public(), "example.com"), ca.cert}
	two := []*x509.Certificate{shapedLeaf(t, ca, &logs, signer.Public(), "www.example.org"), ca.cert}
	return mustPack(t, one, signer, in), mustPack(t, two, signer, in), keyPEM(t, signer), EncodeChain(two)
}

func TestDeltaAllocations(t *testing.T) {
	var in Chains
	a, b, key, text := shapedPair(t, &in)
	again := mustPackText(t, key, text, &in)
	whole := mustPackText(t, key, text, nil)
	for name, tt := range map[string]struct {
		do   func()
		want float64
	}{
		"FromPEM":            {func() { mustPackText(t, key, text, &in) }, 2},
		"Leaf":               {func() { b.Leaf() }, 1},
		"Leaf, whole":        {func() { whole.Leaf() }, 0},
		"Facts":              {func() { b.Facts() }, 1},
		"Facts, whole":       {func() { whole.Facts() }, 0},
		"SameLeaf":           {func() { b.SameLeaf(&again) }, 0},
		"SameLeaf, another":  {func() { b.SameLeaf(&a) }, 0},
		"SameLeaf and whole": {func() { b.SameLeaf(&whole) }, 1},
	} {
		if n := testing.AllocsPerRun(100, tt.do); n != tt.want {
			t.Errorf("%s: %v allocations; want %v", name, n, tt.want)
		}
	}
}

func mustPackText(t testing.TB, key, text []byte, in *Chains) Packed {
	t.Helper()
	p, _, err := FromPEM(key, text, in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func BenchmarkDelta(b *testing.B) {
	var in Chains
	_, p, key, text := shapedPair(b, &in)
	leaf, model := p.Leaf(), p.links.template.Load()
	room := make([]byte, 0, len(leaf))
	b.Run("encode", func(b *testing.B) {
		b.ReportMetric(float64(len(leaf)), "leaf-bytes")
		b.ReportMetric(float64(len(p.blob)), "blob-bytes")
		for b.Loop() {
			model.encode(room, leaf)
		}
	})
	b.Run("Leaf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Leaf()
		}
	})
	b.Run("Facts", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Facts()
		}
	})
	b.Run("FromPEM", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mustPackText(b, key, text, &in)
		}
	})
	b.Run("template", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			newTemplate(leaf)
		}
	})
}
