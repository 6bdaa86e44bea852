package certpem

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxChain = 1 << 20 // bytes of PEM text
	maxCerts = 50      // certificates in it; a bundle of roots has more
)

const beginCert = "-----BEGIN CERTIFICATE-----"

// ParseChain reads a certificate chain from PEM text and returns the leaf first
// and each certificate followed by its issuer's. It tolerates what CAs and
// people make of such files: CRLF, blank lines, text and other blocks in
// between, missing line feeds between blocks, duplicates and any order. A
// self-signed root behind other certificates is left out, and so is a second
// certificate of the same CA key (a cross-sign). Certificates that do not link up stay,
// at the end, for [Verify] to name. A leaf alone is returned as it is: whether
// that will do is the caller's to decide.
//
// It fails when there is no certificate, when one is damaged or cut short, and
// when there are so many that it must be something else.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	certs, err := parseCerts(data)
	if err != nil {
		return nil, fmt.Errorf("parsing certificate chain: %w", err)
	}
	return order(certs), nil
}

// End returns the earliest end of a chain's certificates, the leaf first. One behind
// the leaf that was over when the leaf began does not count: it is an extra, or there
// is nothing better to be had.
func End(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(end) && !IsOver(c, chain[0]) {
			end = c.NotAfter
		}
	}
	return end
}

// IsOver reports whether c was over when leaf began.
func IsOver(c, leaf *x509.Certificate) bool { return !c.NotAfter.After(leaf.NotBefore) }

// EncodeChain returns certificates as PEM text in the given order. For none it
// is empty.
func EncodeChain(chain []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range chain {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return out.Bytes()
}

// parseCerts returns the certificates in data without duplicates, as they come.
func parseCerts(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxChain {
		return nil, fmt.Errorf("the text is longer than %d bytes", maxChain)
	}
	// Files put together with cat may lack the line feed between two blocks.
	rest := bytes.ReplaceAll(trimBOM(data), []byte("----------BEGIN "), []byte("-----\n-----BEGIN "))
	// The decoder passes over damaged blocks in silence, which would leave a
	// chain with a hole.
	want := bytes.Count(rest, []byte(beginCert))
	if want > maxCerts {
		return nil, fmt.Errorf("there are %d certificates, more than %d; give one chain", want, maxCerts)
	}
	var certs []*x509.Certificate
	found := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		found++
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading certificate %d: %w", found, err)
		}
		if !slices.ContainsFunc(certs, cert.Equal) {
			certs = append(certs, cert)
		}
	}
	if found < want {
		return nil, fmt.Errorf("%d of %d certificates are damaged or cut short", want-found, want)
	}
	if len(certs) == 0 {
		return nil, noCerts(data)
	}
	return certs, nil
}

// noCerts says what there is in place of certificates.
func noCerts(data []byte) error {
	text := strings.TrimSpace(string(trimBOM(data)))
	switch {
	case text == "":
		return errors.New("it is empty")
	case strings.Contains(text, "PRIVATE KEY"):
		return errors.New("it holds a private key and no certificate")
	}
	const most = 40
	end := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
	if end < 0 || end > most {
		end = min(most, len(text))
	}
	head := text[:end]
	// Bare base64 or DER may be a private key.
	if secret := strings.Trim(head, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_") == ""; secret {
		return fmt.Errorf("there is no PEM block in its %d bytes", len(data))
	}
	return fmt.Errorf("there is no PEM certificate; it begins with %q", head)
}

// order puts the leaf first and links the rest to it.
func order(certs []*x509.Certificate) []*x509.Certificate {
	leaf := leafIndex(certs)
	chain := []*x509.Certificate{certs[leaf]}
	rest := slices.Delete(slices.Clone(certs), leaf, leaf+1)
	for {
		i := issuerIndex(rest, chain[len(chain)-1])
		if i < 0 {
			break
		}
		chain = append(chain, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	for _, cert := range rest {
		if !selfIssued(cert) && !slices.ContainsFunc(chain, func(in *x509.Certificate) bool { return sameCA(in, cert) }) {
			chain = append(chain, cert)
		}
	}
	if last := len(chain) - 1; last > 0 && selfIssued(chain[last]) {
		chain = chain[:last]
	}
	return chain
}

// leafIndex finds the certificate that issues none of the others, one that is
// not a CA before one that is, and the first of those.
func leafIndex(certs []*x509.Certificate) int {
	best, bestScore := 0, -1
	for i, cert := range certs {
		score := 0
		if !cert.IsCA {
			score += 2
		}
		if !slices.ContainsFunc(certs, func(other *x509.Certificate) bool {
			return other != cert && named(cert, other)
		}) {
			score++
		}
		if score > bestScore {
			best, bestScore = i, score
		}
	}
	return best
}

// issuerIndex finds the issuer of child: one whose key made the signature if
// there is one, else the first of that name, which [Verify] will refuse. A
// cross-signed CA goes before the root of the same key, for the chain to go on.
func issuerIndex(certs []*x509.Certificate, child *x509.Certificate) int {
	if selfIssued(child) {
		return -1
	}
	best, bestScore := -1, -1
	for i, cert := range certs {
		if !named(cert, child) {
			continue
		}
		score := 0
		if child.CheckSignatureFrom(cert) == nil {
			score += 2
		}
		if !selfIssued(cert) {
			score++
		}
		if score > bestScore {
			best, bestScore = i, score
		}
	}
	return best
}

// named reports whether child names issuer as its issuer (RFC 5280 §4.1.2.4
// and §4.2.1.1).
func named(issuer, child *x509.Certificate) bool {
	if !bytes.Equal(issuer.RawSubject, child.RawIssuer) {
		return false
	}
	a, b := child.AuthorityKeyId, issuer.SubjectKeyId
	return len(a) == 0 || len(b) == 0 || bytes.Equal(a, b)
}

func selfIssued(cert *x509.Certificate) bool {
	return named(cert, cert)
}

func sameCA(a, b *x509.Certificate) bool {
	return a.IsCA && b.IsCA && bytes.Equal(a.RawSubject, b.RawSubject) &&
		bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}
