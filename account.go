package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/record"
)

// accountStore keeps the account of one issuer.
type accountStore struct {
	env  *issuerEnv
	id   string
	conf *ACME
}

func (s *accountStore) key() string { return storageKey(keyAccounts, s.id, "account") }

func (s *accountStore) Load(ctx context.Context) (acmeflow.AccountRecord, error) {
	var r acmeflow.AccountRecord
	value, err := s.env.storage.Load(ctx, s.key())
	if errors.Is(err, fs.ErrNotExist) {
		if adopted := s.adopt(ctx); adopted != nil {
			return *adopted, nil
		}
	}
	if err != nil {
		return r, fmt.Errorf("loading %q: %w", s.key(), err)
	}
	if err := record.Decode(kindAccount, value, &r); err != nil {
		if errors.Is(err, record.ErrNewer) {
			return r, fmt.Errorf("reading %q: %w", s.key(), err)
		}
		// A damaged account is made anew: nothing else can be done with it.
		s.env.log.WarnContext(ctx, "the stored account is damaged; registering a new one", "key", s.key(), "err", err)
		return acmeflow.AccountRecord{}, nil
	}
	return r, nil
}

// adopt returns the account that another program had at the CA, nil when none
// is known.
func (s *accountStore) adopt(ctx context.Context) *acmeflow.AccountRecord {
	if s.env.accounts == nil {
		return nil
	}
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

func (s *accountStore) Store(ctx context.Context, r acmeflow.AccountRecord) error {
	return storeRecord(ctx, s.env.storage, recordPlace{s.key(), kindAccount}, r)
}

func (s *accountStore) Lock(ctx context.Context) (context.Context, func(), error) {
	lease, err := s.env.locker.Lock(ctx, storageKey("account", s.id))
	if err != nil {
		return nil, nil, err
	}
	return lease.Context(), func() { unlock(ctx, lease, s.env.log) }, nil
}
