package certwright

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/record"
)

// certRecord is a certificate as it is stored: key, chain and metadata are one
// value, replaced in one step.
type certRecord struct {
	ID      string          `json:"id"`
	Names   []string        `json:"names"`
	Issuer  string          `json:"issuer"`
	Profile string          `json:"profile,omitempty"`
	Stored  time.Time       `json:"stored"`
	Key     string          `json:"key"`   // PEM, PKCS #8
	Chain   string          `json:"chain"` // PEM, leaf first
	Data    json.RawMessage `json:"issuer_data,omitempty"`
}

// bundle is a certificate with its key, ready to be served. It is not changed
// after it was made.
type bundle struct {
	issuer string
	stored time.Time
	data   json.RawMessage
	leaf   *x509.Certificate
	cert   *tls.Certificate
}

// newBundle checks that chain, key and names fit each other.
func newBundle(r certRecord, chain []*x509.Certificate, key crypto.Signer) (*bundle, error) {
	if err := certpem.Verify(chain, key.Public(), r.Names); err != nil {
		return nil, err
	}
	return &bundle{
		issuer: r.Issuer, stored: r.Stored, data: r.Data,
		leaf: chain[0], cert: certpem.TLSCertificate(chain, key),
	}, nil
}

// decodeBundle reads the stored certificate of that ID.
func decodeBundle(id string, value []byte) (*bundle, error) {
	var r certRecord
	if err := record.Decode(kindCertificate, value, &r); err != nil {
		return nil, err
	}
	if r.ID != id {
		return nil, fmt.Errorf("it is the certificate of %q", r.ID)
	}
	key, err := certpem.DecodeKey([]byte(r.Key))
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	chain, err := certpem.ParseChain([]byte(r.Chain))
	if err != nil {
		return nil, fmt.Errorf("reading the chain: %w", err)
	}
	return newBundle(r, chain, key)
}

// usable reports whether a client would accept the certificate at now.
func (b *bundle) usable(now time.Time) bool {
	return b != nil && !now.Before(b.leaf.NotBefore) && now.Before(b.leaf.NotAfter)
}

// better reports whether b is to be preferred to other: one that has not
// expired, and then the newer one.
func (b *bundle) better(other *bundle, now time.Time) bool {
	if other == nil || b == nil {
		return b != nil
	}
	if alive, otherAlive := now.Before(b.leaf.NotAfter), now.Before(other.leaf.NotAfter); alive != otherAlive {
		return alive
	}
	if !b.leaf.NotBefore.Equal(other.leaf.NotBefore) {
		return b.leaf.NotBefore.After(other.leaf.NotBefore)
	}
	return b.stored.After(other.stored)
}

// same reports whether both are the same certificate.
func (b *bundle) same(other *bundle) bool {
	return b != nil && other != nil && b.leaf.Equal(other.leaf)
}

// loadBundle reads the best certificate for c from storage: those of all its
// issuers are looked at, so that an expired one of the first does not hide a
// fresh one of the second. It returns nil when there is none. A damaged record
// counts as none and is reported; one written by a newer version is an error,
// because it must not be overwritten.
func (m *Manager) loadBundle(ctx context.Context, c *managed) (*bundle, error) {
	var best *bundle
	now := time.Now()
	for _, iss := range c.settings().issuers {
		key := storageKey(keyCerts, iss.ID(), c.id)
		value, err := m.conf.Storage.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("loading %q: %w", key, err)
		}
		b, err := decodeBundle(c.id, value)
		if errors.Is(err, record.ErrNewer) {
			return nil, fmt.Errorf("reading %q: %w", key, err)
		}
		if err != nil {
			err = fmt.Errorf("reading %q: %w", key, err)
			m.degraded(c, "a stored certificate is damaged and will be replaced", err)
			continue
		}
		if b.better(best, now) {
			best = b
		}
	}
	return best, nil
}

// storeBundle makes an issued certificate durable.
func (m *Manager) storeBundle(ctx context.Context, c *managed, r certRecord) error {
	return storeRecord(ctx, m.conf.Storage, recordPlace{storageKey(keyCerts, r.Issuer, c.id), kindCertificate}, r)
}
