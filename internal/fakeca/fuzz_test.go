package fakeca

import (
	"crypto/ecdsa"
	"encoding/json"
	"testing"
)

// FuzzParseJWS looks for a panic, and for a JWS that is taken with a part missing.
func FuzzParseJWS(f *testing.F) {
	f.Add([]byte(`{"protected":"eyJhbGciOiJFUzI1NiJ9","payload":"","signature":"AAAA"}`))
	f.Add([]byte(`{"protected":"e30","payload":"e30","signature":"AA","header":{}}`))
	f.Add([]byte(`{"protected":null,"payload":null,"signature":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		j, bad := parseJWS(body)
		if (j == nil) == (bad == nil) {
			t.Fatalf("got %v and %v", j, bad)
		}
		if bad != nil {
			return
		}
		if len(j.signature) == 0 || len(j.payload) > 0 && !json.Valid(j.payload) {
			t.Errorf("took %q", body)
		}
	})
}

// FuzzParseJWK looks for a panic, and for a key that a signature could not be checked with.
func FuzzParseJWK(f *testing.F) {
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`))
	f.Add([]byte(`{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}`))
	f.Add([]byte(`{"kty":"RSA","n":"AQAB","e":"AQAB"}`))
	f.Add([]byte(`{"kty":"RSA","n":"","e":""}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, err := parseJWK(raw)
		if err != nil {
			return
		}
		if key.alg() == "" || len(key.thumbprint) != 43 || !key.equal(key.key) {
			t.Errorf("took %q", raw)
		}
		if key.verify([]byte("x"), make([]byte, 64)) == nil {
			t.Errorf("%q takes a signature of zeros", raw)
		}
		if ec, ok := key.key.(*ecdsa.PublicKey); ok {
			if _, err := ec.Bytes(); err != nil {
				t.Errorf("took a point off the curve: %q", raw)
			}
		}
	})
}
