package certwright

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/schedule"
)

// fileCheck is how often the files of a static certificate are looked at.
const fileCheck = time.Minute

// staticCert is a certificate that the caller supplied. After New only its own
// flight changes it.
type staticCert struct {
	m                 *Manager
	task              schedule.Task
	entry             *certcache.Entry // nil until it is served
	certFile, keyFile string           // empty for one that was given in memory
	sum               [sha256.Size]byte
	from, end         int64 // between which what is served is valid, Unix seconds
	failed            bool  // the last look failed; it is reported once
}

// Schedule implements schedule.Work.
func (f *staticCert) Schedule() *schedule.Task { return &f.task }

// Due implements schedule.Work: it has the files looked at, and plans the next
// look when that has ended.
func (f *staticCert) Due() {
	f.m.filesLane.Submit(&lane.Flight{
		Name: f.String(), Context: f.m.ctx,
		Do:   func(context.Context) error { f.m.checkFile(f); return nil },
		Done: func(error) { f.m.queue.Set(f, time.Now().Add(fileCheck).Unix()) },
	})
}

// String names the file in errors.
func (f *staticCert) String() string { return "file " + f.certFile }

// loadStatic serves the certificates in Config.Certificates. One that cannot be
// read is an error of New: the caller named it.
func (m *Manager) loadStatic() error {
	for i, s := range m.conf.Certificates {
		field := fmt.Sprintf("Config.Certificates[%d]", i)
		f := &staticCert{m: m, certFile: s.CertFile, keyFile: s.KeyFile}
		cert := s.Certificate
		if cert == nil {
			p, err := f.read()
			if err == nil {
				cert, err = f.parse(p)
			}
			if err != nil {
				return &ConfigError{Field: field, Err: err}
			}
			f.sum = p.sum
			m.files = append(m.files, f)
		}
		if err := m.serveStatic(f, cert); err != nil {
			return &ConfigError{Field: field, Err: err}
		}
	}
	return nil
}

// pair is the content of a static certificate's files.
type pair struct {
	certPEM, keyPEM []byte
	sum             [sha256.Size]byte // of both
}

// read reads the files.
func (f *staticCert) read() (p pair, err error) {
	if p.certPEM, err = os.ReadFile(f.certFile); err != nil {
		return p, fmt.Errorf("reading the certificate: %w", err)
	}
	if p.keyPEM, err = os.ReadFile(f.keyFile); err != nil {
		return p, fmt.Errorf("reading the key: %w", err)
	}
	h := sha256.New()
	h.Write(p.certPEM)
	h.Write(p.keyPEM)
	p.sum = [sha256.Size]byte(h.Sum(nil))
	return p, nil
}

// parse makes a certificate of a pair and checks that its halves fit.
func (f *staticCert) parse(p pair) (*tls.Certificate, error) {
	key, err := certpem.DecodeKey(p.keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the key in %s: %w", f.keyFile, err)
	}
	chain, err := certpem.ParseChain(p.certPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate in %s: %w", f.certFile, err)
	}
	if !certpem.Match(chain[0].PublicKey, key.Public()) {
		return nil, fmt.Errorf("the key in %s is not the one of the certificate in %s", f.keyFile, f.certFile)
	}
	return certpem.TLSCertificate(chain, key), nil
}

// serveStatic checks what is to be served, and serves a copy of it. What is valid
// now stays until another is that is valid now too.
func (m *Manager) serveStatic(f *staticCert, given *tls.Certificate) error {
	if len(given.Certificate) == 0 {
		return errors.New("the certificate is empty")
	}
	cert := *given
	cert.Certificate, cert.OCSPStaple = slices.Clone(given.Certificate), bytes.Clone(given.OCSPStaple)
	chain := make([]*x509.Certificate, len(cert.Certificate))
	for i, der := range cert.Certificate {
		var err error
		der = bytes.Clone(der)
		cert.Certificate[i] = der
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("parsing certificate %d of the chain: %w", i+1, err)
		}
	}
	cert.Leaf = chain[0]
	if err := checkKey(cert.Leaf, cert.PrivateKey); err != nil {
		return err
	}
	names := certpem.Names(cert.Leaf)
	if len(names) == 0 {
		return errors.New("the certificate has no subject alternative name (RFC 6125 §6.4): no client accepts it for a server")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	now, from, end := time.Now().Unix(), cert.Leaf.NotBefore.Unix(), certpem.End(chain).Unix()
	if f.from <= now && now < f.end && (now < from || end <= now) {
		return fmt.Errorf("the certificate is valid from %s to %s, and not now", wallTime(from).Format(time.RFC3339), wallTime(end).Format(time.RFC3339))
	}
	f.from, f.end = from, end
	old := f.entry
	if old == nil || !slices.Equal(old.Names, names) {
		f.entry = &certcache.Entry{Names: names, Owner: f}
		m.cache.Add(f.entry)
	}
	m.cache.Serve(f.entry, &certcache.Served{
		Source: supplied{&cert}, NotBefore: from, End: end,
	})
	if old != nil && old != f.entry {
		m.cache.Remove(old)
	}
	return nil
}

// checkKey checks that a private key is there and is the leaf's. One that was made
// by hand may panic.
func checkKey(leaf *x509.Certificate, private crypto.PrivateKey) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the private key, a %T, is of no use: it panicked: %v", private, p)
		}
	}()
	key, ok := private.(crypto.Signer)
	if !ok || isNil(private) {
		return errors.New("the certificate has no private key")
	}
	if !certpem.Match(leaf.PublicKey, key.Public()) {
		return errors.New("the private key is not the one of the certificate")
	}
	return nil
}

// supplied is a certificate that is parsed already, for the cache.
type supplied struct{ cert *tls.Certificate }

// Certificate implements certcache.Source.
func (s supplied) Certificate() (*tls.Certificate, error) { return s.cert, nil }

// checkFile reads a static certificate again when its files have changed. While
// they are being replaced, or are wrong, the one in memory stays.
func (m *Manager) checkFile(f *staticCert) {
	p, err := f.read()
	if err == nil && p.sum == f.sum {
		f.failed = false
		return
	}
	var cert *tls.Certificate
	if err == nil {
		cert, err = f.parse(p)
	}
	if err == nil {
		err = m.serveStatic(f, cert)
	}
	if err != nil {
		if !f.failed {
			f.failed = true
			m.log.Error("a static certificate could not be replaced; the one in memory stays", "file", f.certFile, "err", err)
		}
		return
	}
	f.sum, f.failed = p.sum, false
	m.log.Info("static certificate reloaded", "file", f.certFile, "not_after", cert.Leaf.NotAfter)
	m.events.emit(Event{Kind: EventReloaded, Name: f.certFile, NotAfter: cert.Leaf.NotAfter, Serial: fmt.Sprintf("%x", cert.Leaf.SerialNumber)})
}
