package certwright

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/certpem"
)

// fileCheck is how often the files of a static certificate are looked at.
const fileCheck = time.Minute

// staticFile is a certificate that the caller supplied. Only the schedule's
// worker for its key changes it after New.
type staticFile struct {
	key               string // in the schedule and in the cache
	certFile, keyFile string // empty for one that was given in memory
	sum               [sha256.Size]byte
	failed            bool // the last look failed; it is reported once
}

// loadStatic serves the certificates in Config.Certificates. One that cannot be
// read is an error of New: the caller named it.
func (m *Manager) loadStatic() error {
	for i, s := range m.conf.Certificates {
		field := fmt.Sprintf("Config.Certificates[%d]", i)
		f := &staticFile{key: fmt.Sprintf("%s%d", filePrefix, i), certFile: s.CertFile, keyFile: s.KeyFile}
		cert := s.Certificate
		if cert == nil {
			var err error
			if cert, f.sum, err = f.read(); err != nil {
				return &ConfigError{Field: field, Err: err}
			}
			m.files = append(m.files, f)
		}
		if err := m.serveStatic(f.key, cert); err != nil {
			return &ConfigError{Field: field, Err: err}
		}
	}
	return nil
}

// read loads the pair and checks that its halves fit.
func (f *staticFile) read() (*tls.Certificate, [sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	certPEM, err := os.ReadFile(f.certFile)
	if err != nil {
		return nil, sum, fmt.Errorf("reading the certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(f.keyFile)
	if err != nil {
		return nil, sum, fmt.Errorf("reading the key: %w", err)
	}
	h := sha256.New()
	h.Write(certPEM)
	h.Write(keyPEM)
	sum = [sha256.Size]byte(h.Sum(nil))
	key, err := certpem.DecodeKey(keyPEM)
	if err != nil {
		return nil, sum, fmt.Errorf("reading the key in %s: %w", f.keyFile, err)
	}
	chain, err := certpem.ParseChain(certPEM)
	if err != nil {
		return nil, sum, fmt.Errorf("reading the certificate in %s: %w", f.certFile, err)
	}
	if !certpem.Match(chain[0].PublicKey, key.Public()) {
		return nil, sum, fmt.Errorf("the key in %s is not the one of the certificate in %s", f.keyFile, f.certFile)
	}
	return certpem.TLSCertificate(chain, key), sum, nil
}

func (m *Manager) serveStatic(id string, cert *tls.Certificate) error {
	if len(cert.Certificate) == 0 {
		return errors.New("the certificate is empty")
	}
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("parsing the certificate: %w", err)
		}
		withLeaf := *cert
		withLeaf.Leaf = leaf
		cert = &withLeaf
	}
	names := certpem.Names(leaf)
	if len(names) == 0 {
		return errors.New("the certificate has no subject alternative name (RFC 6125 §6.4): no client accepts it for a server")
	}
	m.cache.Install(time.Now(), certcache.Entry{
		Cert: cert, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, ID: id, Names: names,
	})
	return nil
}

// checkFile reads a static certificate again when its files have changed. While
// they are being replaced, or are wrong, the one in memory stays.
func (m *Manager) checkFile(key string) {
	var f *staticFile
	for _, g := range m.files {
		if g.key == key {
			f = g
		}
	}
	if f == nil {
		return
	}
	defer func() { m.queue.Set(key, time.Now().Add(fileCheck)) }()
	cert, sum, err := f.read()
	switch {
	case err == nil && sum == f.sum:
		f.failed = false
		m.cache.Refresh(time.Now(), key)
		return
	case err == nil:
		err = m.serveStatic(key, cert)
	}
	if err != nil {
		if !f.failed {
			f.failed = true
			m.log.Error("a static certificate could not be read again; the one in memory stays", zap.String("file", f.certFile), zap.Error(err))
		}
		return
	}
	f.sum, f.failed = sum, false
	m.log.Info("static certificate reloaded", zap.String("file", f.certFile), zap.Time("not_after", cert.Leaf.NotAfter))
	m.events.emit(Event{Kind: EventReloaded, Name: f.certFile, NotAfter: cert.Leaf.NotAfter, Serial: fmt.Sprintf("%x", cert.Leaf.SerialNumber)})
}
