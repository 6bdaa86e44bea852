package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/letsencrypt/pebble/v2/core"
)

// ErrUnknownCertificate means that the CA did not issue a certificate, or has
// forgotten it in a Restart.
var ErrUnknownCertificate = errors.New("acmetest: unknown certificate")

// CertStatus is what the CA knows of a certificate.
type CertStatus struct {
	// Certificate is the leaf.
	Certificate *x509.Certificate

	// Revoked reports whether it was revoked, by Revoke or over ACME. If not,
	// the fields below are zero.
	Revoked bool

	// Reason is the reason code (RFC 5280 section 5.3.1), 0 when none was given.
	Reason int

	// RevokedAt is when it was revoked.
	RevokedAt time.Time
}

// Roots returns a new pool with the roots of the issued certificates, the
// alternate ones too. A Restart makes new roots.
func (c *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range c.backend.Load().roots() {
		pool.AddCert(cert.Cert)
	}
	return pool
}

// RootPEM returns the roots of Roots in PEM, one after the other, the first
// chain's first. The slice belongs to the caller.
func (c *CA) RootPEM() []byte {
	var out bytes.Buffer
	for _, cert := range c.backend.Load().roots() {
		out.Write(cert.PEM())
	}
	return out.Bytes()
}

func (b *backend) roots() []*core.Certificate {
	roots := make([]*core.Certificate, b.authority.GetNumberOfRootCerts())
	for i := range roots {
		roots[i] = b.authority.GetRootCert(i)
	}
	return roots
}

// SetRenewalInfo sets the suggested window (RFC 9773 section 4.2) of the first
// certificate in certPEM. It takes any window, one that ends before it starts
// too. An empty explanationURL is left out. An error that satisfies
// errors.Is(err, ErrUnknownCertificate) means what it says.
func (c *CA) SetRenewalInfo(certPEM []byte, start, end time.Time, explanationURL string) error {
	return c.SetRenewalInfoRaw(certPEM, renewalInfo(start, end, explanationURL))
}

// SetRenewalInfoRaw sets the body of the answer to a renewalInfo request for the
// first certificate in certPEM, well-formed or not. An empty body brings back
// the CA's own. Errors are those of SetRenewalInfo.
func (c *CA) SetRenewalInfoRaw(certPEM []byte, body string) error {
	cert, err := firstCertificate(certPEM)
	if err != nil {
		return err
	}
	b := c.backend.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store.SetARIResponse(cert.SerialNumber, body) != nil {
		return fmt.Errorf("setting renewal info of serial %x: %w", cert.SerialNumber, ErrUnknownCertificate)
	}
	return nil
}

// Revoke revokes the first certificate in certPEM, as a CA does of its own
// accord, for a reason of RFC 5280 section 5.3.1. From then on its suggested
// window, unless it was set, is the hour before the revocation, as it is when a
// client revokes it. Revoking it again changes the reason and the time. Errors
// are those of SetRenewalInfo, and one for what is not a reason.
func (c *CA) Revoke(certPEM []byte, reason int) error {
	cert, err := firstCertificate(certPEM)
	if err != nil {
		return err
	}
	if reason < 0 || reason > 10 || reason == 7 {
		return fmt.Errorf("revoking serial %x: %d is not a reason code", cert.SerialNumber, reason)
	}
	b := c.backend.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.store.GetCertificateBySerial(cert.SerialNumber)
	if known == nil {
		return fmt.Errorf("revoking serial %x: %w", cert.SerialNumber, ErrUnknownCertificate)
	}
	code := uint(reason)
	b.store.RevokeCertificate(&core.RevokedCertificate{Certificate: known, RevokedAt: time.Now(), Reason: &code})
	return nil
}

// Status returns what the CA knows of the certificate with a serial number. When
// there is none the error satisfies errors.Is(err, ErrUnknownCertificate).
func (c *CA) Status(serial *big.Int) (CertStatus, error) {
	b := c.backend.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.store.GetRevokedCertificateBySerial(serial); r != nil {
		status := CertStatus{Certificate: r.Certificate.Cert, Revoked: true, RevokedAt: r.RevokedAt}
		if r.Reason != nil {
			status.Reason = int(*r.Reason)
		}
		return status, nil
	}
	if cert := b.store.GetCertificateBySerial(serial); cert != nil {
		return CertStatus{Certificate: cert.Cert}, nil
	}
	return CertStatus{}, fmt.Errorf("looking up serial %x: %w", serial, ErrUnknownCertificate)
}

// firstCertificate parses the first certificate in data.
func firstCertificate(data []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("parsing a certificate: no CERTIFICATE block in the PEM data")
		}
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parsing a certificate: %w", err)
			}
			return cert, nil
		}
		data = rest
	}
}
