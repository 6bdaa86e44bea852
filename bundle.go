package certwright

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certcache"
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

// bundle is a certificate with its key, packed: what the leaf says is read from
// its DER when it is asked for. It is not changed after it was made. There are
// as many as certificates, so it is kept small.
type bundle struct {
	certpem.Packed
	issuer   string
	storedAt int64 // Unix time in nanoseconds
}

// storedBundle is a bundle as it was read, with what its issuer needs to know of it
// (Issued.Data), which is not kept in memory.
type storedBundle struct {
	*bundle
	data  json.RawMessage
	facts certpem.Facts
}

// newBundle checks that chain, key and names fit each other.
func newBundle(r certRecord, chain []*x509.Certificate, key crypto.Signer, chains *certpem.Chains) (*bundle, error) {
	if err := certpem.Verify(chain, key.Public(), r.Names); err != nil {
		return nil, err
	}
	p, err := certpem.Pack(chain, key, chains)
	if err != nil {
		return nil, err
	}
	return &bundle{Packed: p, issuer: r.Issuer, storedAt: nanos(r.Stored)}, nil
}

// decoder reads stored certificates. Its zero value is ready for use.
type decoder struct {
	chains certpem.Chains // what certificates share
	texts  sync.Pool      // of *[]byte, for one text of a record at a time
}

// bundle reads the stored certificate of that ID. A record that is as it
// was written, which its checksum tells, is taken apart without parsing it as
// JSON or its certificate as X.509.
func (d *decoder) bundle(id string, value []byte) (storedBundle, error) {
	body, err := record.Open(kindCertificate, value)
	if err != nil {
		return storedBundle{}, err
	}
	if s, ok := d.quick(id, body); ok {
		return s, nil
	}
	var r certRecord
	if err := record.Decode(kindCertificate, value, &r); err != nil {
		return storedBundle{}, err
	}
	if r.ID != id {
		return storedBundle{}, fmt.Errorf("it is the certificate of %q", r.ID)
	}
	return d.unpem(r, []byte(r.Key), []byte(r.Chain))
}

// unpem makes a bundle of what stands in a record beside key and chain, and of
// these.
func (d *decoder) unpem(r certRecord, key, chain []byte) (storedBundle, error) {
	p, facts, err := certpem.FromPEM(key, chain, &d.chains)
	if err == nil {
		err = facts.Covers(r.Names)
	}
	if err != nil {
		return storedBundle{}, err
	}
	return storedBundle{&bundle{Packed: p, issuer: r.Issuer, storedAt: nanos(r.Stored)}, r.Data, facts}, nil
}

// quick reads the body of a record whose checksum held. It reports false
// for anything that is not plain, which is then read in full.
func (d *decoder) quick(id string, body []byte) (s storedBundle, ok bool) {
	var (
		r          certRecord
		key, chain []byte
	)
	good := true
	buf := d.buffer()
	defer func() {
		clear(*buf) // of a private key
		d.texts.Put(buf)
	}()
	text := func(raw []byte) []byte {
		n := len(*buf)
		b, ok := record.Unquote(raw, *buf)
		*buf, good = b, good && ok
		return b[n:]
	}
	f := record.NewFields(body)
	for f.Next() {
		switch string(f.Name) {
		case "id":
			good = good && string(text(f.Value)) == id
		case "names":
			names := record.NewElements(f.Value)
			for names.Next() {
				r.Names = append(r.Names, string(text(names.Value)))
			}
			good = good && names.Whole()
		case "issuer":
			r.Issuer = string(text(f.Value))
		case "stored":
			good = good && r.Stored.UnmarshalJSON(f.Value) == nil
		case "key":
			key = text(f.Value)
		case "chain":
			chain = text(f.Value)
		case "issuer_data":
			r.Data = json.RawMessage(f.Value)
		}
	}
	if !good || !f.Whole() || len(r.Names) == 0 {
		return s, false
	}
	s, err := d.unpem(r, key, chain)
	return s, err == nil
}

// buffer returns an empty buffer for the texts of one record.
func (d *decoder) buffer() *[]byte {
	if b, ok := d.texts.Get().(*[]byte); ok {
		*b = (*b)[:0]
		return b
	}
	b := make([]byte, 0, 8<<10)
	return &b
}

func (b *bundle) notAfter() time.Time { return b.Facts().NotAfter }

func (b *bundle) stored() time.Time { return fromNanos(b.storedAt) }

// hasKey reports whether b is a certificate for the key.
func (b *bundle) hasKey(key crypto.Signer) bool {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	return err == nil && bytes.Equal(spki, b.Facts().PublicKey)
}

// serial returns the serial number in hexadecimal.
func (b *bundle) serial() string {
	s := strings.TrimLeft(hex.EncodeToString(b.Facts().Serial), "0")
	if s == "" {
		return "0"
	}
	return s
}

// usable reports whether a client would accept the certificate at now.
func (s *storedBundle) usable(now time.Time) bool { return s.bundle != nil && isUsable(s.facts, now) }

// isUsable reports whether a client would accept a certificate at now.
func isUsable(f certpem.Facts, now time.Time) bool {
	return !now.Before(f.NotBefore) && now.Before(f.NotAfter)
}

// better reports whether s is to be preferred to other: one that has not
// expired, and then the newer one.
func (s *storedBundle) better(other *storedBundle, now time.Time) bool {
	if other.bundle == nil || s.bundle == nil {
		return s.bundle != nil
	}
	f, g := s.facts, other.facts
	if alive, otherAlive := now.Before(f.NotAfter), now.Before(g.NotAfter); alive != otherAlive {
		return alive
	}
	if !f.NotBefore.Equal(g.NotBefore) {
		return f.NotBefore.After(g.NotBefore)
	}
	return s.storedAt > other.storedAt
}

// same reports whether both are the same certificate.
func (b *bundle) same(other *bundle) bool {
	return b != nil && other != nil && b.SameLeaf(&other.Packed)
}

// served returns what the cache serves for b, whose facts are f, with an OCSP
// response or without one.
func (b *bundle) served(f certpem.Facts, staple []byte) *certcache.Served {
	s := &certcache.Served{Source: b, NotBefore: f.NotBefore.Unix(), End: f.NotAfter.Unix(), Kind: b.KeyKind()}
	if staple != nil {
		s.Source = stapled{b, staple}
	}
	return s
}

// stapled is a certificate with an OCSP response, for the cache.
type stapled struct {
	*bundle
	staple []byte
}

// Certificate implements certcache.Source.
func (s stapled) Certificate() (*tls.Certificate, error) {
	cert, err := s.bundle.Certificate()
	if err != nil {
		return nil, err
	}
	with := *cert
	with.OCSPStaple = s.staple
	return &with, nil
}

// loadBundle reads the best certificate for c from storage: those of all its
// issuers are looked at, so that an expired one of the first does not hide a
// fresh one of the second. There is none when its bundle is nil. A damaged record
// counts as none and is reported; one written by a newer version is an error,
// because it must not be overwritten.
func (m *Manager) loadBundle(ctx context.Context, c *managed) (best storedBundle, err error) {
	now := time.Now()
	id := c.id()
	for _, iss := range c.settings().issuers {
		key := storageKey(keyCerts, iss.ID(), id)
		value, err := m.conf.Storage.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return storedBundle{}, fmt.Errorf("loading %q: %w", key, err)
		}
		s, err := m.decoder.bundle(id, value)
		if errors.Is(err, record.ErrNewer) {
			return storedBundle{}, fmt.Errorf("reading %q: %w", key, err)
		}
		if err != nil {
			err = fmt.Errorf("reading %q: %w", key, err)
			m.degraded(c, "a stored certificate is damaged and will be replaced", err)
			continue
		}
		if s.issuer == iss.ID() {
			s.issuer = iss.ID() // one text for all
		}
		if s.better(&best, now) {
			best = s
		}
	}
	return best, nil
}

// storeBundle makes an issued certificate durable.
func (m *Manager) storeBundle(ctx context.Context, c *managed, r certRecord) error {
	return storeRecord(ctx, m.conf.Storage, recordPlace{storageKey(keyCerts, r.Issuer, c.id()), kindCertificate}, r)
}
