package certpem

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

func keyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	data, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFromPEM(t *testing.T) {
	p := newPKI(t)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var in Chains
	mustPack(t, []*x509.Certificate{p.leaf, p.low.cert, p.mid.cert}, p.key, &in)
	mustPack(t, []*x509.Certificate{p.leaf, p.low.cert}, p.key, &in)
	for name, tt := range map[string]struct {
		key   crypto.Signer
		quick bool
	}{
		"P-256": {p.key, true}, "P-384": {mustKey(t, P384), true}, "RSA": {mustKey(t, RSA2048), true},
		"P-521": {p521, false}, "Ed25519": {mustKey(t, Ed25519), false}, // nothing shows the public key
	} {
		for range 20 { // the lengths of serial and signature differ
			leaf := publicLeaf(t, p.low, tt.key.Public(), "example.com", "www.example.com")
			for _, chain := range [][]*x509.Certificate{{leaf}, {leaf, p.low.cert}, {leaf, p.low.cert, p.mid.cert}} {
				key, text := keyPEM(t, tt.key), EncodeChain(chain)
				if _, _, ok := quick(key, text, &in); ok != tt.quick {
					t.Errorf("%s, %d certificates: quick is %v; want %v", name, len(chain), ok, tt.quick)
				}
				got, facts, err := FromPEM(key, text, &in)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				clear(key)
				clear(text) // it must not be kept
				checkPacked(t, &got, chain, tt.key)
				if want, err := Scan(chain[0].Raw); err != nil || !reflect.DeepEqual(facts, want) {
					t.Errorf("%s: the facts are %+v; want %+v", name, facts, want)
				}
				want := mustPack(t, chain, tt.key, &in)
				if !bytes.Equal(got.blob, want.blob) || got.links != want.links || got.form != want.form || got.kind != want.kind || got.leaf != want.leaf || got.delta != want.delta {
					t.Errorf("%s: FromPEM and Pack differ", name)
				}
			}
		}
	}
}

func TestFromPEMKnowsAChainAfterItsFirst(t *testing.T) {
	p := newPKI(t)
	var in Chains
	key, text := keyPEM(t, p.key), EncodeChain([]*x509.Certificate{p.leaf, p.low.cert, p.mid.cert})
	if _, _, ok := quick(key, text, &in); ok {
		t.Error("a chain that was never checked is taken for good")
	}
	var wg sync.WaitGroup
	got := make([]Packed, 8)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], _, err = FromPEM(key, text, &in); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, g := range got {
		if g.links != got[0].links {
			t.Error("one chain is kept twice")
		}
	}
	if _, _, ok := quick(key, text, &in); !ok {
		t.Error("a chain that was checked is not known")
	}
	if _, _, err := FromPEM(key, text, nil); err != nil {
		t.Errorf("without Chains: %v", err)
	}
}

// TestFromPEMTakesOddTexts has texts that take the longer way to the same end.
func TestFromPEMTakesOddTexts(t *testing.T) {
	p := newPKI(t)
	chain := []*x509.Certificate{p.leaf, p.low.cert, p.mid.cert}
	key, text := string(keyPEM(t, p.key)), string(EncodeChain(chain))
	ec := p.key.(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(key))
	stranger := slices.Clone(block.Bytes)
	stranger[len(stranger)-1] ^= 1
	encode := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	var in Chains
	want := mustPack(t, chain, p.key, &in)
	for _, tt := range []struct{ name, key, chain string }{
		{"CRLF", strings.ReplaceAll(key, "\n", "\r\n"), strings.ReplaceAll(text, "\n", "\r\n")},
		{"text around", "key\n" + key + "end\n", "leaf\n" + text + "end\n"},
		{"no line feed at the end", strings.TrimSpace(key), strings.TrimSpace(text)},
		{"out of order", key, pemOf(p.mid.cert, p.leaf, p.low.cert)},
		{"root at the end", key, pemOf(p.leaf, p.low.cert, p.mid.cert, p.root.cert)},
		{"leaf twice", key, pemOf(p.leaf) + text},
		{"long lines", strings.Replace(key, "\nMIGHAgEAMBMGByqGSM49", "\nMIGHAgEA\nMBMGByqGSM49", 1), text},
		{"SEC 1", encode("EC PRIVATE KEY", sec1), text},
		{"a public key that is not its own beside the key", encode("PRIVATE KEY", stranger), text},
	} {
		got, _, err := FromPEM([]byte(tt.key), []byte(tt.chain), &in)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !bytes.Equal(got.blob, want.blob) || got.links != want.links {
			t.Errorf("%s: another certificate", tt.name)
		}
	}
}

func TestFromPEMRefuses(t *testing.T) {
	p := newPKI(t)
	impostor := newCA(t, "Low", p.mid)
	byImpostor := leafFor(t, impostor, p.key.Public(), "example.com")
	rsaKey, otherRSA := mustKey(t, RSA2048), mustKey(t, RSA2048)
	rsaLeaf := leafFor(t, p.low, rsaKey.Public(), "example.com")
	key, text := string(keyPEM(t, p.key)), pemOf(p.leaf, p.low.cert, p.mid.cert)
	rest := pemOf(p.low.cert, p.mid.cert)
	tests := []struct{ name, key, chain, says string }{
		{"other key", string(keyPEM(t, mustKey(t, P256))), text, "private key"},
		{"other curve", string(keyPEM(t, mustKey(t, P384))), text, "private key"},
		{"other algorithm", string(keyPEM(t, rsaKey)), text, "private key"},
		{"other RSA key", string(keyPEM(t, otherRSA)), pemOf(rsaLeaf) + rest, "private key"},
		{"other key, leaf alone", string(keyPEM(t, mustKey(t, P256))), pemOf(p.leaf), "private key"},
		{"no key", "", text, "no PEM block"},
		{"no chain", key, "", "empty"},
		{"key cut short", key[:len(key)/2], text, "damaged"},
		{"key with a hole", strings.Replace(key, "\n", "\n\n!", 2), text, ""},
		{"chain cut short", key, text[:len(text)-100], "cut short"},
		{"leaf damaged", key, strings.Replace(text, "MII", "M!I", 1), "damaged"},
		{"a hole", key, pemOf(p.leaf, p.mid.cert), "not signed"},
		{"a CA of the same name", key, pemOf(byImpostor) + rest, "not signed"},
		{"leaf of another issuer", key, pemOf(leafFor(t, p.root, p.key.Public(), "example.com")) + rest, "not signed"},
	}
	var in Chains
	mustPack(t, []*x509.Certificate{p.leaf, p.low.cert, p.mid.cert}, p.key, &in)
	for _, tt := range tests {
		for what, in := range map[string]*Chains{"known": &in, "fresh": {}, "none": nil} {
			got, _, err := FromPEM([]byte(tt.key), []byte(tt.chain), in)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s, chains %s: %v; want an error that says %q", tt.name, what, err, tt.says)
			}
			if got.leaf != 0 {
				t.Errorf("%s: a certificate and an error", tt.name)
			}
		}
	}
}

func TestFromPEMLeavesADamagedScalarToCertificate(t *testing.T) {
	p := newPKI(t)
	block, _ := pem.Decode(keyPEM(t, p.key))
	block.Bytes[len(headP256)] ^= 1
	got, _, err := FromPEM(pem.EncodeToMemory(block), EncodeChain([]*x509.Certificate{p.leaf}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Certificate(); err == nil || !strings.Contains(err.Error(), "the leaf is not for it") {
		t.Errorf("%v; want an error that says that the key is not the leaf's", err)
	}
}

func TestFromPEMAllocations(t *testing.T) {
	p := newPKI(t)
	var in Chains
	for kt, key := range map[KeyType]crypto.Signer{P256: p.key, P384: mustKey(t, P384), RSA2048: mustKey(t, RSA2048)} {
		leaf := publicLeaf(t, p.low, key.Public(), "example.com")
		chain := []*x509.Certificate{leaf, p.low.cert}
		mustPack(t, chain, key, &in)
		data, text := keyPEM(t, key), EncodeChain(chain)
		if n := testing.AllocsPerRun(100, func() {
			if _, _, err := FromPEM(data, text, &in); err != nil {
				t.Fatal(err)
			}
		}); n != 2 {
			t.Errorf("%s: %v allocations; want one for the certificate and one for its facts", kt, n)
		}
	}
}

func FuzzFromPEM(f *testing.F) {
	p := newPKI(f)
	chain := []*x509.Certificate{p.leaf, p.low.cert, p.mid.cert}
	rsaKey := mustKey(f, RSA2048)
	rsaLeaf := leafFor(f, p.low, rsaKey.Public(), "example.com")
	f.Add(keyPEM(f, p.key), EncodeChain(chain))
	f.Add(keyPEM(f, p.key), EncodeChain(chain[:1]))
	f.Add(keyPEM(f, rsaKey), EncodeChain([]*x509.Certificate{rsaLeaf, p.low.cert, p.mid.cert}))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAA==\nAA==\n-----END PRIVATE KEY-----\n"), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n\n=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, key, text []byte) {
		// Each process of the fuzzer has keys of its own, so that what follows the
		// leaf becomes known from the input.
		var in Chains
		if _, rest, ok := cutBlock(text, beginCert+"\n", endCert); ok && len(rest) > 0 {
			if certs, err := ParseChain(rest); err == nil {
				_, _ = in.intern(certs)
			}
		}
		got, facts, ok := quick(key, text, &in)
		if !ok {
			return
		}
		cert, err := got.Certificate()
		if err != nil {
			return
		}
		signer, err := DecodeKey(key)
		if err != nil || !Match(signer.Public(), cert.Leaf.PublicKey) {
			t.Fatalf("the key is read as another, %v", err)
		}
		certs, err := ParseChain(text)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := Scan(certs[0].Raw); err != nil || !reflect.DeepEqual(facts, want) {
			t.Fatalf("the facts are %+v; want %+v", facts, want)
		}
		if want := got.Chain(); !slices.EqualFunc(certs, want, func(c *x509.Certificate, der []byte) bool { return bytes.Equal(c.Raw, der) }) {
			t.Fatalf("the chain is read as another: %q", titles(certs))
		}
	})
}

func FuzzPEMBody(f *testing.F) {
	for _, lines := range []string{"AAAA\n", "AA==\n", "AAA=\n", "AAAA\n\nAA==\n", strings.Repeat("A", 64) + "\nAAA=\n", strings.Repeat("A", 62) + "==\nAAA=\n"} {
		f.Add([]byte(lines))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		text := slices.Concat([]byte(beginKey), lines, []byte(endKey))
		b, rest, ok := cutBlock(text, beginKey, endKey)
		if !ok {
			return
		}
		got := make([]byte, b.size)
		if !b.decode(got) {
			return
		}
		block, wantRest := pem.Decode(text)
		if block == nil || !bytes.Equal(block.Bytes, got) || !bytes.Equal(rest, wantRest) {
			t.Fatalf("%q: %x; encoding/pem reads %+v", text, got, block)
		}
	})
}

func benchmarkFromPEM(b *testing.B, kt KeyType, in *Chains) {
	p := newPKI(b)
	key := mustKey(b, kt)
	leaf := publicLeaf(b, p.low, key.Public(), "www.example.com", "example.com")
	chain := []*x509.Certificate{leaf, p.low.cert}
	mustPack(b, chain, key, in)
	data, text := keyPEM(b, key), EncodeChain(chain)
	b.ReportMetric(float64(len(leaf.Raw)), "leaf-bytes")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := FromPEM(data, text, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFromPEM(b *testing.B) {
	b.Run("P256", func(b *testing.B) { benchmarkFromPEM(b, P256, new(Chains)) })
	b.Run("RSA2048", func(b *testing.B) { benchmarkFromPEM(b, RSA2048, new(Chains)) })
	b.Run("unknown chain", func(b *testing.B) { benchmarkFromPEM(b, P256, nil) })
}

func BenchmarkPackedCertificate(b *testing.B) {
	p := newPKI(b)
	for _, kt := range []KeyType{P256, RSA2048} {
		b.Run(string(kt), func(b *testing.B) {
			key := mustKey(b, kt)
			packed := mustPack(b, []*x509.Certificate{publicLeaf(b, p.low, key.Public(), "example.com"), p.low.cert}, key, nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := packed.Certificate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
