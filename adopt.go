package certwright

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/guard"
	"github.com/certwright/certwright/internal/records"
)

// adoptTries is how often an unreadable source is read before a certificate is
// ordered without it.
const adoptTries = 3

// sourceTimeout bounds one search in one source.
const sourceTimeout = 2 * time.Minute

// sourceGrace is how long a search may take to return after its time.
const sourceGrace = 5 * time.Second

// sources is what Config.Adopt says.
type sources struct {
	list []adopt.Source
	log  *slog.Logger
	hung []atomic.Int32 // calls of each that do not return although they were told to
	run  func(func())   // starts a goroutine

	mu   sync.Mutex // guards said
	said map[string]bool
}

// foundPair is a pair of a source that was checked.
type foundPair struct {
	adopt.Pair
	chain []*x509.Certificate
	key   crypto.Signer
}

// openSources checks Config.Adopt.
func openSources(list []adopt.Source, log *slog.Logger, run func(func())) (*sources, error) {
	for i, src := range list {
		if isNil(src) {
			return nil, configErrorf(fmt.Sprintf("Config.Adopt[%d]", i), "is nil: say which program wrote what, such as adopt.Certbot(dir)")
		}
	}
	return &sources{list: slices.Clone(list), log: log, hung: make([]atomic.Int32, len(list)), run: run, said: map[string]bool{}}, nil
}

// note warns of what could not be used, once a file and cause, and returns what
// could not be read.
func (s *sources) note(src adopt.Source, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var unreadable []error
		for _, one := range joined.Unwrap() {
			unreadable = append(unreadable, s.note(src, one))
		}
		return errors.Join(unreadable...)
	}
	bad, told := errors.AsType[*adopt.FileError](err)
	err = fmt.Errorf("adopting from %v: %w", src, err)
	if !told || bad.Unreadable {
		return err
	}
	if s.first(err.Error()) {
		s.log.Warn("a file of another program is not adopted", "err", err)
	}
	return nil
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
// any: one with the key type of c, or, when it may have another, any. It returns
// nil when there is none. The error says which sources could not be read.
func (s *sources) certificate(ctx context.Context, c *managed, set *settings) (*foundPair, error) {
	var unread []error
	for i, src := range s.list {
		pairs, err := ask(ctx, s, i, func(ctx context.Context) ([]adopt.Pair, error) { return src.Find(ctx, c.Names) })
		unread = append(unread, s.note(src, err))
		var best *foundPair
		bestRank := 0
		for _, p := range pairs {
			f, err := checkPair(p, c.Names, set.issuers)
			if err != nil {
				unread = append(unread, s.note(src, &adopt.FileError{File: p.File, Err: err}))
				continue
			}
			kind, known := certpem.TypeOf(f.key.Public())
			other := !known || kind != c.key()
			rank := issuerIndex(set.issuers, p)
			if other {
				rank += len(set.issuers) + 1 // behind all with the right key
			}
			if (!other || set.anyKey) && (best == nil || rank < bestRank) {
				best, bestRank = f, rank
			}
		}
		if best != nil {
			return best, nil
		}
	}
	return nil, errors.Join(unread...)
}

// ask asks one source within the time for it. A panic is an error, and so is a call
// that does not return; until it has, the source is not asked again.
func ask[T any](ctx context.Context, s *sources, i int, call func(context.Context) (T, error)) (out T, err error) {
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	if s.hung[i].Load() > 0 {
		return out, errors.New("a call before has not returned yet")
	}
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	var found T
	done := guard.Call(s.run, "it", func() (err error) {
		found, err = call(ctx)
		return err
	})
	select {
	case err := <-done:
		return found, err
	case <-ctx.Done():
	}
	late := time.NewTimer(sourceGrace)
	defer late.Stop()
	select {
	case err := <-done:
		return found, err
	case <-late.C:
	}
	s.hung[i].Add(1)
	s.run(func() {
		<-done //nolint:errcheck // nobody asks any more
		s.hung[i].Add(-1)
	})
	return out, fmt.Errorf("it does not return: %w", context.Cause(ctx))
}

// checkPair checks what a source found: it may be anybody's.
func checkPair(p adopt.Pair, names []string, issuers []*issuer) (*foundPair, error) {
	chain, err := certpem.ParseChain([]byte(p.CertPEM))
	if err != nil {
		return nil, err
	}
	key, err := certpem.DecodeKey([]byte(p.KeyPEM))
	if err != nil {
		return nil, err
	}
	if err := certpem.Verify(chain, key.Public(), names); err != nil {
		return nil, err
	}
	if end := chain[0].NotAfter; !time.Now().Before(end) {
		return nil, fmt.Errorf("the certificate expired at %s", end.UTC().Format(time.RFC3339))
	}
	if begin := chain[0].NotBefore; time.Now().Before(begin) {
		return nil, fmt.Errorf("the certificate is not valid before %s", begin.UTC().Format(time.RFC3339))
	}
	if issuerIndex(issuers, p) == len(issuers) && (forTests(p.CA) || forTests(p.URL)) {
		return nil, errors.New("it was issued by a CA for tests, which is not among the issuers in use")
	}
	return &foundPair{p, chain, key}, nil
}

// forTests reports whether a URL is that of a CA whose certificates no client trusts.
func forTests(ca string) bool {
	ca = strings.ToLower(ca)
	return strings.Contains(ca, "staging") || strings.Contains(ca, "test-api")
}

// issuerIndex returns which of the issuers is the CA that p was issued by,
// len(issuers) when none is. A source that does not tell the CA may tell its host.
func issuerIndex(issuers []*issuer, p adopt.Pair) int {
	host := func(s string) string {
		u, err := url.Parse(s)
		if err != nil {
			return ""
		}
		return strings.ToLower(u.Host)
	}
	i := slices.IndexFunc(issuers, func(iss *issuer) bool {
		a, ok := iss.Issuer.(*acmeIssuer)
		if !ok {
			return false
		}
		ca := a.conf.directory()
		if p.CA != "" {
			return strings.TrimSuffix(p.CA, "/") == strings.TrimSuffix(ca, "/")
		}
		return host(p.URL) != "" && host(p.URL) == host(ca)
	})
	if i < 0 {
		return len(issuers)
	}
	return i
}

// account returns an account at a CA that a source has: one for that contact
// before any other. It returns nil when there is none.
func (s *sources) account(ctx context.Context, ca, email, eabKeyID string) (*acmeflow.AccountRecord, error) {
	var best *adopt.Account
	var unread []error
	mine := func(a *adopt.Account) bool { return email != "" && slices.Contains(a.Contact, "mailto:"+email) }
	for i, src := range s.list {
		first, err := ask(ctx, s, i, func(ctx context.Context) (*adopt.Account, error) { return src.Account(ctx, ca) })
		unread = append(unread, s.note(src, err))
		if first == nil {
			continue
		}
		for _, a := range append([]adopt.Account{*first}, first.Others...) {
			if eabKeyID != "" && a.EABKeyID != "" && a.EABKeyID != eabKeyID {
				continue // bound to another account outside of ACME
			}
			if best == nil || mine(&a) && !mine(best) {
				best = &a
			}
		}
	}
	if best == nil {
		return nil, errors.Join(unread...)
	}
	if _, err := certpem.DecodeKey([]byte(best.KeyPEM)); err != nil {
		return nil, fmt.Errorf("adopting the account key %q: %w", best.File, err)
	}
	if s.first("account " + best.File) {
		s.log.Info("using the account of another program", "file", best.File, "directory", ca)
	}
	// The CA is asked for the account of the key, so no URL is taken over.
	return &acmeflow.AccountRecord{Directory: ca, Contact: best.Contact, EABKeyID: best.EABKeyID, KeyPEM: best.KeyPEM}, nil
}

// adopt takes over the certificate that a source has for c. It returns nil when
// there is none.
func (m *Manager) adopt(ctx context.Context, c *managed, cfg *settings) (*records.Bundle, error) {
	if len(m.sources.list) == 0 {
		return nil, nil
	}
	found, err := m.sources.certificate(ctx, c, cfg)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("adopting a certificate for %q: %w", c.Names[0], context.Cause(ctx))
	}
	if found == nil {
		if err != nil && c.failedLoads()+1 >= adoptTries {
			m.log.Error("a source could not be read; a certificate is ordered without it", "name", c.Names[0], "err", err)
			return nil, nil
		}
		return nil, err
	}
	lease, err := m.lockWithin(ctx, records.IssueLock(c.id()), lockTimeout)
	if err != nil {
		return nil, err
	}
	defer m.unlock(ctx, lease)
	ctx = lease.Context()
	if s, err := m.records.LoadBundle(ctx, c.id(), time.Now()); err == nil && s.Usable(time.Now().Unix()) {
		return s.Bundle, nil
	} else if err != nil && !isMissing(err) {
		return nil, err
	}
	b, err := m.adoptPair(ctx, c, cfg, found)
	if err != nil {
		return nil, fmt.Errorf("adopting %q for %q: %w", found.File, c.Names[0], err)
	}
	return b, nil
}

// failedLoads returns how often storage or a source failed in a row.
func (c *managed) failedLoads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		return 0
	}
	return c.why.failures
}

// adoptPair makes a found certificate one of our own. It runs under the lease for
// c.
func (m *Manager) adoptPair(ctx context.Context, c *managed, cfg *settings, found *foundPair) (*records.Bundle, error) {
	iss, data, err := issuerOfPair(cfg.issuers, found.Pair)
	if err != nil {
		return nil, err
	}
	kind, _ := certpem.TypeOf(found.key.Public())
	b, _, err := m.records.Make(records.NewBundle{
		Names: c.Names, KeyType: kind, CA: iss.ca, Account: iss.id, Key: found.key, Chain: certpem.EncodeChain(found.chain), Data: data,
		Stored: found.chain[0].NotBefore, // no new certificate, whose renewal would have to wait
		Flags:  records.Adopted,
	})
	if err != nil {
		return nil, err
	}
	if err := m.records.StoreBundle(ctx, records.Stored{Bundle: b, Data: data}); err != nil {
		return nil, err
	}
	if info := found.Info; info != nil && data != nil {
		r := records.RenewalInfo{
			Serial: b.Serial(), Start: info.Start.UTC(), End: info.End.UTC(), ExplanationURL: info.ExplanationURL, Refresh: info.Refresh.UTC(),
		}
		if err := m.records.StoreRenewalInfo(ctx, b.ID(), &r); err != nil {
			m.log.Info("the renewal info of an adopted certificate could not be stored", "name", c.Names[0], "err", err)
		}
	}
	m.noteChange(b.ID())
	m.log.Info("certificate adopted from another program", "name", c.Names[0], "file", found.File, "issuer", iss.id,
		"serial", b.Serial(), "not_after", time.Unix(b.End, 0).UTC())
	return b, nil
}

// issuerOfPair returns the issuer that an adopted certificate belongs to: the one
// at whose CA it was issued, with what is known of the certificate there, and
// else the first, which knows nothing of it.
func issuerOfPair(issuers []*issuer, p adopt.Pair) (iss *issuer, data json.RawMessage, err error) {
	i := issuerIndex(issuers, p)
	if i == len(issuers) {
		return issuers[0], nil, nil
	}
	a := issuers[i].Issuer.(*acmeIssuer)
	data, err = json.Marshal(acmeData{Directory: a.conf.directory(), Account: p.Account, URL: p.URL})
	return issuers[i], data, err
}
