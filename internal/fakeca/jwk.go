package fakeca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

var errSignature = errors.New("the signature does not verify")

// publicKey is an account's or a certificate's key.
type publicKey struct {
	key        crypto.PublicKey
	thumbprint string // RFC 7638, base64url
}

type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y"`
	N   string `json:"n"`
	E   string `json:"e"`
}

func parseJWK(raw []byte) (publicKey, error) {
	var j jwk
	if err := json.Unmarshal(raw, &j); err != nil {
		return publicKey{}, fmt.Errorf("decoding JWK: %w", err)
	}
	switch j.Kty {
	case "EC":
		return parseEC(j)
	case "RSA":
		return parseRSA(j)
	}
	return publicKey{}, fmt.Errorf("decoding JWK: key type %q is not supported", j.Kty)
}

func parseEC(j jwk) (publicKey, error) {
	var curve elliptic.Curve
	switch j.Crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	default:
		return publicKey{}, fmt.Errorf("decoding JWK: curve %q is not supported", j.Crv)
	}
	x, errX := decode64(j.X)
	y, errY := decode64(j.Y)
	if err := errors.Join(errX, errY); err != nil {
		return publicKey{}, fmt.Errorf("decoding JWK: %w", err)
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return publicKey{}, fmt.Errorf("decoding JWK: a coordinate is not %d bytes", size)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
	if err != nil {
		return publicKey{}, fmt.Errorf("decoding JWK: %w", err)
	}
	return publicKey{key, thumbprint(fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, j.Crv, j.X, j.Y))}, nil
}

func parseRSA(j jwk) (publicKey, error) {
	n, errN := decode64(j.N)
	e, errE := decode64(j.E)
	if err := errors.Join(errN, errE); err != nil {
		return publicKey{}, fmt.Errorf("decoding JWK: %w", err)
	}
	exponent := new(big.Int).SetBytes(e)
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	if bits := key.N.BitLen(); bits < 2048 || bits > 8192 {
		return publicKey{}, fmt.Errorf("decoding JWK: an RSA key of %d bits is not accepted", bits)
	}
	if exponent.BitLen() > 31 || key.E < 3 || key.E%2 == 0 {
		return publicKey{}, errors.New("decoding JWK: the RSA exponent is not accepted")
	}
	return publicKey{key, thumbprint(fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, j.E, j.N))}, nil
}

func thumbprint(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// alg is the one algorithm (RFC 7518 section 3.1) that the CA accepts from this key.
func (k publicKey) alg() string {
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P384() {
			return "ES384"
		}
		return "ES256"
	case *rsa.PublicKey:
		return "RS256"
	}
	return ""
}

// verify checks a signature made with the key's own algorithm.
func (k publicKey) verify(signed, sig []byte) error {
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		sum := sha256.Sum256(signed)
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) != nil {
			return errSignature
		}
		return nil
	case *ecdsa.PublicKey:
		size := (key.Curve.Params().BitSize + 7) / 8
		if len(sig) != 2*size {
			return errSignature
		}
		digest := digestFor(key.Curve, signed)
		r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
		if !ecdsa.Verify(key, digest, r, s) {
			return errSignature
		}
		return nil
	}
	return errSignature
}

func digestFor(curve elliptic.Curve, signed []byte) []byte {
	if curve == elliptic.P384() {
		sum := sha512.Sum384(signed)
		return sum[:]
	}
	sum := sha256.Sum256(signed)
	return sum[:]
}

// equal reports whether the key is the given one.
func (k publicKey) equal(other crypto.PublicKey) bool {
	key, ok := k.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(other)
}

// decode64 decodes base64url without padding, strictly (RFC 8555 section 6.1).
func decode64(s string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
