package adopt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
)

func jwkOf(t testing.TB, key crypto.Signer) map[string]string {
	t.Helper()
	enc := func(n *big.Int, size int) string {
		return base64.RawURLEncoding.EncodeToString(n.FillBytes(make([]byte, size)))
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return map[string]string{
			"kty": "RSA", "n": enc(k.N, k.Size()), "e": "AQAB", "d": enc(k.D, k.Size()),
			"p": enc(k.Primes[0], k.Size()/2), "q": enc(k.Primes[1], k.Size()/2),
		}
	case *ecdsa.PrivateKey:
		point, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := (len(point) - 1) / 2
		text := base64.RawURLEncoding.EncodeToString
		return map[string]string{
			"kty": "EC", "crv": k.Curve.Params().Name,
			"x": text(point[1 : 1+half]), "y": text(point[1+half:]), "d": text(d),
		}
	}
	t.Fatalf("no JWK of a %T", key)
	return nil
}

func TestParseJWK(t *testing.T) {
	for _, kind := range []certpem.KeyType{certpem.P256, certpem.P384, certpem.RSA2048} {
		key, err := certpem.GenerateKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		whole := jwkOf(t, key)
		text, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseJWK(text)
		if err != nil || !certpem.Match(got.Public(), key.Public()) {
			t.Errorf("%s: %v", kind, err)
		}
		for field, value := range whole {
			for _, bad := range []string{"", "!", "AQ", value[:len(value)/2]} {
				m := maps.Clone(whole)
				m[field] = bad
				text, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				_, err = parseJWK(text)
				if err == nil {
					t.Errorf("%s with %s = %q is taken", kind, field, bad)
				}
				if err != nil && strings.Contains(err.Error(), whole["d"][:8]) {
					t.Errorf("the error holds a part of the key: %v", err)
				}
			}
		}
	}
	for _, text := range []string{"", "{", "[]", `{"kty":"oct","k":"AA"}`, `{"kty":"EC","crv":"P-521"}`, `{"kty":1}`} {
		if _, err := parseJWK([]byte(text)); err == nil {
			t.Errorf("%q is taken for a key", text)
		}
	}
}
