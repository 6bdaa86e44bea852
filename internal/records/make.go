package records

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// NewBundle is what a Bundle is made of.
type NewBundle struct {
	Names   []string        // normalised, at least one; the Bundle shares the slice
	KeyType certpem.KeyType // empty: that of Key
	CA      string          // its name, as the issuer gives it; empty when it is not known
	Account string          // ID of the issuer; empty when it is not known
	Profile string          // that was asked for; empty for none
	Key     crypto.Signer   // in memory
	Chain   []byte          // PEM, as the CA sent it
	Data    json.RawMessage // the issuer's own, for a Stored; Make does not look at it
	Stored  time.Time       // zero: now
	Flags   Flag            // Adopted; the others follow from the leaf
}

// Make returns a bundle that is ready to be stored and served. It reduces the
// chain to what leaf → top needs: the root behind others goes, and what cannot be
// parsed, does not link, was over before the leaf began or ends at once behind the
// leaf's issuer is left out with a warning. It fails when there is no leaf for the key that can be parsed, when
// the leaf does not cover all of the names, and when the key is not of the type.
func (r *Records) Make(n NewBundle) (b *Bundle, warnings []string, err error) {
	if len(n.Names) == 0 {
		return nil, nil, errors.New("making a bundle: it has no names")
	}
	b, warnings, err = r.make(n)
	if err != nil {
		return nil, nil, fmt.Errorf("making bundle %q: %w", n.Names[0], err)
	}
	return b, warnings, nil
}

func (r *Records) make(n NewBundle) (*Bundle, []string, error) {
	if n.Key == nil {
		return nil, nil, errors.New("it has no key")
	}
	p, err := readParts(n.Chain)
	if err != nil {
		return nil, nil, err
	}
	if n.Stored.IsZero() {
		n.Stored = time.Now()
	}
	chain, warnings, err := p.reduce(n.Key.Public(), n.Stored.Add(time.Minute))
	if err != nil {
		return nil, nil, err
	}
	b, err := r.bundle(n, chain)
	return b, warnings, err
}

// bundle makes a bundle of a reduced chain.
func (r *Records) bundle(n NewBundle, chain []*x509.Certificate) (*Bundle, error) {
	leaf := chain[0]
	if err := certpem.Verify(chain[:1], n.Key.Public(), n.Names); err != nil {
		return nil, err
	}
	is, _ := certpem.TypeOf(n.Key.Public())
	if n.KeyType != "" && n.KeyType != is {
		return nil, fmt.Errorf("its key is not a %s key", n.KeyType)
	}
	typ, ok := newKeyType(is)
	if !ok {
		return nil, errors.New("its key is of a type that is not supported; use " + fmt.Sprint(keyTypes))
	}
	secret, err := secretOf(n.Key)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	t, err := r.shared.tail(certpem.EncodeChain(chain[1:]))
	if err != nil {
		return nil, err
	}
	b := &Bundle{
		Names: n.Names, NotBefore: leaf.NotBefore.Unix(), NotAfter: leaf.NotAfter.Unix(), End: certpem.End(chain).Unix(), Stored: n.Stored.Unix(),
		tail: t, typ: typ, flags: n.Flags&Adopted | flagsOf(leaf),
		origin: r.shared.origin(origin{CA: n.CA, Account: n.Account, Profile: n.Profile}),
	}
	b.pack(secret, leaf.Raw)
	return b, nil
}

// secretOf returns a key in the form in which a bundle keeps it.
func secretOf(key crypto.Signer) (secret []byte, err error) {
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		secret, err = ec.Bytes()
	} else {
		secret, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		return nil, fmt.Errorf("its key cannot be written: %w", err)
	}
	if len(secret) > math.MaxUint16 {
		return nil, fmt.Errorf("its key has %d bytes", len(secret))
	}
	return secret, nil
}

// flagsOf returns the flags that follow from a leaf.
func flagsOf(leaf *x509.Certificate) (f Flag) {
	if len(certpem.Responders(leaf)) > 0 {
		f |= OCSP
	}
	if certpem.MustStaple(leaf) {
		f |= MustStaple
	}
	return f
}
