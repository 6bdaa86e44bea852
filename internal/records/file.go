package records

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/internal/certpem"
)

// header is the line of JSON before the PEM text of a bundle's file. Times are
// Unix seconds.
type header struct {
	Names     []string        `json:"names"`
	Key       certpem.KeyType `json:"key"`
	CA        string          `json:"ca,omitempty"`
	Account   string          `json:"account,omitempty"`
	Profile   string          `json:"profile,omitempty"`
	ID        string          `json:"id,omitempty"` // RFC 9773 §4.1, of the leaf
	NotBefore int64           `json:"not_before"`
	NotAfter  int64           `json:"not_after"`
	End       int64           `json:"chain_end"`
	Stored    int64           `json:"stored"`
	Flags     []string        `json:"flags,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

// flagWords are the flags as a header has them.
var flagWords = [...]struct {
	flag Flag
	word string
}{{OCSP, "ocsp"}, {MustStaple, "must_staple"}, {Adopted, "adopted"}}

func (f Flag) words() (words []string) {
	for _, w := range flagWords {
		if f&w.flag != 0 {
			words = append(words, w.word)
		}
	}
	return words
}

func (h *header) flags() (f Flag) {
	for _, w := range flagWords {
		if slices.Contains(h.Flags, w.word) {
			f |= w.flag
		}
	}
	return f
}

// encodeBundle returns the file of a bundle.
func encodeBundle(s Stored) ([]byte, error) {
	b := s.Bundle
	leaf, err := b.Leaf()
	if err != nil {
		return nil, err
	}
	h := header{
		Names: b.Names, Key: b.KeyType(), CA: b.CA(), Account: b.Account(), Profile: b.Profile(),
		NotBefore: b.NotBefore, NotAfter: b.NotAfter, End: b.End, Stored: b.Stored, Flags: b.flags.words(), Data: s.Data,
	}
	if id, err := certpem.CertID(leaf); err == nil {
		h.ID = id
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	key, err := b.signer()
	if err != nil {
		return nil, err
	}
	keyText, err := certpem.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	body := append(line, '\n')
	body = append(body, pem.EncodeToMemory(&pem.Block{Type: typeCert, Bytes: leaf.Raw})...)
	if b.tail != nil {
		body = append(body, b.tail.text...)
	}
	return frame(kindBundle, append(body, keyText...)), nil
}

var errHeader = errors.New("its header does not fit its content")

// decodeBundle reads the file of the bundle of an ID. A file that is as it was
// written is trusted. Of any other the PEM text is the truth: a bundle with
// Mended set comes without an error, and one beside an error may be damaged in a
// way that cannot be told.
func (r *Records) decodeBundle(id string, value []byte) (Stored, error) {
	body, frameErr := unframe(kindBundle, value)
	if frameErr == nil {
		if s, ok := r.decodeWhole(id, body); ok {
			return s, nil
		}
		frameErr = errHeader
	}
	s, warnings, err := r.decodePEM(id, body)
	if err == nil && len(warnings) > 0 && (s.tail == nil || bytes.HasPrefix(value, []byte(product))) {
		// What was written here has nothing that does not belong to it. In a file
		// from elsewhere it is let be, unless it may be all that is left of an
		// intermediate.
		err = errors.New(warnings[0])
	}
	switch {
	case errors.Is(frameErr, ErrNewer):
		return s, frameErr
	case err != nil:
		return Stored{}, fmt.Errorf("%w; and as PEM text: %w", frameErr, err)
	case errors.Is(frameErr, errSum):
		// Who edits a file changes its length, as a rule. What a disk or a
		// cable has changed may be in the signature of an intermediate, which
		// cannot be verified without the root.
		return s, frameErr
	}
	s.Mended = frameErr
	if len(warnings) > 0 {
		s.Mended = fmt.Errorf("%w; left out: %s", frameErr, strings.Join(warnings, "; "))
	}
	return s, nil
}

// decodeWhole reads a body whose checksum held. It reports false for one that is
// not as encodeBundle writes it.
func (r *Records) decodeWhole(id string, body []byte) (s Stored, ok bool) {
	line, rest, _ := bytes.Cut(body, []byte("\n"))
	var h header
	if json.Unmarshal(line, &h) != nil || len(h.Names) == 0 || ID(h.Names, h.Key) != id {
		return s, false
	}
	typ, ok := newKeyType(h.Key)
	leaf, rest := pem.Decode(rest)
	at := bytes.Index(rest, []byte(beginKey))
	if !ok || leaf == nil || leaf.Type != typeCert || at < 0 {
		return s, false
	}
	key, _ := pem.Decode(rest[at:])
	if key == nil {
		return s, false
	}
	defer clear(key.Bytes)
	secret, ok := typ.secret(key.Bytes)
	if !ok {
		return s, false
	}
	t, err := r.shared.tail(rest[:at])
	if err != nil {
		return s, false
	}
	b := &Bundle{
		Names: slices.Clone(h.Names), NotBefore: h.NotBefore, NotAfter: h.NotAfter, End: h.End, Stored: h.Stored, tail: t, typ: typ, flags: h.flags(),
		origin: r.shared.origin(origin{CA: h.CA, Account: h.Account, Profile: h.Profile}),
	}
	b.pack(secret, leaf.Bytes)
	return Stored{Bundle: b, Data: h.Data}, true
}

// secret returns a key of a type in the form in which a bundle keeps it, as a
// part of its PKCS #8 form (RFC 5958 §2).
func (t keyType) secret(pkcs8 []byte) ([]byte, bool) {
	curve, size := t.scalar()
	if curve == nil {
		return pkcs8, len(pkcs8) <= 1<<14
	}
	var outer, octets, key, scalar cryptobyte.String
	in := cryptobyte.String(pkcs8)
	// RFC 5915 §3: the scalar is the second element.
	if !in.ReadASN1(&outer, asn1.SEQUENCE) || !outer.SkipASN1(asn1.INTEGER) || !outer.SkipASN1(asn1.SEQUENCE) ||
		!outer.ReadASN1(&octets, asn1.OCTET_STRING) || !octets.ReadASN1(&key, asn1.SEQUENCE) ||
		!key.SkipASN1(asn1.INTEGER) || !key.ReadASN1(&scalar, asn1.OCTET_STRING) {
		return nil, false
	}
	return scalar, len(scalar) == size
}

// decodePEM reads key and chain from PEM text, and what they cannot tell from a
// header before it, if there is one. The warnings are those of Make.
func (r *Records) decodePEM(id string, text []byte) (s Stored, warnings []string, err error) {
	name, typ, ok := splitID(id)
	if !ok {
		return Stored{}, nil, fmt.Errorf("%q is not the ID of a bundle", id)
	}
	p, err := readParts(text)
	if err != nil {
		return Stored{}, nil, err
	}
	if p.key == nil {
		return Stored{}, nil, errors.New("there is no private key in it, or not all of one")
	}
	key, err := certpem.DecodeKey(pem.EncodeToMemory(p.key))
	if err != nil {
		return Stored{}, nil, err
	}
	chain, warnings, err := p.reduce(key.Public(), time.Time{})
	if err != nil {
		return Stored{}, nil, err
	}
	h := findHeader(text)
	n := NewBundle{
		Names: []string{name}, KeyType: typ, CA: h.CA, Account: h.Account, Profile: h.Profile,
		Key: key, Stored: time.Unix(h.Stored, 0), Flags: h.flags(),
	}
	if name == "" {
		if n.Names, ok = namesOf(id, typ, h.Names, chain[0]); !ok {
			return Stored{}, nil, errors.New("the leaf is for another set of names")
		}
	}
	if n.Stored.Before(chain[0].NotBefore) || n.Stored.After(chain[0].NotAfter) {
		n.Stored = chain[0].NotBefore
	}
	b, err := r.bundle(n, chain)
	if err != nil {
		return Stored{}, nil, err
	}
	return Stored{Bundle: b, Data: h.Data}, warnings, nil
}

// namesOf returns the names whose set the digest in an ID is of.
func namesOf(id string, typ certpem.KeyType, names []string, leaf *x509.Certificate) ([]string, bool) {
	if ID(names, typ) == id {
		return names, true
	}
	names = certpem.Names(leaf)
	return names, ID(names, typ) == id
}

// findHeader returns the header in a file, and a zero one when there is none.
func findHeader(text []byte) (h header) {
	before, _, _ := bytes.Cut(text, []byte("-----BEGIN "))
	for line := range bytes.Lines(before) {
		if line[0] == '{' && json.Unmarshal(line, &h) == nil {
			return h
		}
		h = header{}
	}
	return h
}
