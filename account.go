package certwright

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/records"
)

// ID names the account: the directory URL's host and path, a digest of its
// query when there is one, a digest of the EAB key ID when there is one, and
// Account when it is set.
func (a *ACME) ID() string {
	id := caID(a.directory())
	if a.EAB != nil && a.EAB.KeyID != "" {
		id += "+" + shortDigest(a.EAB.KeyID)
	}
	if a.Account != "" {
		id += "+" + a.Account
	}
	return id
}

// CA names the CA: the directory URL's host and path, and a digest of its query
// when there is one. It is the same for every account.
func (a *ACME) CA() string { return caID(a.directory()) }

// caID makes a segment of a storage key of a directory URL, without the scheme
// and what may be secret in it.
func caID(directory string) string {
	u, err := url.Parse(directory)
	if err != nil {
		return "invalid"
	}
	id := strings.ToLower(u.Host)
	if p := strings.Trim(u.Path, "/"); p != "" {
		id += "-" + p
	}
	id = strings.Map(func(r rune) rune {
		if isLabelRune(r) {
			return r
		}
		return '-'
	}, id)
	if u.RawQuery != "" {
		id += "-" + shortDigest(u.RawQuery)
	}
	return id
}

func isLabelRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_", r)
}

func shortDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// bareURL is a URL for people to read, without what may be secret in it.
func bareURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "(not a URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// accountStore keeps the account of one issuer.
type accountStore struct {
	env  *issuerEnv
	id   string
	conf *ACME
}

// Load implements acmeflow.AccountStore.
func (s *accountStore) Load(ctx context.Context) (acmeflow.AccountRecord, error) {
	r, err := s.env.records.LoadAccount(ctx, s.id)
	var damaged *records.DamagedError
	switch {
	case err == nil:
		return acmeflow.AccountRecord(*r), nil
	case isNotExist(err):
		if adopted := s.adopt(ctx); adopted != nil {
			return *adopted, nil
		}
	case errors.As(err, &damaged):
		// A damaged account is made anew: nothing else can be done with it.
		s.env.log.WarnContext(ctx, "the stored account is damaged; registering a new one", "issuer", s.id, "err", err)
		return acmeflow.AccountRecord{}, nil
	}
	return acmeflow.AccountRecord{}, err
}

// adopt returns the account that another program had at the CA, nil when none
// is known.
func (s *accountStore) adopt(ctx context.Context) *acmeflow.AccountRecord {
	keyID := ""
	if s.conf.EAB != nil {
		keyID = s.conf.EAB.KeyID
	}
	r, err := s.env.accounts(ctx, s.conf.directory(), s.conf.Email, keyID)
	if err != nil {
		// A second account does less harm than no certificate.
		s.env.log.WarnContext(ctx, "looking for an account to adopt", "issuer", s.id, "err", err)
	}
	return r
}

// Store implements acmeflow.AccountStore.
func (s *accountStore) Store(ctx context.Context, r acmeflow.AccountRecord) error {
	stored := records.Account(r)
	return s.env.records.StoreAccount(ctx, s.id, &stored)
}

// Lock implements acmeflow.AccountStore. It gives the slot of the flight
// back while another instance has the lease.
func (s *accountStore) Lock(ctx context.Context) (context.Context, func(), error) {
	back := idleSoon(ctx)
	lease, err := s.env.locker.Lock(ctx, accountLock(s.id))
	back()
	if err != nil {
		return nil, nil, err
	}
	return lease.Context(), func() { s.env.unlock(ctx, lease) }, nil
}

// accountLock is the name of the lease under which an account is made and stored.
func accountLock(issuer string) string { return "account/" + issuer }
