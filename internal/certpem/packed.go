package certpem

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
)

// Packed is a certificate chain with its key in little memory: the leaf and the
// key are one piece, and what follows the leaf is shared with other leaves of
// its issuer. It is not changed after it was made: it may be copied, and used by
// several goroutines. The zero Packed is none, and the same as no other.
type Packed struct {
	blob  []byte // the DER of the leaf, then the key
	links *links // nil when the leaf is alone
	leaf  uint32 // bytes of the leaf
	kind  KeyKind
	form  keyForm
}

// keyForm is how a key is written in a Packed.
type keyForm uint8

const (
	formPKCS8 keyForm = iota
	formP256          // the scalar (SEC 1 §2.3.6)
	formP384
)

// Pack returns a chain, leaf first, with its key in compact form. Certificates
// behind the leaf are shared through in, unless that is nil. It fails when the
// key is not in memory or not the leaf's, and when the certificates behind the
// leaf do not link up. That the first of them signed the leaf is for [Verify].
func Pack(chain []*x509.Certificate, key crypto.Signer, in *Chains) (Packed, error) {
	p, err := pack(chain, key, in)
	if err != nil {
		return Packed{}, fmt.Errorf("packing certificate: %w", err)
	}
	return p, nil
}

func pack(chain []*x509.Certificate, key crypto.Signer, in *Chains) (Packed, error) {
	if len(chain) == 0 {
		return Packed{}, errors.New("the chain is empty")
	}
	if key == nil || !Match(chain[0].PublicKey, key.Public()) {
		return Packed{}, errors.New("the leaf is not for the private key")
	}
	leaf := chain[0].Raw
	facts, err := Scan(leaf)
	if err != nil {
		return Packed{}, err
	}
	secret, form, err := marshalKey(key)
	if err != nil {
		return Packed{}, err
	}
	links, err := in.intern(chain[1:])
	if err != nil {
		return Packed{}, err
	}
	if len(leaf) > math.MaxInt32 {
		return Packed{}, fmt.Errorf("the leaf has %d bytes", len(leaf))
	}
	blob := append(append(make([]byte, 0, len(leaf)+len(secret)), leaf...), secret...)
	return Packed{blob: blob, links: links, leaf: uint32(len(leaf)), kind: facts.Kind, form: form}, nil
}

func marshalKey(key crypto.Signer) ([]byte, keyForm, error) {
	if k, ok := key.(*ecdsa.PrivateKey); ok && (k.Curve == elliptic.P256() || k.Curve == elliptic.P384()) {
		form := formP256
		if k.Curve == elliptic.P384() {
			form = formP384
		}
		secret, err := k.Bytes()
		return secret, form, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	return secret, formPKCS8, err
}

// Leaf returns the DER of the leaf, not to be changed.
func (p *Packed) Leaf() []byte {
	return p.blob[:p.leaf:p.leaf]
}

// Rest returns the DER of the certificates behind the leaf, in order and not to
// be changed. It is nil when there are none.
func (p *Packed) Rest() [][]byte {
	if p.links == nil {
		return nil
	}
	return p.links.der[:len(p.links.der):len(p.links.der)]
}

// Chain returns the DER of all certificates, leaf first. They are not to be
// changed.
func (p *Packed) Chain() [][]byte {
	if p.leaf == 0 {
		return nil
	}
	rest := p.Rest()
	return append(append(make([][]byte, 0, 1+len(rest)), p.Leaf()), rest...)
}

// Issuer returns the certificate behind the leaf, parsed, shared and not to be
// changed, or nil when the leaf is alone.
func (p *Packed) Issuer() *x509.Certificate {
	if p.links == nil {
		return nil
	}
	return p.links.first
}

// Facts returns what the leaf says of itself.
func (p *Packed) Facts() Facts {
	facts, _ := Scan(p.Leaf()) // what cannot be scanned is not packed
	return facts
}

// KeyKind returns the kind of the key.
func (p *Packed) KeyKind() KeyKind { return p.kind }

// SameLeaf reports whether both have the same leaf.
func (p *Packed) SameLeaf(other *Packed) bool {
	return p.leaf > 0 && bytes.Equal(p.Leaf(), other.Leaf())
}

// Parse returns the leaf parsed anew. It shares memory with p.
func (p *Packed) Parse() (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(p.Leaf())
	if err != nil {
		return nil, fmt.Errorf("parsing leaf: %w", err)
	}
	return leaf, nil
}

// Certificate returns what crypto/tls serves, with Leaf set, parsed anew. It
// shares the memory of the certificates with p. It fails when crypto/x509
// refuses the leaf, and when the key is damaged or not the leaf's, which
// [FromPEM] does not look into.
func (p *Packed) Certificate() (*tls.Certificate, error) {
	leaf, err := p.Parse()
	if err != nil {
		return nil, err
	}
	key, err := p.key()
	if err != nil {
		return nil, fmt.Errorf("reading the key of %q: %w", title(leaf), err)
	}
	if !Match(leaf.PublicKey, key.Public()) {
		return nil, fmt.Errorf("reading the key of %q: the leaf is not for it", title(leaf))
	}
	return &tls.Certificate{Certificate: p.Chain(), PrivateKey: key, Leaf: leaf}, nil
}

// key says nothing of what the parsers said, as parseKey does.
func (p *Packed) key() (crypto.Signer, error) {
	secret := p.blob[p.leaf:]
	curve := elliptic.P256()
	switch p.form {
	case formPKCS8:
		return parseKey(secret)
	case formP384:
		curve = elliptic.P384()
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, secret)
	if err != nil {
		return nil, errors.New("it is not a valid scalar")
	}
	return key, nil
}
