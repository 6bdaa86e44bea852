package certpem

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"net/url"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers, as the bytes that DER has for them.
const (
	oidSubjectAltName = "\x55\x1d\x11"                         // RFC 5280 §4.2.1.6
	oidAuthorityKeyID = "\x55\x1d\x23"                         // RFC 5280 §4.2.1.1
	oidAuthorityInfo  = "\x2b\x06\x01\x05\x05\x07\x01\x01"     // RFC 5280 §4.2.2.1
	oidTLSFeature     = "\x2b\x06\x01\x05\x05\x07\x01\x18"     // RFC 7633 §6
	oidOCSP           = "\x2b\x06\x01\x05\x05\x07\x30\x01"     // RFC 5280 §4.2.2.1
	oidECDSA          = "\x2a\x86\x48\xce\x3d\x02\x01"         // RFC 5480 §2.1.1
	oidP256           = "\x2a\x86\x48\xce\x3d\x03\x01\x07"     // RFC 5480 §2.1.1.1
	oidP384           = "\x2b\x81\x04\x00\x22"                 // RFC 5480 §2.1.1.1
	oidRSA            = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01" // RFC 3279 §2.3.1
	oidEd25519        = "\x2b\x65\x70"                         // RFC 8410 §3
)

// A KeyKind is an algorithm as far as a choice between certificates needs it.
type KeyKind uint8

// The kinds of keys.
const (
	KindOther KeyKind = iota
	KindRSA
	KindECDSA // ECDSA on another curve than P-256
	KindP256  // ECDSA on P-256
)

// KindOf returns the kind of a public key.
func KindOf(pub crypto.PublicKey) KeyKind {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return KindP256
		}
		return KindECDSA
	case *rsa.PublicKey:
		return KindRSA
	}
	return KindOther
}

// Facts are what a leaf says of itself, as far as its upkeep needs it. Slices
// are parts of the DER they were read from, which is not to be changed.
type Facts struct {
	Serial     []byte    // big endian, without leading zeros, as of [math/big.Int.Bytes]
	RawIssuer  []byte    // the DER of the issuer's name
	NotBefore  time.Time // in UTC
	NotAfter   time.Time // in UTC
	PublicKey  []byte    // the DER of the SubjectPublicKeyInfo
	KeyType    KeyType   // empty when it is none of the constants
	Kind       KeyKind   // of the key
	OCSP       bool      // an OCSP responder that is asked over HTTP is named
	MustStaple bool      // clients may refuse it without a staple (RFC 7633)

	names        []byte // the GeneralNames of the subject alternative name
	authorityKey []byte // the key identifier of the issuer
}

// Life returns how long the certificate is valid in all.
func (f *Facts) Life() time.Duration { return f.NotAfter.Sub(f.NotBefore) }

// Scan reads the facts from the DER of a certificate without parsing all of it.
// It reads the same as x509.ParseCertificate wherever that accepts, and accepts
// more. For what public CAs issue it allocates nothing.
func Scan(cert []byte) (Facts, error) {
	var f Facts
	if !f.scan(cert) {
		return Facts{}, errors.New("scanning certificate: it is not the DER of an X.509 certificate")
	}
	return f, nil
}

// clone returns the same facts in memory of their own.
func (f *Facts) clone() Facts {
	c := *f
	parts := [...]*[]byte{&c.Serial, &c.RawIssuer, &c.PublicKey, &c.names, &c.authorityKey}
	size := 0
	for _, part := range parts {
		size += len(*part)
	}
	buf := make([]byte, 0, size)
	for _, part := range parts {
		if *part != nil {
			n := len(buf)
			buf = append(buf, *part...)
			*part = buf[n:len(buf):len(buf)]
		}
	}
	return c
}

// scan follows RFC 5280 §4.1.
func (f *Facts) scan(data cryptobyte.String) bool {
	var cert, tbs, validity cryptobyte.String
	if !data.ReadASN1(&cert, der.SEQUENCE) || !data.Empty() || !cert.ReadASN1(&tbs, der.SEQUENCE) {
		return false
	}
	version := readVersion(&tbs)
	var ok bool
	if f.Serial, ok = readUnsigned(&tbs); !ok || version == 0 {
		return false
	}
	if !tbs.SkipASN1(der.SEQUENCE) || // the signature's algorithm
		!tbs.ReadASN1Element((*cryptobyte.String)(&f.RawIssuer), der.SEQUENCE) ||
		!tbs.ReadASN1(&validity, der.SEQUENCE) ||
		!readTime(&validity, &f.NotBefore) || !readTime(&validity, &f.NotAfter) ||
		!tbs.SkipASN1(der.SEQUENCE) || // the subject
		!tbs.ReadASN1Element((*cryptobyte.String)(&f.PublicKey), der.SEQUENCE) || !f.readKey() {
		return false
	}
	return version < 3 || f.readExtensions(&tbs)
}

// readVersion returns 1 to 3, or 0 when it is none of them.
func readVersion(tbs *cryptobyte.String) int {
	var v cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&v, &present, der.Tag(0).Constructed().ContextSpecific()) {
		return 0
	}
	switch {
	case !present:
		return 1
	case len(v) == 3 && v[0] == byte(der.INTEGER) && v[1] == 1 && v[2] < 3:
		return int(v[2]) + 1
	}
	return 0
}

// readUnsigned reads an INTEGER that is not negative.
func readUnsigned(s *cryptobyte.String) ([]byte, bool) {
	var n cryptobyte.String
	if !s.ReadASN1(&n, der.INTEGER) || len(n) == 0 || n[0]&0x80 != 0 {
		return nil, false
	}
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	return n, true
}

// readKey reads what kind of key PublicKey is.
func (f *Facts) readKey() bool {
	var alg, oid, curve, sequence cryptobyte.String
	var bits asn1.BitString
	key := cryptobyte.String(f.PublicKey)
	if !key.ReadASN1(&key, der.SEQUENCE) || !key.ReadASN1(&alg, der.SEQUENCE) ||
		!alg.ReadASN1(&oid, der.OBJECT_IDENTIFIER) || !key.ReadASN1BitString(&bits) {
		return false
	}
	switch string(oid) {
	case oidECDSA:
		f.Kind = KindECDSA
		if !alg.ReadASN1(&curve, der.OBJECT_IDENTIFIER) {
			return false
		}
		switch string(curve) {
		case oidP256:
			f.Kind, f.KeyType = KindP256, P256
		case oidP384:
			f.KeyType = P384
		}
	case oidRSA:
		f.Kind = KindRSA
		point := cryptobyte.String(bits.RightAlign())
		if !point.ReadASN1(&sequence, der.SEQUENCE) {
			return false
		}
		modulus, ok := readUnsigned(&sequence)
		if !ok {
			return false
		}
		f.KeyType = rsaType(len(modulus))
	case oidEd25519:
		f.KeyType = Ed25519
	}
	return true
}

func (f *Facts) readExtensions(tbs *cryptobyte.String) bool {
	var list, ext, oid, value cryptobyte.String
	var present bool
	if !tbs.SkipOptionalASN1(der.Tag(1).ContextSpecific()) || !tbs.SkipOptionalASN1(der.Tag(2).ContextSpecific()) ||
		!tbs.ReadOptionalASN1(&list, &present, der.Tag(3).Constructed().ContextSpecific()) {
		return false
	}
	if !present {
		return true
	}
	if !list.ReadASN1(&list, der.SEQUENCE) {
		return false
	}
	for !list.Empty() {
		if !list.ReadASN1(&ext, der.SEQUENCE) || !ext.ReadASN1(&oid, der.OBJECT_IDENTIFIER) ||
			!ext.SkipOptionalASN1(der.BOOLEAN) || !ext.ReadASN1(&value, der.OCTET_STRING) {
			return false
		}
		ok := true
		switch string(oid) {
		case oidSubjectAltName:
			ok = value.ReadASN1((*cryptobyte.String)(&f.names), der.SEQUENCE)
		case oidAuthorityKeyID:
			ok = f.readAuthorityKey(value)
		case oidAuthorityInfo:
			ok = f.readAuthorityInfo(value)
		case oidTLSFeature:
			f.MustStaple = mustStaple(value)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (f *Facts) readAuthorityKey(value cryptobyte.String) bool {
	var id cryptobyte.String
	if !value.ReadASN1(&value, der.SEQUENCE) || !value.ReadOptionalASN1(&id, nil, der.Tag(0).ContextSpecific()) {
		return false
	}
	f.authorityKey = id
	return true
}

func (f *Facts) readAuthorityInfo(value cryptobyte.String) bool {
	const uri = der.Tag(6 | 0x80) // uniformResourceIdentifier of a GeneralName
	var access, method, location cryptobyte.String
	if !value.ReadASN1(&value, der.SEQUENCE) {
		return false
	}
	for !value.Empty() {
		if !value.ReadASN1(&access, der.SEQUENCE) || !access.ReadASN1(&method, der.OBJECT_IDENTIFIER) {
			return false
		}
		if !access.PeekASN1Tag(uri) {
			continue
		}
		if !access.ReadASN1(&location, uri) {
			return false
		}
		if string(method) == oidOCSP && isHTTP(location) {
			f.OCSP = true
		}
	}
	return true
}

// isHTTP reports whether text is an http or https URL with a host. Plain ones,
// which are all that CAs write, are told without parsing.
func isHTTP(text []byte) bool {
	const http, https = "http://", "https://"
	rest := text
	switch {
	case len(text) > len(http) && string(text[:len(http)]) == http:
		rest = text[len(http):]
	case len(text) > len(https) && string(text[:len(https)]) == https:
		rest = text[len(https):]
	}
	plain := len(rest) < len(text) && rest[0] != '/'
	for _, c := range rest {
		plain = plain && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '/')
	}
	if plain {
		return true
	}
	u, err := url.Parse(string(text))
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// mustStaple reports whether a TLS feature extension holds status_request.
func mustStaple(value []byte) bool {
	const statusRequest = 5 // RFC 6066 §8
	var features []int
	rest, err := asn1.Unmarshal(value, &features)
	return err == nil && len(rest) == 0 && slices.Contains(features, statusRequest)
}

func rsaType(size int) KeyType {
	switch size {
	case 256:
		return RSA2048
	case 384:
		return RSA3072
	case 512:
		return RSA4096
	}
	return ""
}

// readTime reads a Time. All CAs write it in UTC and to the second (RFC 5280
// §4.1.2.5); other forms take a slower way.
func readTime(s *cryptobyte.String, t *time.Time) bool {
	look := *s
	var text cryptobyte.String
	var tag der.Tag
	if !look.ReadAnyASN1(&text, &tag) {
		return false
	}
	if parseTime(text, tag, t) {
		*s = look
		return true
	}
	ok := false
	switch tag {
	case der.UTCTime:
		ok = s.ReadASN1UTCTime(t)
	case der.GeneralizedTime:
		ok = s.ReadASN1GeneralizedTime(t)
	}
	*t = t.UTC()
	return ok
}

func parseTime(text []byte, tag der.Tag, t *time.Time) bool {
	year := 0
	switch {
	case tag == der.UTCTime && len(text) == len("YYMMDDhhmmssZ"):
		if year = twoDigits(text); year < 50 {
			year += 100
		}
		year += 1900
		text = text[2:]
	case tag == der.GeneralizedTime && len(text) == len("YYYYMMDDhhmmssZ"):
		year = 100*twoDigits(text) + twoDigits(text[2:])
		text = text[4:]
	default:
		return false
	}
	month, day := twoDigits(text), twoDigits(text[2:])
	hour, minute, second := twoDigits(text[4:]), twoDigits(text[6:]), twoDigits(text[8:])
	*t = time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	return text[10] == 'Z' && year >= 0 && year <= 9999 && month >= 1 && month <= 12 && day >= 1 && day == t.Day() &&
		hour < 24 && minute < 60 && second < 60
}

// twoDigits returns a value far out of range for what is not two digits.
func twoDigits(text []byte) int {
	a, b := text[0]-'0', text[1]-'0'
	if a > 9 || b > 9 {
		return 1e6
	}
	return 10*int(a) + int(b)
}
