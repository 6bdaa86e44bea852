package certwright

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/hostname"
)

// TXTRecord is a DNS record of type TXT.
type TXTRecord struct {
	Name  string // absolute, without a trailing dot
	Value string // the text, not quoted
}

// persistTimeout bounds what one CA is asked for PersistRecords.
const persistTimeout = time.Minute

// PersistRecords returns the records that let the account get certificates for a
// name by dns-persist-01 for as long as they stand: one for each *ACME that issues
// for the name, which is one of Config.Issuers where the name is not managed. Each
// authorizes an account at one CA. The record for a wildcard is good for its parent
// too. Who has set them by hand adds a Solver for "dns-persist-01"; a
// *dnsprovider.Solver without a Provider checks them, one with a Provider sets them
// itself.
//
// The CA is asked for its directory, and for an account where there is none yet.
// The error is about all that could not tell; the records of the others are
// returned.
//
// dns-persist-01 (draft-ietf-acme-dns-persist) is experimental: few CAs have it.
func (m *Manager) PersistRecords(ctx context.Context, name string) ([]TXTRecord, error) {
	normal, err := hostname.Normalize(name)
	if err == nil && hostname.IsIP(normal) {
		err = errors.New("an IP address has no DNS challenge")
	}
	if err != nil {
		return nil, &ConfigError{Field: "name", Err: fmt.Errorf("%q: %w", name, err)}
	}
	if m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(ErrClosed) })()
	defer m.calls.begin("PersistRecords for " + normal)()
	var list []TXTRecord
	var errs []error
	asked := 0
	for _, iss := range m.issuersFor(normal) {
		b, ok := iss.Issuer.(*acmeIssuer)
		if !ok {
			continue
		}
		asked++
		r, err := b.persistRecord(ctx, normal)
		if err != nil {
			errs = append(errs, fmt.Errorf("getting the record of dns-persist-01 for %q: %w", normal, err))
			continue
		}
		list = append(list, r)
	}
	if asked == 0 {
		errs = append(errs, fmt.Errorf("getting the records of dns-persist-01 for %q: none of its issuers is an *ACME", normal))
	}
	return list, errors.Join(errs...)
}

func (b *acmeIssuer) persistRecord(ctx context.Context, name string) (TXTRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, persistTimeout)
	defer cancel()
	account, domains, err := b.flow.Identity(ctx)
	if err != nil {
		return TXTRecord{}, b.stepError(err)
	}
	if len(domains) == 0 {
		return TXTRecord{}, &StepError{Issuer: b.id, Step: "directory", Err: errors.New("the CA's directory does not say by which name it goes in DNS records (caaIdentities): ask the CA")}
	}
	parent, wildcard := strings.CutPrefix(name, "*.")
	return persistRecord(parent, domains[0], account, wildcard), nil
}

// issuersFor returns the issuers of a name: those of its certificates, and those of
// the Config where it is not managed.
func (m *Manager) issuersFor(name string) []*issuer {
	var list []*issuer
	known := map[*issuer]bool{}
	for _, e := range m.cache.Entries(name) {
		c := asManaged(e)
		if c == nil {
			continue
		}
		c.mu.Lock()
		issuers := c.cfg.issuers
		c.mu.Unlock()
		for _, iss := range issuers {
			if !known[iss] {
				known[iss] = true
				list = append(list, iss)
			}
		}
	}
	if len(list) == 0 {
		return m.bound
	}
	return list
}
