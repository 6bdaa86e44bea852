package certpem

import (
	"bytes"
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	maxChains     = 1024     // different ones; a server has a handful
	maxSharedText = 16 << 10 // bytes of PEM text; a longer one is not shared
)

// Chains keeps one copy of the certificates that follow a leaf, which all
// leaves of one issuer have in common. The zero Chains is ready for use. It is
// safe for concurrent use and must not be copied.
type Chains struct {
	mu    sync.Mutex        // guards known
	known map[string]*links // by PEM text as EncodeChain writes it

	buffers sync.Pool // of *[]byte, for the work on one certificate at a time
}

// links are the certificates that follow a leaf, each signed by the next. They
// are not changed.
type links struct {
	first  *x509.Certificate // the issuer of the leaf
	der    [][]byte
	shared bool // by all leaves that have them

	template atomic.Pointer[template] // set once, from the first leaf packed
}

// find returns what is known by its text.
func (c *Chains) find(text []byte) *links {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[string(text)]
}

// intern returns the shared form of certs, none of which is the leaf. It fails
// when they do not link up.
func (c *Chains) intern(certs []*x509.Certificate) (*links, error) {
	if len(certs) == 0 {
		return nil, nil
	}
	text := EncodeChain(certs)
	if l := c.find(text); l != nil {
		return l, nil
	}
	if err := Verify(certs, nil, nil); err != nil {
		return nil, err
	}
	l := &links{first: certs[0], shared: c != nil && len(text) <= maxSharedText}
	for _, cert := range certs {
		l.der = append(l.der, cert.Raw)
	}
	if !l.shared {
		return l, nil
	}
	return c.add(string(text), l), nil
}

// add returns what is known by text, which is l unless another was faster.
// When there are too many it begins anew: what is in use stays in use.
func (c *Chains) add(text string, l *links) *links {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.known[text]; known != nil {
		return known
	}
	if c.known == nil || len(c.known) >= maxChains {
		c.known = map[string]*links{}
	}
	c.known[text] = l
	return l
}

// follow reports whether the leaf names the first of the certificates as its
// issuer, as named does.
func (l *links) follow(leaf *Facts) bool {
	id := l.first.SubjectKeyId
	return bytes.Equal(l.first.RawSubject, leaf.RawIssuer) &&
		(len(id) == 0 || len(leaf.authorityKey) == 0 || bytes.Equal(id, leaf.authorityKey))
}

// delta appends to script what a leaf differs in from the first one that it was
// called for. It is false when the leaf is better kept as it is.
func (l *links) delta(script, leaf []byte) ([]byte, bool) {
	if l == nil || !l.shared || len(leaf) < window || len(leaf) > maxDelta {
		return nil, false
	}
	if l.template.Load() == nil {
		l.template.CompareAndSwap(nil, newTemplate(leaf))
	}
	return l.template.Load().encode(script, leaf)
}

// buffer returns n bytes to work in, which go back with release.
func (c *Chains) buffer(n int) *[]byte {
	if c != nil {
		if b, ok := c.buffers.Get().(*[]byte); ok {
			*b = slices.Grow((*b)[:0], n)[:n]
			return b
		}
	}
	b := make([]byte, n)
	return &b
}

// release clears a buffer, for there may have been a key in it.
func (c *Chains) release(b *[]byte) {
	clear(*b)
	if c != nil {
		c.buffers.Put(b)
	}
}
