package acmeflow

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/mholt/acmez/v3/acme"
)

// EAB is an external account binding (RFC 8555 §7.3.4).
type EAB struct {
	KeyID  string
	MACKey string // base64url or base64, padded or not
}

// AccountRecord is an account as it is stored. The key is stored before the CA
// is asked to register it; Location is empty until it has.
type AccountRecord struct {
	Directory string   `json:"directory"`
	Location  string   `json:"location,omitempty"`
	Contact   []string `json:"contact,omitempty"`
	EABKeyID  string   `json:"eab_key_id,omitempty"`
	KeyPEM    string   `json:"key"`
}

// AccountStore keeps the one account of a [Client]. Load's error satisfies
// errors.Is(err, fs.ErrNotExist) when there is none; a record that cannot be
// read is reported as an error that is none of those.
type AccountStore interface {
	Load(ctx context.Context) (AccountRecord, error)
	Store(ctx context.Context, r AccountRecord) error
	// Lock excludes every other instance that could make the account. The
	// context it returns ends when the lock is lost.
	Lock(ctx context.Context) (held context.Context, unlock func(), err error)
}

// ParseMACKey decodes an EAB key in any of the forms in which CAs hand it out.
// Its error does not repeat the key.
func ParseMACKey(s string) ([]byte, error) {
	s = strings.TrimRight(strings.TrimSpace(s), "=")
	s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	key, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(key) == 0 {
		return nil, errors.New("the MAC key is not base64url text")
	}
	return key, nil
}

// account is the account in use, with what acmez signs by.
type account struct {
	acme.Account
	thumbprint string // of the key (RFC 7638); empty when there is no usable key
	eabKeyID   string
}

// setKey reports a key that cannot be an account's: it is RSA or ECDSA.
func (a *account) setKey(key crypto.Signer) (err error) {
	a.PrivateKey = key
	a.thumbprint, err = a.Thumbprint()
	return err
}

// accountAfter returns an account that is not old, which the CA does not know
// any more; old is nil when there was none yet. It is registered when there is
// none. Waiters share one registration.
func (c *Client) accountAfter(ctx context.Context, old *account) (*account, error) {
	ctx, err := c.acctMu.lock(ctx)
	if err != nil {
		return nil, &Error{Step: StepAccount, Err: err}
	}
	defer c.acctMu.unlock()
	if c.account == old {
		lost := ""
		if old != nil {
			lost = old.Location
		}
		a, err := c.loadOrRegister(ctx, lost)
		if err != nil {
			return nil, err
		}
		c.account = a
	}
	return c.account, nil
}

// Identity returns the account's URL, for which one is registered when there is
// none, and by which names the CA goes in DNS records (caaIdentities, RFC 8555
// §7.1.1).
func (c *Client) Identity(ctx context.Context) (account string, caaIdentities []string, err error) {
	a, err := c.accountAfter(ctx, nil)
	if err != nil {
		return "", nil, err
	}
	dir, err := c.directory(ctx)
	if err != nil {
		return "", nil, err
	}
	if dir.Meta != nil {
		caaIdentities = dir.Meta.CAAIdentities
	}
	return a.Location, caaIdentities, nil
}

// loadOrRegister takes the stored account unless it is the lost one, and else
// makes one under the store's lock.
func (c *Client) loadOrRegister(ctx context.Context, lost string) (*account, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return nil, err
	}
	a, err := c.loadAccount(ctx, dir, lost)
	if err != nil || a.Location != "" && slices.Equal(a.Contact, c.opts.Contact) {
		return a, err
	}
	ctx, unlock, err := c.opts.Accounts.Lock(ctx)
	if err != nil {
		return nil, &Error{Step: StepAccount, Err: fmt.Errorf("locking the account: %w", err)}
	}
	defer unlock()
	if a, err = c.loadAccount(ctx, dir, lost); err != nil {
		return nil, err
	}
	if a.Location == "" {
		err = c.register(ctx, a, certpem.P256)
		if e := asError(err); e != nil && (e.Problem.is(badSignatureAlgorithm) || e.Problem.is(badPublicKey)) { // F31
			c.log.InfoContext(ctx, "the CA takes no ECDSA account key; registering with an RSA key", "err", err)
			a = new(account)
			err = c.register(ctx, a, certpem.RSA2048)
		}
	}
	if err == nil && !slices.Equal(a.Contact, c.opts.Contact) {
		err = c.setContact(ctx, a)
	}
	return a, err
}

// loadAccount returns the stored account: without a thumbprint when there is
// none, or a damaged one, which is then made anew, and without a Location when it
// cannot sign requests to this CA. Its URL is never sent to a CA of another origin.
func (c *Client) loadAccount(ctx context.Context, dir *directory, lost string) (*account, error) {
	rec, err := c.opts.Accounts.Load(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return new(account), nil
	case err != nil:
		return nil, &Error{Step: StepAccount, Err: fmt.Errorf("loading the account: %w", err)}
	case c.opts.EAB != nil && rec.EABKeyID != "" && rec.EABKeyID != c.opts.EAB.KeyID:
		// An account without a binding on record is kept: the binding's key may be
		// good for one registration only.
		c.log.InfoContext(ctx, "the external account binding was changed; a new account is registered", "account", rec.Location)
		return new(account), nil
	}
	a := &account{Account: acme.Account{Contact: rec.Contact}, eabKeyID: rec.EABKeyID}
	key, err := certpem.DecodeKey([]byte(rec.KeyPEM))
	if err == nil {
		err = a.setKey(key)
	}
	if err != nil {
		c.log.WarnContext(ctx, "the stored account key cannot be used; a new account is registered", "err", err)
		return new(account), nil
	}
	if rec.Directory == c.opts.Directory && rec.Location != lost && (sameOrigin(rec.Location, dir.NewAccount) || sameOrigin(rec.Location, rec.Directory)) {
		a.Location = rec.Location
	}
	return a, nil
}

func sameOrigin(a, b string) bool {
	ua, err1 := url.Parse(a)
	ub, err2 := url.Parse(b)
	return err1 == nil && err2 == nil && ua.Scheme == ub.Scheme && strings.EqualFold(ua.Host, ub.Host)
}

// register finds the account of a's key at the CA, or makes it; without a key it
// gets a new one. The key is stored first, so that an account that was made is
// never lost.
func (c *Client) register(ctx context.Context, a *account, keyType certpem.KeyType) error {
	known := a.thumbprint != "" // the CA may have an account for this key
	if !known {
		key, err := certpem.GenerateKey(keyType)
		if err == nil {
			err = a.setKey(key)
		}
		if err != nil {
			return &Error{Step: StepAccount, Err: err}
		}
	}
	if a.eabKeyID = ""; c.opts.EAB != nil {
		a.eabKeyID = c.opts.EAB.KeyID
	}
	err := c.storeAccount(ctx, a)
	if err == nil && known {
		err = c.findAccount(ctx, a)
	}
	if err == nil && a.Location == "" {
		err = c.newAccount(ctx, a)
	}
	if err != nil {
		return err
	}
	return c.storeAccount(ctx, a)
}

func (c *Client) storeAccount(ctx context.Context, a *account) error {
	key, err := certpem.EncodeKey(a.PrivateKey)
	if err == nil {
		err = c.opts.Accounts.Store(ctx, AccountRecord{c.opts.Directory, a.Location, a.Contact, a.eabKeyID, string(key)})
	}
	if err != nil {
		return &Error{Step: StepAccount, Err: fmt.Errorf("storing the account: %w", err)}
	}
	return nil
}

// findAccount asks for the account of a's key without making one (RFC 8555
// §7.3.1). Some CAs do not say by the proper type that there is none, or ask for
// a binding before they look.
func (c *Client) findAccount(ctx context.Context, a *account) error {
	x, err := c.call(ctx, StepAccount, func(ctx context.Context, api *acme.Client) error {
		_, err := api.GetAccount(ctx, acme.Account{PrivateKey: a.PrivateKey})
		return err
	})
	if err != nil {
		p := x.problem
		if p != nil && !p.is(rateLimited) && !p.is(badNonce) && (p.Status == 400 || p.is(accountDoesNotExist) || p.is(externalAccountRequired)) {
			return nil
		}
		return err
	}
	a.Location = x.location
	return nil
}

func (c *Client) newAccount(ctx context.Context, a *account) error {
	want := acme.Account{Contact: c.opts.Contact, TermsOfServiceAgreed: true, PrivateKey: a.PrivateKey}
	x, err := c.call(ctx, StepAccount, func(ctx context.Context, api *acme.Client) error {
		if c.opts.EAB != nil {
			mac, err := ParseMACKey(c.opts.EAB.MACKey)
			if err != nil {
				return err
			}
			eab := acme.EAB{KeyID: c.opts.EAB.KeyID, MACKey: base64.RawURLEncoding.EncodeToString(mac)}
			if err := want.SetExternalAccountBinding(ctx, api, eab); err != nil {
				return err
			}
		}
		_, err := api.NewAccount(ctx, want)
		return err
	})
	switch {
	case err != nil:
		return err
	case x.location == "":
		return &Error{Step: StepAccount, URL: x.url, Err: fmt.Errorf("the CA's reply names no account URL (Location header, RFC 8555 §7.3): %s", x.firstBytes())}
	}
	c.log.InfoContext(ctx, "registered an account", "account", x.location)
	a.Location, a.Contact = x.location, c.opts.Contact
	return nil
}

// setContact tells the CA of another contact (RFC 8555 §7.3.2). That it refuses
// keeps nobody from getting a certificate; it is told again at the next start.
func (c *Client) setContact(ctx context.Context, a *account) error {
	_, err := c.call(ctx, StepAccount, func(ctx context.Context, api *acme.Client) error {
		// acmez's InitiateChallenge posts any payload; its UpdateAccount cannot
		// send that there is no contact any more.
		_, err := api.InitiateChallenge(ctx, a.Account, acme.Challenge{URL: a.Location, Payload: map[string][]string{"contact": append([]string{}, c.opts.Contact...)}})
		return err
	})
	switch e := asError(err); {
	case e == nil:
		a.Contact = c.opts.Contact
		return c.storeAccount(ctx, a)
	case e.Problem.is(accountDoesNotExist) || ctx.Err() != nil:
		return err
	}
	c.log.WarnContext(ctx, "the CA did not take over the account's new contact", "err", err)
	return nil
}
