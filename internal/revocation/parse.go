package revocation

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Parse verifies the DER encoded OCSPResponse raw as RFC 6960 §3.2 asks and
// returns what it says of leaf, which issuer issued. It demands at now that
//
//   - the response speaks of leaf: the serial and both issuer hashes match,
//   - it is signed, by issuer or by a responder that issuer certified for
//     id-kp-OCSPSigning and whose certificate is valid, and with no broken hash,
//   - it has begun, clocks being five minutes apart at most, and has not ended.
//     A response without nextUpdate ends a day after thisUpdate; one that
//     outlives leaf is accepted.
//
// That a certificate is Revoked or Unknown is a result, not an error. A response
// that carries no verdict, such as tryLater, is a *ResponderError. The Staple
// keeps raw. Parse is safe for concurrent use.
func Parse(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (*Staple, error) {
	if err := checkIssued(leaf, issuer); err != nil {
		return nil, fmt.Errorf("parsing OCSP response: %w", err)
	}
	s, err := parse(raw, leaf, issuer, now)
	if err != nil {
		return nil, fmt.Errorf("parsing OCSP response: %w", err)
	}
	return s, nil
}

func parse(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (*Staple, error) {
	// The parser gets no issuer: it would refuse the issuer's own certificate
	// in a response, which CAs do send, and it does not look at the EKU.
	r, err := ocsp.ParseResponseForCert(raw, leaf, nil)
	var re ocsp.ResponseError
	if errors.As(err, &re) {
		return nil, &ResponderError{Status: re.Status}
	}
	if err != nil {
		return nil, err
	}
	if err := checkCertID(raw, leaf, issuer); err != nil {
		return nil, err
	}
	signer, err := verifySigner(r, issuer, now)
	if err != nil {
		return nil, err
	}
	if err := checkResponderID(r, signer); err != nil {
		return nil, err
	}
	s := &Staple{
		Raw: raw, ThisUpdate: r.ThisUpdate, NextUpdate: r.NextUpdate, leafNotAfter: leaf.NotAfter,
	}
	if err := s.setStatus(r); err != nil {
		return nil, err
	}
	if err := s.checkTime(now); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Staple) setStatus(r *ocsp.Response) error {
	switch r.Status {
	case ocsp.Good:
		s.Status = Good
	case ocsp.Unknown:
		s.Status = Unknown
	case ocsp.Revoked:
		// The parser says Revoked of a response that holds no verdict too; a
		// real one has a time.
		if r.RevokedAt.IsZero() {
			return errors.New("no certificate status")
		}
		// RFC 6960 §2.2: so a responder may answer for a serial that was never
		// issued as far as it knows, which it may not know yet.
		if r.RevocationReason == ocsp.CertificateHold && r.RevokedAt.Unix() == 0 {
			s.Status = Unknown
			return nil
		}
		s.Status, s.RevokedAt, s.Reason = Revoked, r.RevokedAt, r.RevocationReason
	default:
		return fmt.Errorf("certificate status %d", r.Status)
	}
	return nil
}

func (s *Staple) checkTime(now time.Time) error {
	if s.ThisUpdate.After(now.Add(clockSkew)) {
		return fmt.Errorf("response begins in the future, at %s", s.ThisUpdate.Format(time.RFC3339))
	}
	if !s.NextUpdate.IsZero() && s.NextUpdate.Before(s.ThisUpdate) {
		return errors.New("response ends before it begins")
	}
	if end := s.end(time.Time{}); !now.Before(end) {
		return fmt.Errorf("response ended at %s", end.Format(time.RFC3339))
	}
	return nil
}

// checkIssued returns an error unless issuer issued leaf: a response is worth
// nothing when another CA with the same serial signed it.
func checkIssued(leaf, issuer *x509.Certificate) error {
	if leaf == nil {
		return errors.New("no leaf")
	}
	if issuer == nil {
		return errors.New("no issuer certificate")
	}
	if !bytes.Equal(leaf.RawIssuer, issuer.RawSubject) {
		return errors.New("issuer certificate is not the leaf's")
	}
	if err := leaf.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("issuer certificate is not the leaf's: %w", err)
	}
	return nil
}

// verifySigner returns the certificate whose key signed r, if it may speak for
// issuer (RFC 6960 §4.2.2.2).
func verifySigner(r *ocsp.Response, issuer *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	switch r.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return nil, fmt.Errorf("signed with the broken %v", r.SignatureAlgorithm)
	}
	c := r.Certificate
	if c == nil {
		if err := r.CheckSignatureFrom(issuer); err != nil {
			return nil, fmt.Errorf("checking signature: %w", err)
		}
		return issuer, nil
	}
	// The parser has verified the signature of r with the key of c.
	if bytes.Equal(c.RawSubject, issuer.RawSubject) &&
		bytes.Equal(c.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) {
		return issuer, nil
	}
	if err := checkDelegate(c, issuer, now); err != nil {
		return nil, fmt.Errorf("responder certificate: %w", err)
	}
	return c, nil
}

// checkDelegate returns an error unless issuer itself certified c as a responder.
func checkDelegate(c, issuer *x509.Certificate, now time.Time) error {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return errors.New("not issued by the leaf's issuer")
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	// anyExtendedKeyUsage is not enough: the designation must be explicit.
	if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return errors.New("no id-kp-OCSPSigning")
	}
	// RFC 5280 §4.2.1.12 names the key usages that go with OCSPSigning.
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return errors.New("key usage does not allow signing")
	}
	if len(c.UnhandledCriticalExtensions) > 0 {
		return x509.UnhandledCriticalExtension{}
	}
	if now.Add(clockSkew).Before(c.NotBefore) || now.After(c.NotAfter) {
		return fmt.Errorf("valid only from %s to %s",
			c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// checkResponderID returns an error unless r names signer as who signed it
// (RFC 6960 §4.2.2.3): other implementations look the key up by that name.
func checkResponderID(r *ocsp.Response, signer *x509.Certificate) error {
	if len(r.RawResponderName) > 0 {
		if !bytes.Equal(r.RawResponderName, signer.RawSubject) {
			return errors.New("responder name is not the signer's")
		}
		return nil
	}
	key, err := publicKeyBits(signer)
	if err != nil {
		return err
	}
	// RFC 6960 §4.2.1 fixes SHA-1 for this name of a key.
	if !bytes.Equal(r.ResponderKeyHash, digest(crypto.SHA1, key)) {
		return errors.New("responder key hash is not the signer's")
	}
	return nil
}

// publicKeyBits returns the subjectPublicKey of c without tag, length and count
// of unused bits, over which OCSP takes its key hashes.
func publicKeyBits(c *x509.Certificate) ([]byte, error) {
	var spki struct {
		Algorithm asn1.RawValue
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &spki); err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	return spki.PublicKey.RightAlign(), nil
}
