package adopt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// privateJWK is a private key (RFC 7517, RFC 7518 §6). Its errors say nothing of
// what is in it.
type privateJWK struct {
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
	N     string `json:"n"`
	E     string `json:"e"`
	D     string `json:"d"`
	P     string `json:"p"`
	Q     string `json:"q"`
}

// parseJWK reads a private RSA or EC key.
func parseJWK(value []byte) (crypto.Signer, error) {
	var k privateJWK
	if json.Unmarshal(value, &k) != nil {
		return nil, errors.New("it is not a JSON Web Key")
	}
	switch k.Type {
	case "RSA":
		return k.rsa()
	case "EC":
		return k.ec()
	}
	return nil, fmt.Errorf("it is a key of type %q, not RSA or EC", clip(k.Type))
}

func (k privateJWK) rsa() (crypto.Signer, error) {
	nums, err := numbers(k.N, k.E, k.D, k.P, k.Q)
	if err != nil {
		return nil, err
	}
	n, e := nums[0], nums[1]
	if n.BitLen() < 2048 || n.BitLen() > 8192 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, errors.New("it is not an RSA key of a usual size")
	}
	for _, prime := range nums[3:] {
		if prime.BitLen() < 2 || prime.BitLen() >= n.BitLen() {
			return nil, errors.New("it is not a valid RSA key")
		}
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())},
		D:         nums[2], Primes: nums[3:],
	}
	if key.Validate() != nil {
		return nil, errors.New("it is not a valid RSA key")
	}
	key.Precompute()
	return key, nil
}

func (k privateJWK) ec() (crypto.Signer, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}[k.Curve]
	if curve == nil {
		return nil, fmt.Errorf("it is a key on the curve %q, not P-256 or P-384", clip(k.Curve))
	}
	nums, err := numbers(k.X, k.Y, k.D)
	if err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	for _, n := range nums {
		if n.BitLen() > 8*size {
			return nil, errors.New("it is not a valid EC key")
		}
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, nums[2].FillBytes(make([]byte, size)))
	if err != nil {
		return nil, errors.New("it is not a valid EC key")
	}
	point := append([]byte{4}, nums[0].FillBytes(make([]byte, size))...)
	point = append(point, nums[1].FillBytes(make([]byte, size))...)
	if pub, err := ecdsa.ParseUncompressedPublicKey(curve, point); err != nil || !key.PublicKey.Equal(pub) {
		return nil, errors.New("it is not a valid EC key")
	}
	return key, nil
}

// numbers decodes integers in base64url (RFC 7518 §2). None may be missing.
func numbers(texts ...string) ([]*big.Int, error) {
	out := make([]*big.Int, len(texts))
	for i, text := range texts {
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(raw) == 0 || len(raw) > 1100 {
			return nil, errors.New("a part of the key is missing or not base64url")
		}
		out[i] = new(big.Int).SetBytes(raw)
	}
	return out, nil
}

func clip(s string) string { return s[:min(len(s), 20)] }
