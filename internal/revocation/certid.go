package revocation

import (
	"bytes"
	"crypto"
	"crypto/fips140"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	// The hashes that a certID may use.
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// The ASN.1 of RFC 6960 §4.2.1, as far as the parser of x/crypto does not show
// it: encoding/asn1 passes over what follows the last field of a sequence.
type (
	ocspResponse struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type  asn1.ObjectIdentifier
			Basic []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	basicOCSPResponse struct {
		Data responseData
	}
	responseData struct {
		Version     int `asn1:"optional,explicit,tag:0,default:0"`
		ResponderID asn1.RawValue
		ProducedAt  time.Time `asn1:"generalized"`
		Responses   []singleResponse
		Extensions  []pkix.Extension `asn1:"optional,explicit,tag:1"`
	}
	singleResponse struct {
		CertID certID
	}
	certID struct {
		Hash       pkix.AlgorithmIdentifier
		IssuerName []byte
		IssuerKey  []byte
		Serial     *big.Int
	}
)

// checkCertID returns an error unless the single response that
// ocsp.ParseResponseForCert picks from raw, the first with the serial of leaf,
// names issuer as well. It also refuses critical extensions of the whole
// response, of which it knows none.
func checkCertID(raw []byte, leaf, issuer *x509.Certificate) error {
	var outer ocspResponse
	if _, err := asn1.Unmarshal(raw, &outer); err != nil {
		return fmt.Errorf("reading response: %w", err)
	}
	var basic basicOCSPResponse
	if _, err := asn1.Unmarshal(outer.Bytes.Basic, &basic); err != nil {
		return fmt.Errorf("reading basic response: %w", err)
	}
	for _, ext := range basic.Data.Extensions {
		if ext.Critical {
			return fmt.Errorf("critical extension %v", ext.Id)
		}
	}
	for _, r := range basic.Data.Responses {
		if r.CertID.Serial.Cmp(leaf.SerialNumber) == 0 {
			return r.CertID.checkIssuer(issuer)
		}
	}
	return errors.New("response is for another serial")
}

func (id *certID) checkIssuer(issuer *x509.Certificate) error {
	h := hashByOID(id.Hash.Algorithm)
	if h == 0 {
		return fmt.Errorf("hash algorithm %v of the certificate ID is not known", id.Hash.Algorithm)
	}
	key, err := publicKeyBits(issuer)
	if err != nil {
		return err
	}
	if !bytes.Equal(digest(h, issuer.RawSubject), id.IssuerName) || !bytes.Equal(digest(h, key), id.IssuerKey) {
		return errors.New("response is for another issuer")
	}
	return nil
}

func hashByOID(oid asn1.ObjectIdentifier) crypto.Hash {
	switch oid.String() {
	case "1.3.14.3.2.26":
		return crypto.SHA1
	case "2.16.840.1.101.3.4.2.1":
		return crypto.SHA256
	case "2.16.840.1.101.3.4.2.2":
		return crypto.SHA384
	case "2.16.840.1.101.3.4.2.3":
		return crypto.SHA512
	}
	return 0
}

// digest hashes what names a key or an issuer. That proves nothing, so that SHA-1
// will do where only what FIPS 140-3 approves of is allowed.
func digest(h crypto.Hash, data []byte) (sum []byte) {
	fips140.WithoutEnforcement(func() {
		d := h.New()
		d.Write(data)
		sum = d.Sum(nil)
	})
	return sum
}
