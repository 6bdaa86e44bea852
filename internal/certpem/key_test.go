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
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
)

func mustKey(t testing.TB, kt KeyType) crypto.Signer {
	t.Helper()
	key, err := GenerateKey(kt)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeyRoundTrip(t *testing.T) {
	types := []KeyType{P256, P384, RSA2048, Ed25519}
	if !testing.Short() {
		types = append(types, RSA3072, RSA4096)
	}
	var last crypto.PublicKey
	for _, kt := range types {
		key := mustKey(t, kt)
		if got, ok := TypeOf(key.Public()); !ok || got != kt {
			t.Errorf("TypeOf a %s key = %q, %v", kt, got, ok)
		}
		data, err := EncodeKey(key)
		if err != nil || !bytes.HasPrefix(data, []byte("-----BEGIN PRIVATE KEY-----\n")) {
			t.Fatalf("%s: %.30q, %v", kt, data, err)
		}
		got, err := DecodeKey(data)
		if err != nil || !Match(got.Public(), key.Public()) {
			t.Errorf("%s: decoding gives another key, %v", kt, err)
		}
		if Match(key.Public(), last) {
			t.Errorf("%s: matches another key", kt)
		}
		last = key.Public()
	}
	if Match(nil, last) || Match(last, nil) || Match(nil, nil) {
		t.Error("a nil key matches")
	}
}

func TestGenerateKeyRefuses(t *testing.T) {
	for _, kt := range []KeyType{"", "P256", "rsa1024"} {
		if _, err := GenerateKey(kt); err == nil {
			t.Errorf("GenerateKey(%q) succeeds", kt)
		}
	}
}

func TestTypeOfOthers(t *testing.T) {
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []crypto.PublicKey{nil, small.Public(), "key"} {
		if kt, ok := TypeOf(pub); ok {
			t.Errorf("TypeOf(%T) = %q", pub, kt)
		}
	}
}

func TestDecodeKeyForms(t *testing.T) {
	ec, rsaKey := mustKey(t, P256).(*ecdsa.PrivateKey), mustKey(t, RSA2048).(*rsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	block := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	pkcs1 := x509.MarshalPKCS1PrivateKey(rsaKey)
	params := block("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	tests := []struct {
		name, in string
		want     crypto.Signer
	}{
		{"SEC 1", block("EC PRIVATE KEY", sec1), ec},
		{"SEC 1 behind parameters", params + block("EC PRIVATE KEY", sec1), ec},
		{"SEC 1 under another label", block("PRIVATE KEY", sec1), ec},
		{"PKCS #1", block("RSA PRIVATE KEY", pkcs1), rsaKey},
		{"PKCS #1 under another label", block("ANY PRIVATE KEY", pkcs1), rsaKey},
		{"CRLF", strings.ReplaceAll(block("EC PRIVATE KEY", sec1), "\n", "\r\n"), ec},
		{"text and BOM", "\ufeff" + block("CERTIFICATE", []byte{1}) + "key:\n" + block("EC PRIVATE KEY", sec1), ec},
	}
	for _, tt := range tests {
		got, err := DecodeKey([]byte(tt.in))
		if err != nil || !Match(got.Public(), tt.want.Public()) {
			t.Errorf("%s: %v, or another key", tt.name, err)
		}
	}
}

func TestDecodeKeyRefusesWithoutTelling(t *testing.T) {
	key := mustKey(t, P256)
	data, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := pem.Decode(data)
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	xder, err := x509.MarshalPKCS8PrivateKey(x)
	if err != nil {
		t.Fatal(err)
	}
	block := func(b *pem.Block) string { return string(pem.EncodeToMemory(b)) }
	tests := []struct{ name, in, says string }{
		{"empty", "", "no PEM block"},
		{"certificate", block(&pem.Block{Type: "CERTIFICATE", Bytes: good.Bytes}), "no PEM block"},
		{"public key", block(&pem.Block{Type: "PUBLIC KEY", Bytes: good.Bytes}), "no PEM block"},
		{"half", string(data[:len(data)/2]) + "-----BEGIN PRIVATE KEY-----", "damaged"},
		{"junk in the block", block(&pem.Block{Type: "PRIVATE KEY", Bytes: good.Bytes[:40]}), "not a valid"},
		{"encrypted", block(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: good.Bytes}), "encrypted"},
		{
			"encrypted by header", block(&pem.Block{
				Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: good.Bytes,
			}), "encrypted",
		},
		{"key agreement only", block(&pem.Block{Type: "PRIVATE KEY", Bytes: xder}), "cannot sign"},
		{"too long", strings.Repeat("\n", maxKey) + string(data), "longer"},
	}
	for _, tt := range tests {
		got, err := DecodeKey([]byte(tt.in))
		if err == nil || got != nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want an error that says %q", tt.name, err, tt.says)
			continue
		}
		body := base64.StdEncoding.EncodeToString(good.Bytes)
		for i := 0; i+8 <= len(body); i += 8 {
			if strings.Contains(err.Error(), body[i:i+8]) {
				t.Errorf("%s: the error holds key bytes: %v", tt.name, err)
			}
		}
	}
	if _, err := EncodeKey(nil); err == nil {
		t.Error("EncodeKey(nil) succeeds")
	}
}

func FuzzDecodeKey(f *testing.F) {
	for _, kt := range []KeyType{P256, Ed25519, RSA2048} {
		data, err := EncodeKey(mustKey(f, kt))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := DecodeKey(data)
		if err != nil {
			return
		}
		again, err := EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeKey(again)
		if err != nil || !Match(key.Public(), back.Public()) {
			t.Fatalf("encoding and decoding gives another key, %v", err)
		}
	})
}
