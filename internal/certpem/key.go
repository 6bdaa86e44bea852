// Package certpem makes, reads and writes private keys and certificate chains
// in PEM, and checks that they belong together.
//
// All functions are pure, the making of keys aside, and safe for concurrent use.
// No error holds any part of a private key.
package certpem

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// A KeyType is an algorithm with its size. The empty KeyType is none.
type KeyType string

// The key types that can be made. P256 and RSA2048 are what every public CA
// signs; Ed25519 is for private CAs.
const (
	P256    KeyType = "p256"
	P384    KeyType = "p384"
	RSA2048 KeyType = "rsa2048"
	RSA3072 KeyType = "rsa3072"
	RSA4096 KeyType = "rsa4096"
	Ed25519 KeyType = "ed25519"
)

// maxKey is far above the largest key in use and keeps junk from being parsed
// at length.
const maxKey = 64 << 10

// GenerateKey makes a new private key. It fails for a type that is not one of
// the constants, the empty one included.
func GenerateKey(t KeyType) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch t {
	case P256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("generating key %q: unknown key type", string(t))
	}
	if err != nil {
		return nil, fmt.Errorf("generating key %q: %w", string(t), err)
	}
	return key, nil
}

// TypeOf returns the type of a public key and reports whether it is one of the
// constants.
func TypeOf(pub crypto.PublicKey) (KeyType, bool) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return P256, true
		case elliptic.P384():
			return P384, true
		}
	case *rsa.PublicKey:
		switch pub.Size() {
		case 256:
			return RSA2048, true
		case 384:
			return RSA3072, true
		case 512:
			return RSA4096, true
		}
	case ed25519.PublicKey:
		return Ed25519, true
	}
	return "", false
}

// Match reports whether two public keys are the same key. A nil key matches
// nothing.
func Match(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && b != nil && k.Equal(b)
}

// EncodeKey returns a private key as a PKCS #8 "PRIVATE KEY" block (RFC 5958).
// It fails for a key that is not in memory, such as one in an HSM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// DecodeKey returns the first private key in PEM text: any block whose label
// ends in "PRIVATE KEY", in PKCS #8, PKCS #1 or SEC 1 form whatever the label
// says. Other blocks and text between them are passed over. Encrypted keys are
// refused.
func DecodeKey(data []byte) (crypto.Signer, error) {
	if len(data) > maxKey {
		return nil, fmt.Errorf("decoding private key: the text is longer than %d bytes", maxKey)
	}
	rest := trimBOM(data)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("decoding private key: it is encrypted; decrypt it first")
		}
		key, err := parseKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("decoding private key: %w", err)
		}
		return key, nil
	}
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil, errors.New("decoding private key: its PEM block is damaged or cut short")
	}
	return nil, errors.New("decoding private key: there is no PEM block with a private key")
}

// parseKey says nothing of what the parsers said: their errors may quote bytes
// of the key.
func parseKey(der []byte) (crypto.Signer, error) {
	var key any
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		key = k
	} else if k, err := x509.ParseECPrivateKey(der); err == nil {
		key = k
	} else if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		key = k
	} else {
		return nil, errors.New("it is not a valid PKCS #8, PKCS #1 or SEC 1 key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

func trimBOM(data []byte) []byte {
	return bytes.TrimPrefix(data, []byte("\ufeff"))
}
