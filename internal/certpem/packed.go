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
// its issuer. So is what such leaves have in common, if they are packed with the
// same [Chains]. It is not changed after it was made: it may be copied, and used by
// several goroutines. The zero Packed is none, and the same as no other.
type Packed struct {
	blob  []byte // the key, then the leaf or what it differs in from the template of links
	links *links // nil when the leaf is alone
	leaf  uint32 // bytes of the leaf's DER
	delta uint16 // bytes of the difference; 0 when the leaf is kept as it is
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
	defer clear(secret)
	p := Packed{links: links, kind: facts.Kind, form: form}
	p.put(leaf, secret, nil)
	return p, nil
}

// put sets what p holds of the leaf and the key, which are copied. The script is
// room to work in.
func (p *Packed) put(leaf, secret, script []byte) {
	last := leaf
	if script, ok := p.links.delta(script, leaf); ok {
		last, p.delta = script, uint16(len(script))
	}
	p.leaf = uint32(len(leaf))
	p.blob = append(append(make([]byte, 0, len(secret)+len(last)), secret...), last...)
}

// cut returns the key and what is behind it.
func (p *Packed) cut() (secret, last []byte) {
	n := len(p.blob) - int(p.leaf)
	if p.delta > 0 {
		n = len(p.blob) - int(p.delta)
	}
	return p.blob[:n:n], p.blob[n:len(p.blob):len(p.blob)]
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

// Leaf returns the DER of the leaf, not to be changed. It is put together anew when
// p holds no more than the difference to another leaf, which takes an allocation
// of its size; who needs it twice had better keep it.
func (p *Packed) Leaf() []byte {
	_, last := p.cut()
	if p.delta == 0 {
		return last
	}
	leaf := make([]byte, p.leaf)
	p.links.template.Load().decode(leaf, last)
	return leaf
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
// changed. The leaf is that of [Packed.Leaf].
func (p *Packed) Chain() [][]byte {
	if p.leaf == 0 {
		return nil
	}
	return p.chain(p.Leaf())
}

func (p *Packed) chain(leaf []byte) [][]byte {
	rest := p.Rest()
	return append(append(make([][]byte, 0, 1+len(rest)), leaf), rest...)
}

// Issuer returns the certificate behind the leaf, parsed, shared and not to be
// changed, or nil when the leaf is alone.
func (p *Packed) Issuer() *x509.Certificate {
	if p.links == nil {
		return nil
	}
	return p.links.first
}

// Facts returns what the leaf says of itself. Its slices are parts of what
// [Packed.Leaf] returns.
func (p *Packed) Facts() Facts {
	facts, _ := Scan(p.Leaf()) // what cannot be scanned is not packed
	return facts
}

// KeyKind returns the kind of the key.
func (p *Packed) KeyKind() KeyKind { return p.kind }

// SameLeaf reports whether both have the same leaf.
func (p *Packed) SameLeaf(other *Packed) bool {
	if p.leaf == 0 || p.leaf != other.leaf {
		return false
	}
	if p.delta > 0 && other.delta > 0 && p.links == other.links {
		// The template is the same, and so are the differences of the same leaf.
		_, a := p.cut()
		_, b := other.cut()
		return bytes.Equal(a, b)
	}
	return bytes.Equal(p.Leaf(), other.Leaf())
}

// Parse returns the leaf parsed anew, from what [Packed.Leaf] returns.
func (p *Packed) Parse() (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(p.Leaf())
	if err != nil {
		return nil, fmt.Errorf("parsing leaf: %w", err)
	}
	return leaf, nil
}

// Certificate returns what crypto/tls serves, with Leaf set, parsed anew. The leaf's
// DER is there once, and the certificates behind it share memory with p. It fails when crypto/x509
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
	return &tls.Certificate{Certificate: p.chain(leaf.Raw), PrivateKey: key, Leaf: leaf}, nil
}

// key says nothing of what the parsers said, as parseKey does.
func (p *Packed) key() (crypto.Signer, error) {
	secret, _ := p.cut()
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
