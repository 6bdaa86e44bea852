package records

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

const (
	typeCert = "CERTIFICATE"
	typeKey  = "PRIVATE KEY"

	beginCert = "-----BEGIN " + typeCert + "-----"
	beginKey  = "-----BEGIN " + typeKey + "-----"

	maxShared = 1024 // different tails, and origins; a server has a handful
	maxCerts  = 50   // in a chain; a file of roots has more
)

// shared is what bundles have in common: one copy of it is kept. The zero shared
// is ready for use.
type shared struct {
	mu      sync.Mutex // guards both maps
	tails   map[string]*tail
	origins map[origin]*origin
}

// origin says where bundles come from.
type origin struct{ CA, Account, Profile string }

// tail is the certificates behind the leaf. It is not changed.
type tail struct {
	text  string // PEM
	der   [][]byte
	first func() (*x509.Certificate, error) // parsed once
}

// origin returns the one copy of o.
func (s *shared) origin(o origin) *origin {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.origins[o]; known != nil {
		return known
	}
	if s.origins == nil || len(s.origins) >= maxShared {
		s.origins = make(map[origin]*origin) // what is in use stays in use
	}
	s.origins[o] = &o
	return &o
}

// tail returns the certificates in PEM text that has nothing else, and nil when
// it has none. It fails when the text is not as encodeTail writes it.
func (s *shared) tail(text []byte) (*tail, error) {
	if len(text) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.tails[string(text)]; known != nil {
		return known, nil
	}
	t := &tail{text: string(text)}
	for rest := []byte(t.text); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != typeCert {
			return nil, errors.New("there is something else than certificates behind the leaf")
		}
		t.der = append(t.der, block.Bytes)
	}
	t.first = sync.OnceValues(func() (*x509.Certificate, error) { return x509.ParseCertificate(t.der[0]) })
	if s.tails == nil || len(s.tails) >= maxShared {
		s.tails = make(map[string]*tail)
	}
	s.tails[t.text] = t
	return t, nil
}

// parts is what PEM text holds.
type parts struct {
	certs []*x509.Certificate // each once, in the order of the text
	bad   []error             // one for each certificate that cannot be read
	key   *pem.Block          // the first private key
}

// readParts reads what there is, whatever is between and around it.
func readParts(text []byte) (p parts, err error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	// Files put together with cat may lack the line feed between two blocks.
	rest := bytes.ReplaceAll(text, []byte("----------BEGIN "), []byte("-----\n-----BEGIN "))
	want, found := bytes.Count(rest, []byte(beginCert)), 0
	if want > maxCerts {
		return p, fmt.Errorf("there are %d certificates in it, more than %d; one chain is wanted", want, maxCerts)
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == typeCert:
			found++
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				p.bad = append(p.bad, fmt.Errorf("certificate %d cannot be parsed: %w", found, err))
			} else if !slices.ContainsFunc(p.certs, cert.Equal) {
				p.certs = append(p.certs, cert)
			}
		case p.key == nil && bytes.HasSuffix([]byte(block.Type), []byte(typeKey)):
			p.key = block
		}
	}
	if found < want { // pem.Decode passes over them in silence
		p.bad = append(p.bad, fmt.Errorf("%d of %d certificates are not whole PEM blocks", want-found, want))
	}
	return p, nil
}

// reduce returns the leaf for a key and what leaf → top needs behind it, without
// the root. What else there is, other than roots and other certificates of the
// CAs of the chain, is in warnings. What is behind the leaf's issuer and over at a
// time is left out too; the zero time is none.
func (p *parts) reduce(key crypto.PublicKey, at time.Time) (chain []*x509.Certificate, warnings []string, err error) {
	i := slices.IndexFunc(p.certs, func(c *x509.Certificate) bool { return certpem.Match(c.PublicKey, key) })
	if i < 0 {
		if len(p.bad) > 0 {
			return nil, nil, fmt.Errorf("there is no certificate for the key: %w", errors.Join(p.bad...))
		}
		return nil, nil, fmt.Errorf("there is no certificate for the key among %d", len(p.certs))
	}
	for _, err := range p.bad {
		warnings = append(warnings, err.Error())
	}
	chain = p.certs[i : i+1 : i+1]
	for {
		last := chain[len(chain)-1]
		next := p.issuerOf(last, chain)
		if next == nil || isRoot(next) {
			break
		}
		if len(chain) > 1 && (certpem.IsOver(next, chain[0]) || !next.NotAfter.After(at)) {
			warnings = append(warnings, fmt.Sprintf("certificate %q is over", title(next)))
			break
		}
		chain = append(chain, next)
	}
	for _, c := range p.certs {
		if !isRoot(c) && !slices.ContainsFunc(chain, func(in *x509.Certificate) bool { return sameCA(in, c) }) && !certpem.IsOver(c, chain[0]) {
			warnings = append(warnings, fmt.Sprintf("certificate %q does not belong to the chain", title(c)))
		}
	}
	return chain, warnings, nil
}

// issuerOf returns the certificate that signed child: one that is not over
// before one that is, and one of another CA before a root.
func (p *parts) issuerOf(child *x509.Certificate, chain []*x509.Certificate) *x509.Certificate {
	if isRoot(child) {
		return nil
	}
	var best *x509.Certificate
	bestScore := -1
	for _, c := range p.certs {
		if slices.Contains(chain, c) || !bytes.Equal(c.RawSubject, child.RawIssuer) || !signed(c, child) {
			continue
		}
		score := 0
		if !certpem.IsOver(c, chain[0]) {
			score += 2
		}
		if !isRoot(c) {
			score++
		}
		if score > bestScore {
			best, bestScore = c, score
		}
	}
	return best
}

// signed reports whether parent signed child, also when the algorithm is not
// known here and nothing speaks against it.
func signed(parent, child *x509.Certificate) bool {
	err := child.CheckSignatureFrom(parent)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.Is(err, x509.ErrUnsupportedAlgorithm) || errors.As(err, &insecure)
}

// isRoot reports whether a certificate names itself as its issuer (RFC 5280
// §3.2, §4.2.1.1).
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		(len(c.AuthorityKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

func sameCA(a, b *x509.Certificate) bool {
	return a == b || a.IsCA && b.IsCA && bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// title names a certificate in an error.
func title(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	if names := certpem.Names(c); len(names) > 0 {
		return names[0]
	}
	return c.Subject.String()
}
