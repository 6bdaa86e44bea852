package certwright

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/certwright/certwright/internal/certpem"
)

// Storage keys. Everything lies under one version, so that a later layout can
// stand beside this one.
const (
	storageVersion = "v1"

	keyCerts      = storageVersion + "/certs"      // certs/<issuer>/<id>: key, chain and metadata
	keyAccounts   = storageVersion + "/accounts"   // accounts/<issuer>/account
	keyChallenges = storageVersion + "/challenges" // challenges/<type>/<identifier>/<token>
	keyOrders     = storageVersion + "/orders"     // orders/<id>: the next key and the orders made for it
	keyState      = storageVersion + "/state"      // state/<id>: back-off and renewal information
	keyStaples    = storageVersion + "/staples"    // staples/<id>
)

// Kinds of stored records.
const (
	kindCertificate = "certificate"
	kindAccount     = "account"
	kindOrder       = "order"
	kindState       = "state"
	kindStaple      = "staple"
)

func storageKey(parts ...string) string { return strings.Join(parts, "/") }

// certID is the identity of a managed certificate in storage: its name, which of
// several is the first in the alphabet and is followed by a digest of all, and
// the key type when it is not the default.
func certID(names []string, t KeyType) string {
	id := names[0]
	if len(names) > 1 {
		sorted := slices.Sorted(slices.Values(names))
		id = sorted[0]
		sum := sha256.Sum256([]byte(strings.Join(sorted, ",")))
		id += "+" + hex.EncodeToString(sum[:8])
	}
	if t != P256 {
		id += "+" + string(t)
	}
	return id
}

// sameSet reports whether a and b are the same names, whatever their order.
func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// KeyType is the kind of a certificate's key.
type KeyType string

// The key types. The zero value of a KeyType means P256.
const (
	P256    = KeyType(certpem.P256)    // ECDSA on P-256, the default
	P384    = KeyType(certpem.P384)    // ECDSA on P-384
	RSA2048 = KeyType(certpem.RSA2048) // RSA, 2048 bits
	RSA3072 = KeyType(certpem.RSA3072) // RSA, 3072 bits
	RSA4096 = KeyType(certpem.RSA4096) // RSA, 4096 bits
)

func (t KeyType) known() bool {
	switch t {
	case P256, P384, RSA2048, RSA3072, RSA4096:
		return true
	}
	return false
}

// keyIndex is a known KeyType in one byte.
type keyIndex uint8

const (
	indexP256 keyIndex = iota
	indexP384
	indexRSA2048
	indexRSA3072
	indexRSA4096
)

func (t KeyType) index() keyIndex {
	switch t {
	case P384:
		return indexP384
	case RSA2048:
		return indexRSA2048
	case RSA3072:
		return indexRSA3072
	case RSA4096:
		return indexRSA4096
	}
	return indexP256
}

func (i keyIndex) keyType() KeyType {
	return [...]KeyType{P256, P384, RSA2048, RSA3072, RSA4096}[i]
}

// nameOf returns a name of the certificate with that ID.
func nameOf(id string) string {
	name, _, _ := strings.Cut(id, "+") // no name has a plus sign
	return name
}
