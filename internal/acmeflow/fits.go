package acmeflow

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/certwright/certwright/internal/certpem"
)

// fits reports whether the leaf of a chain is for the request's key.
func (r *run) fits(chainPEM []byte) error {
	csr, err := x509.ParseCertificateRequest(r.req.CSR)
	if err != nil {
		return fmt.Errorf("parsing the CSR: %w", err)
	}
	if certs := tidyChain(chainPEM); len(certs) > 0 && certpem.Match(certs[0].PublicKey, csr.PublicKey) {
		return nil // whether the rest of it links up is not looked at here
	}
	chain, err := certpem.ParseChain(chainPEM)
	if err != nil {
		return err
	}
	if !certpem.Match(chain[0].PublicKey, csr.PublicKey) {
		return errors.New("the certificate is for another key than the one in the CSR")
	}
	return nil
}

// tidyChain returns the certificates in PEM text whose blocks are all whole
// certificates, in the order of the text, and none for any other text.
func tidyChain(text []byte) (certs []*x509.Certificate) {
	blocks := bytes.Count(text, []byte("-----BEGIN "))
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		certs, text = append(certs, cert), bytes.TrimSpace(rest)
	}
	if len(certs) != blocks { // the decoder passed over a damaged one
		return nil
	}
	return certs
}
