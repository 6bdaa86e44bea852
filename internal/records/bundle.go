package records

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/hostname"
)

// Flag is something that a bundle has or has not.
type Flag uint8

// The flags of a bundle. OCSP and MustStaple follow from the leaf.
const (
	OCSP       Flag = 1 << iota // the leaf names a responder that is asked over HTTP
	MustStaple                  // clients may refuse the leaf without a staple (RFC 7633)
	Adopted                     // another program got it
)

// Bundle is a key and a chain, and what their upkeep needs of them, as they are
// stored. Make, LoadBundle and Covering make it. It is not changed after others
// have seen it, and is safe for concurrent use. There are many, so that it is
// small: what the leaf says is parsed anew each time that it is asked for. No
// method but Same and String takes a nil Bundle.
type Bundle struct {
	Names []string // as they were asked for; never empty

	// Unix seconds. End is the earliest end of a certificate of the chain. A
	// certificate behind the leaf that was over when the leaf began does not
	// count: there is nothing better to be had.
	NotBefore, NotAfter, End, Stored int64

	blob   []byte // the key in its form, then the leaf's DER
	tail   *tail  // the certificates behind the leaf; nil when there are none
	origin *origin
	mark   uint64 // of the leaf's SHA-256
	key    uint16 // bytes of the key
	typ    keyType
	flags  Flag
}

// keyType is a certpem.KeyType in one byte, and the form in which a key is kept:
// the scalar for an elliptic curve, else PKCS #8.
type keyType uint8

var keyTypes = [...]certpem.KeyType{certpem.P256, certpem.P384, certpem.RSA2048, certpem.RSA3072, certpem.RSA4096, certpem.Ed25519}

const (
	typeP256 keyType = iota
	typeP384
)

// scalar returns the curve and the bytes of a private scalar; nil for keys of
// other kinds.
func (t keyType) scalar() (elliptic.Curve, int) {
	switch t {
	case typeP256:
		return elliptic.P256(), 32
	case typeP384:
		return elliptic.P384(), 48
	}
	return nil, 0
}

// newKeyType reports false for a type that is none of package certpem's.
func newKeyType(t certpem.KeyType) (keyType, bool) {
	i := slices.Index(keyTypes[:], t)
	return keyType(max(i, 0)), i >= 0
}

// String returns the ID: no formatting verb shows the key. It takes a nil Bundle.
func (b *Bundle) String() string {
	if b == nil {
		return "<nil>"
	}
	return b.ID()
}

// ID returns the bundle's identity, which is that of its names and its key type.
func (b *Bundle) ID() string { return ID(b.Names, b.KeyType()) }

// KeyType returns the type of the key.
func (b *Bundle) KeyType() certpem.KeyType { return keyTypes[b.typ] }

// CA returns the name of the CA, as the issuer gives it, empty when it is not
// known.
func (b *Bundle) CA() string { return b.origin.CA }

// Account returns the ID of the issuer that got it, empty when it is not known.
func (b *Bundle) Account() string { return b.origin.Account }

// Profile returns the profile that was asked for, empty when none was.
func (b *Bundle) Profile() string { return b.origin.Profile }

// Has reports whether b has all of the flags.
func (b *Bundle) Has(f Flag) bool { return b.flags&f == f }

// Usable reports whether a client would accept the whole chain at now, Unix
// seconds.
func (b *Bundle) Usable(now int64) bool { return b.NotBefore <= now && now < b.End }

// Covers reports whether b is good for all of names, which are normalised. It is
// false for no names.
func (b *Bundle) Covers(names []string) bool { return coversAll(b.Names, names) }

func coversAll(have, names []string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(have, func(pattern string) bool { return hostname.Covers(pattern, name) }) {
			return false
		}
	}
	return len(names) > 0
}

// ShareNames lets b use the caller's slice if it holds the same names in the
// same order. It is for a new Bundle, before others see it.
func (b *Bundle) ShareNames(names []string) {
	if slices.Equal(b.Names, names) {
		b.Names = names
	}
}

// Same reports whether both have the same leaf. A nil Bundle is the same as none.
func (b *Bundle) Same(o *Bundle) bool {
	return b != nil && o != nil && b.mark == o.mark && bytes.Equal(b.der(), o.der())
}

// Fraction returns a number in [0,1) that follows from the leaf and salt, and so
// is the same on all instances and after each start.
func (b *Bundle) Fraction(salt ...int64) float64 {
	text := binary.BigEndian.AppendUint64(nil, b.mark)
	for _, s := range salt {
		text = binary.BigEndian.AppendUint64(text, uint64(s))
	}
	sum := sha256.Sum256(text)
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// der returns the leaf's DER, not to be changed.
func (b *Bundle) der() []byte { return b.blob[b.key:len(b.blob):len(b.blob)] }

// Serial returns the leaf's serial number in hexadecimal, in lower case and
// without leading zeros.
func (b *Bundle) Serial() string {
	var cert, tbs, serial cryptobyte.String
	in := cryptobyte.String(b.der())
	// RFC 5280 §4.1: the serial number is the first or, behind the version, the
	// second element.
	if !in.ReadASN1(&cert, asn1.SEQUENCE) || !cert.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1(&serial, asn1.INTEGER) {
		return "" // not in a leaf that was checked
	}
	text := strings.TrimLeft(hex.EncodeToString(serial), "0")
	if text == "" {
		return "0"
	}
	return text
}

// Leaf returns the leaf, parsed anew. It shares memory with b.
func (b *Bundle) Leaf() (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(b.der())
	if err != nil {
		return nil, fmt.Errorf("parsing certificate %q: %w", b.Names[0], err)
	}
	return leaf, nil
}

// Issuer returns the certificate behind the leaf, which all leaves of one issuer
// share and which is not to be changed. It is nil, without an error, when the
// leaf stands alone.
func (b *Bundle) Issuer() (*x509.Certificate, error) {
	if b.tail == nil {
		return nil, nil
	}
	cert, err := b.tail.first()
	if err != nil {
		return nil, fmt.Errorf("parsing issuer of certificate %q: %w", b.Names[0], err)
	}
	return cert, nil
}

// HasKey reports whether b is for a public key.
func (b *Bundle) HasKey(pub crypto.PublicKey) bool {
	leaf, err := b.Leaf()
	return err == nil && certpem.Match(leaf.PublicKey, pub)
}

// Certificate returns what crypto/tls serves, parsed anew, with Leaf set. What
// is behind the leaf is shared. It fails when the leaf is not for the key.
func (b *Bundle) Certificate() (*tls.Certificate, error) {
	leaf, err := b.Leaf()
	if err != nil {
		return nil, err
	}
	key, err := b.signer()
	if err == nil && !certpem.Match(leaf.PublicKey, key.Public()) {
		err = errors.New("the leaf is not for it")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key of certificate %q: %w", b.Names[0], err)
	}
	chain := [][]byte{leaf.Raw}
	if b.tail != nil {
		chain = append(chain, b.tail.der...)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

// signer returns the private key. Its errors say nothing of what the parsers
// said, which may quote bytes of the key.
func (b *Bundle) signer() (crypto.Signer, error) {
	secret := b.blob[:b.key]
	if curve, _ := b.typ.scalar(); curve != nil {
		key, err := ecdsa.ParseRawPrivateKey(curve, secret)
		if err != nil {
			return nil, errors.New("it is not a valid scalar")
		}
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, errors.New("it is not a valid PKCS #8 key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// pack puts key and leaf into one piece.
func (b *Bundle) pack(secret, leaf []byte) {
	b.blob = append(append(make([]byte, 0, len(secret)+len(leaf)), secret...), leaf...)
	b.key = uint16(len(secret))
	sum := sha256.Sum256(leaf)
	b.mark = binary.BigEndian.Uint64(sum[:])
}
