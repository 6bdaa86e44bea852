package certpem

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	beginKey = "-----BEGIN PRIVATE KEY-----\n"
	endKey   = "-----END PRIVATE KEY-----\n"
	endCert  = "-----END CERTIFICATE-----\n"

	pemLine = 64 // characters of a full line (RFC 7468 §2)

	maxQuick = 64 << 10 // bytes of DER of a leaf or a key
)

// FromPEM returns a stored key and chain in compact form, and what the leaf says of
// itself. It takes all that [DecodeKey], [ParseChain] and [Verify] take, names
// aside, and more: see below. The texts are not kept.
//
// It is fast for texts as [EncodeKey] and [EncodeChain] write them, with
// certificates behind the leaf that are known to in: nothing is parsed then, and
// no signature or key is computed. That the key is the leaf's is told from the
// public key stored beside it, and that the leaf belongs to the others from the
// name and the key identifier of its issuer. What is damaged inside the leaf or
// the key, such as a leaf that only crypto/x509 refuses, a private half that is
// not that of the public one, or a signature that is not the issuer's, is left
// to [Packed.Certificate] and to clients.
func FromPEM(key, chain []byte, in *Chains) (Packed, Facts, error) {
	if p, facts, ok := quick(key, chain, in); ok {
		return p, facts, nil
	}
	p, err := slow(key, chain, in)
	if err != nil {
		return Packed{}, Facts{}, err
	}
	return p, p.Facts(), nil
}

func slow(key, chain []byte, in *Chains) (Packed, error) {
	signer, err := DecodeKey(key)
	if err != nil {
		return Packed{}, err
	}
	certs, err := ParseChain(chain)
	if err != nil {
		return Packed{}, err
	}
	if err := Verify(certs, signer.Public(), nil); err != nil {
		return Packed{}, err
	}
	p, err := Pack(certs, signer, in)
	if err != nil {
		return Packed{}, fmt.Errorf("reading certificate %q: %w", title(certs[0]), err)
	}
	return p, nil
}

// quick is the fast way of FromPEM. It is false for whatever is not plain; the
// other way then gives the verdict.
func quick(key, chain []byte, in *Chains) (Packed, Facts, bool) {
	text, rest, ok := cutBlock(chain, beginCert+"\n", endCert)
	if !ok || text.size > maxQuick {
		return Packed{}, Facts{}, false
	}
	links := in.find(rest)
	if links == nil && len(rest) > 0 {
		return Packed{}, Facts{}, false
	}
	block, rest, ok := cutBlock(key, beginKey, endKey)
	if !ok || len(rest) > 0 || block.size > maxQuick {
		return Packed{}, Facts{}, false
	}
	form, size := storedForm(block.size)
	buf := in.buffer(text.size + size + text.size)
	defer in.release(buf)
	leaf, room := (*buf)[:text.size], (*buf)[text.size:]
	secret, script := room[:size], room[size:size]
	if !text.decode(leaf) {
		return Packed{}, Facts{}, false
	}
	facts, err := Scan(leaf)
	if err != nil || links != nil && !links.follow(&facts) || !facts.readOwnKey(block, form, secret) {
		return Packed{}, Facts{}, false
	}
	p := Packed{links: links, kind: facts.Kind, form: form}
	p.put(leaf, secret, script)
	return p, facts.clone(), true
}

// pemBody is the base64 lines of a PEM block, each with a line feed.
type pemBody struct {
	lines []byte
	size  int // bytes that they stand for
}

// cutBlock cuts off the block at the very beginning of text. It is false for
// one that is not in the strict form of RFC 7468 §3.
func cutBlock(text []byte, begin, end string) (b pemBody, rest []byte, ok bool) {
	if len(text) < len(begin) || string(text[:len(begin)]) != begin {
		return b, nil, false
	}
	text = text[len(begin):]
	n := bytes.IndexByte(text, '-') // base64 has none
	if n < 4 || len(text) < n+len(end) || string(text[n:n+len(end)]) != end || text[n-1] != '\n' {
		return b, nil, false
	}
	b.lines, rest = text[:n], text[n+len(end):]
	chars := n - (n+pemLine)/(pemLine+1)
	b.size = chars / 4 * 3
	for i := n - 2; i >= n-3 && b.lines[i] == '='; i-- {
		b.size--
	}
	return b, rest, chars%4 == 0
}

// decode fills dst, which has the size of b.
func (b pemBody) decode(dst []byte) bool {
	lines := b.lines
	for len(lines) > 0 {
		n := min(pemLine, len(lines)-1)
		if lines[n] != '\n' || base64.StdEncoding.DecodedLen(n) > len(dst)+2 {
			return false
		}
		got, err := base64.StdEncoding.Decode(dst, lines[:n])
		if err != nil {
			return false
		}
		dst, lines = dst[got:], lines[n+1:]
	}
	return len(dst) == 0
}

// The DER of an elliptic curve key in PKCS #8 around the scalar (RFC 5915 §3,
// RFC 5958 §2), as crypto/x509 and OpenSSL write it. Behind the tail comes the
// public point.
const (
	headP256 = "\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07" + oidECDSA + "\x06\x08" + oidP256 + "\x04\x6d\x30\x6b\x02\x01\x01\x04\x20"
	tailP256 = "\xa1\x44\x03\x42\x00\x04"
	headP384 = "\x30\x81\xb6\x02\x01\x00\x30\x10\x06\x07" + oidECDSA + "\x06\x05" + oidP384 + "\x04\x81\x9e\x30\x81\x9b\x02\x01\x01\x04\x30"
	tailP384 = "\xa1\x64\x03\x62\x00\x04"

	sizeP256 = len(headP256) + 32 + len(tailP256) + 64
	sizeP384 = len(headP384) + 48 + len(tailP384) + 96
)

// storedForm returns the form in which a key of that many bytes in PKCS #8 is
// kept, and how many bytes it takes then.
func storedForm(pkcs8 int) (form keyForm, size int) {
	switch pkcs8 {
	case sizeP256:
		return formP256, 32
	case sizeP384:
		return formP384, 48
	}
	return formPKCS8, pkcs8
}

// readOwnKey puts the key in its form into dst. It is false for a key that is
// not the leaf's, or does not show that it is.
func (f *Facts) readOwnKey(block pemBody, form keyForm, dst []byte) bool {
	head, tail := headP256, tailP256
	switch {
	case form == formPKCS8:
		return f.Kind == KindRSA && block.decode(dst) && sameRSA(f.PublicKey, dst)
	case form == formP384 && f.KeyType == P384:
		head, tail = headP384, tailP384
	case form != formP256 || f.KeyType != P256:
		return false
	}
	var buf [sizeP384]byte
	key := buf[:block.size]
	defer clear(key)
	scalar := len(head) + len(dst)
	public := scalar + len(tail)
	if !block.decode(key) || string(key[:len(head)]) != head || string(key[scalar:public]) != tail {
		return false
	}
	copy(dst, key[len(head):scalar])
	// The key's last element and the certificate's are the same BIT STRING.
	return bytes.HasSuffix(f.PublicKey, key[scalar+2:])
}

// sameRSA reports whether a key in PKCS #8 has the modulus and the exponent of a
// SubjectPublicKeyInfo (RFC 8017 §A.1).
func sameRSA(spki, pkcs8 []byte) bool {
	var alg, oid, octets, private, bits, public, modulus, exponent cryptobyte.String
	s := cryptobyte.String(pkcs8)
	if !s.ReadASN1(&s, der.SEQUENCE) || !s.SkipASN1(der.INTEGER) || !s.ReadASN1(&alg, der.SEQUENCE) ||
		!alg.ReadASN1(&oid, der.OBJECT_IDENTIFIER) || string(oid) != oidRSA || !s.ReadASN1(&octets, der.OCTET_STRING) ||
		!octets.ReadASN1(&private, der.SEQUENCE) || !private.SkipASN1(der.INTEGER) {
		return false
	}
	s = cryptobyte.String(spki)
	if !s.ReadASN1(&s, der.SEQUENCE) || !s.SkipASN1(der.SEQUENCE) || !s.ReadASN1(&bits, der.BIT_STRING) ||
		!bits.Skip(1) || !bits.ReadASN1(&public, der.SEQUENCE) {
		return false
	}
	both := public
	return public.ReadASN1(&modulus, der.INTEGER) && public.ReadASN1(&exponent, der.INTEGER) && public.Empty() &&
		bytes.HasPrefix(private, both)
}
