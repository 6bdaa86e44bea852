package certwright

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/adopt"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/plugin"
)

// Layout says which program wrote a [Source]. A program links the code only of
// the layouts that it names.
type Layout interface {
	// String returns the name of the program.
	String() string

	tree(s Storage) adopt.Tree
	reader(tree adopt.Tree, ca string) adopt.Reader
	open(all []Source, log *slog.Logger) (adopter, error)
}

// adopter takes over what other programs stored. A Manager reaches it through a
// Layout only, so that a program that adopts nothing does not link it.
type adopter interface {
	// adopt returns nil when there is nothing for c.
	adopt(ctx context.Context, m *Manager, c *job) (*bundle, error)
	account(ctx context.Context, ca, email, eabKeyID string) (*acmeflow.AccountRecord, error)
}

// layout is what all layouts share.
type layout struct{}

func (layout) tree(s Storage) adopt.Tree { return boundStorage{s} }

func (layout) open(all []Source, log *slog.Logger) (adopter, error) { return openSources(all, log) }

// LayoutCertMagic is that of CertMagic and of Caddy, whose folder is often
// ~/.local/share/certmagic or ~/.local/share/caddy.
type LayoutCertMagic struct{ layout }

func (LayoutCertMagic) String() string { return "certmagic" }

func (LayoutCertMagic) tree(s Storage) adopt.Tree {
	if p, ok := storage.Find[*plugin.Storage](s); ok {
		return boundStorage{rawPlugin{p, p.Raw()}}
	}
	return boundStorage{s}
}

// rawPlugin is what CertMagic itself keeps in a plugin.
type rawPlugin struct {
	*plugin.Storage
	raw plugin.Raw
}

func (p rawPlugin) Load(ctx context.Context, key string) ([]byte, error) { return p.raw.Load(ctx, key) }

func (p rawPlugin) List(ctx context.Context, prefix string) ([]string, error) {
	return p.raw.List(ctx, prefix)
}

func (LayoutCertMagic) reader(tree adopt.Tree, ca string) adopt.Reader {
	return adopt.CertMagic(tree, ca)
}

// LayoutAutocert is that of the DirCache of golang.org/x/crypto/acme/autocert.
type LayoutAutocert struct{ layout }

func (LayoutAutocert) String() string { return "autocert" }

func (LayoutAutocert) reader(tree adopt.Tree, ca string) adopt.Reader {
	return adopt.Autocert(tree, ca)
}

// LayoutLego is that of the lego command, whose folder is often .lego.
type LayoutLego struct{ layout }

func (LayoutLego) String() string { return "lego" }

func (LayoutLego) reader(tree adopt.Tree, ca string) adopt.Reader {
	return adopt.Lego(tree, ca)
}

// LayoutCertbot is that of certbot, whose folder is often /etc/letsencrypt.
type LayoutCertbot struct{ layout }

func (LayoutCertbot) String() string { return "certbot" }

func (LayoutCertbot) reader(tree adopt.Tree, ca string) adopt.Reader {
	return adopt.Certbot(tree, ca)
}

// Source is what another program stored. A managed name that has no usable
// certificate in Config.Storage gets the one that a source has for it, with its
// key, before any CA is asked: the move to certwright costs no order. The
// account at the CA and what the CA suggested for the renewal are taken over
// too, for CAs that are among the issuers. A source is never written to.
//
// A certificate that is damaged, expired, for other names or from a CA for
// tests is passed over with a warning that names the file. When a source cannot
// be read at all, the name is tried again twice before a certificate is ordered.
//
// A certificate that a source has for more names than asked for, or for their
// wildcard, is taken; so is one with another type of key, when the name is to
// have one certificate only. The renewal asks for what the configuration says.
type Source struct {
	// Layout says which program wrote the source. Required.
	Layout Layout

	// Dir is the folder. It may be missing, which is warned of once.
	Dir string

	// Storage is the source when it is not a folder: for LayoutCertMagic a
	// plugin through plugin.CertMagic. It may be Config.Storage itself. Exactly
	// one of Dir and Storage is set.
	Storage Storage

	// Directory is the directory URL of the CA that LayoutAutocert was used
	// with, which its files do not tell. Empty means LetsEncrypt. Other layouts
	// do not need it.
	Directory string
}

// adoptTries is how often an unreadable source is read before a certificate is
// ordered without it.
const adoptTries = 3

// source is a Source in use.
type source struct {
	adopt.Reader
	title string // for errors and logs
}

// sources is what Config.Adopt says.
type sources struct {
	list []source
	log  *slog.Logger

	mu   sync.Mutex // guards said
	said map[string]bool
}

// openSources checks Config.Adopt.
func openSources(conf []Source, log *slog.Logger) (*sources, error) {
	s := &sources{log: log, said: map[string]bool{}}
	for i, c := range conf {
		field := fmt.Sprintf("Config.Adopt[%d]", i)
		if (c.Dir == "") == (c.Storage == nil) {
			return nil, configErrorf(field, "needs exactly one of Dir and Storage")
		}
		if c.Directory == "" {
			c.Directory = LetsEncrypt
		}
		title := c.Layout.String()
		var tree adopt.Tree
		if c.Storage != nil {
			tree = c.Layout.tree(c.Storage)
		}
		if c.Dir != "" {
			dir, err := filepath.Abs(c.Dir)
			if err != nil {
				return nil, &ConfigError{Field: field + ".Dir", Err: err}
			}
			tree, title = adopt.FS(os.DirFS(dir)), fmt.Sprintf("%s %q", title, dir)
			if _, err := os.Stat(dir); err != nil {
				log.Warn("there is nothing to adopt", "source", title, "err", err)
			}
		}
		s.list = append(s.list, source{Reader: c.Layout.reader(tree, c.Directory), title: title})
	}
	return s, nil
}

// note warns of what could not be used, once a file and cause, and returns what
// could not be read.
func (s *sources) note(src source, errs []*adopt.FileError) error {
	var unreadable []error
	for _, e := range errs {
		err := fmt.Errorf("adopting from %s: %w", src.title, e)
		if e.Unreadable {
			unreadable = append(unreadable, err)
			continue
		}
		if s.first(err.Error()) {
			s.log.Warn("a file of another program is not adopted", "err", err)
		}
	}
	return errors.Join(unreadable...)
}

// first reports whether text was not said before.
func (s *sources) first(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.said[text]
	s.said[text] = true
	return !said
}

// certificate returns the best certificate that the first source has which has
// any: one with the wanted type of key, or, when anyKey is set, another. It
// returns nil when there is none. The error says which sources could not be read.
func (s *sources) certificate(ctx context.Context, q adopt.Query, want KeyType, anyKey bool) (*adopt.Certificate, error) {
	var unread []error
	for _, src := range s.list {
		certs, errs := src.Certificates(ctx, q)
		unread = append(unread, s.note(src, errs))
		i := slices.IndexFunc(certs, func(c adopt.Certificate) bool {
			t, ok := certpem.TypeOf(c.Key.Public())
			return ok && KeyType(t) == want
		})
		if i < 0 && anyKey && len(certs) > 0 {
			i = 0
		}
		if i >= 0 {
			return &certs[i], nil
		}
	}
	return nil, errors.Join(unread...)
}

// account returns an account at a CA that a source has: one for that contact
// before any other. It returns nil when there is none.
func (s *sources) account(ctx context.Context, ca, email, eabKeyID string) (*acmeflow.AccountRecord, error) {
	var best *adopt.Account
	var unread []error
	for _, src := range s.list {
		accounts, errs := src.Accounts(ctx, ca)
		unread = append(unread, s.note(src, errs))
		for _, a := range accounts {
			if eabKeyID != "" && a.EABKeyID != "" && a.EABKeyID != eabKeyID {
				continue // bound to another account outside of ACME
			}
			if best == nil || email != "" && hasContact(a, email) && !hasContact(*best, email) {
				best = &a
			}
		}
	}
	if best == nil {
		return nil, errors.Join(unread...)
	}
	keyPEM, err := certpem.EncodeKey(best.Key)
	if err != nil {
		return nil, fmt.Errorf("adopting the account key %q: %w", best.File, err)
	}
	if s.first("account " + best.File) {
		s.log.Info("using the account of another program", "file", best.File, "directory", ca)
	}
	// The CA is asked for the account of the key, so no URL is taken over.
	return &acmeflow.AccountRecord{Directory: ca, Contact: best.Contact, EABKeyID: best.EABKeyID, KeyPEM: string(keyPEM)}, nil
}

func hasContact(a adopt.Account, email string) bool {
	for _, c := range a.Contact {
		if c == "mailto:"+email {
			return true
		}
	}
	return false
}

// adopt takes over the certificate that a source has for c. It returns nil when
// there is none.
func (s *sources) adopt(ctx context.Context, m *Manager, c *job) (*bundle, error) {
	set := c.settings()
	q := adopt.Query{Names: c.Names, Now: time.Now(), CAs: directoriesOf(set.issuers)}
	found, err := s.certificate(ctx, q, c.keyType.keyType(), set.anyKey)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("adopting a certificate for %q: %w", c.Names[0], context.Cause(ctx))
	}
	if found == nil {
		if err != nil && c.troubles+1 >= adoptTries {
			m.log.Error("a source could not be read; a certificate is ordered without it", "name", c.Names[0], "err", err)
			return nil, nil
		}
		return nil, err
	}
	lease, err := m.lock(ctx, storageKey("issue", c.id()))
	if err != nil {
		return nil, err
	}
	defer unlock(ctx, lease, m.log)
	ctx = lease.Context()
	if b, err := m.loadBundle(ctx, c.managed); err != nil || b.usable(time.Now()) {
		return b.bundle, err
	}
	return keep(ctx, m, c, found)
}

// keep makes a found certificate one of our own. It runs under the lease for c.
func keep(ctx context.Context, m *Manager, c *job, found *adopt.Certificate) (*bundle, error) {
	fail := func(err error) (*bundle, error) {
		return nil, fmt.Errorf("adopting %q for %q: %w", found.File, c.Names[0], err)
	}
	keyPEM, err := certpem.EncodeKey(found.Key)
	if err != nil {
		return fail(err)
	}
	id, data, err := issuerOf(c.settings().issuers, found)
	if err != nil {
		return fail(err)
	}
	r := certRecord{
		ID: c.id(), Names: c.Names, Issuer: id,
		Stored: found.Chain[0].NotBefore.UTC(), // no new certificate, whose renewal would have to wait
		Key:    string(keyPEM), Chain: string(certpem.EncodeChain(found.Chain)), Data: data,
	}
	b, err := newBundle(r, found.Chain, found.Key, &m.decoder.chains)
	if err != nil {
		return fail(err)
	}
	if err := m.storeBundle(ctx, c.managed, r); err != nil {
		return fail(err)
	}
	if info := found.Info; info != nil && data != nil {
		m.storeUpkeep(ctx, c, renewalInfoPlace(c.managed), ariRecord{
			Serial: b.serial(), Start: info.Start.UTC(), End: info.End.UTC(),
			ExplanationURL: info.ExplanationURL, Refresh: info.Refresh.UTC(),
		})
	}
	m.log.Info("certificate adopted from another program", "name", c.Names[0], "file", found.File,
		"issuer", id, "serial", b.serial(), "not_after", b.notAfter())
	return b, nil
}

// issuerOf returns the issuer that an adopted certificate belongs to: the one
// at whose CA it was issued, with what is known of the certificate there, and
// else the first, which knows nothing of it.
func issuerOf(issuers []Issuer, found *adopt.Certificate) (id string, data json.RawMessage, err error) {
	for _, iss := range issuers {
		if a, ok := iss.(*acmeIssuer); ok && found.CA != "" && a.conf.directory() == found.CA {
			data, err := json.Marshal(acmeData{Directory: found.CA, Account: found.Account, URL: found.URL})
			return a.id, data, err
		}
	}
	return issuers[0].ID(), nil, nil
}

// directoriesOf returns the directory URLs of the ACME issuers.
func directoriesOf(issuers []Issuer) []string {
	var out []string
	for _, iss := range issuers {
		if a, ok := iss.(*acmeIssuer); ok {
			out = append(out, a.conf.directory())
		}
	}
	return out
}
