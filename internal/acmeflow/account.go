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

// accountAfter returns an account that is not old, which the CA does not know
// any more; old is nil when there was none yet. It is registered when there is
// none. Waiters share one registration.
func (c *Client) accountAfter(ctx context.Context, old *acme.Account) (*acme.Account, error) {
	if a := c.knownAccount(); a != old {
		return a, nil
	}
	ctx, err := c.acctMu.lock(ctx)
	if err != nil {
		return nil, &Error{Step: StepAccount, Err: err}
	}
	defer c.acctMu.unlock()
	if a := c.knownAccount(); a != old {
		return a, nil
	}
	lost := ""
	if old != nil {
		lost = old.Location
	}
	acct, err := c.loadOrRegister(ctx, lost)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account = &acct
	return c.account, nil
}

// knownAccount returns the account in use, or nil.
func (c *Client) knownAccount() *acme.Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.account
}

// loadOrRegister takes the stored account unless it is the lost one, and else
// makes one under the store's lock.
func (c *Client) loadOrRegister(ctx context.Context, lost string) (acme.Account, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return acme.Account{}, err
	}
	rec, key, err := c.loadAccount(ctx)
	if err != nil {
		return acme.Account{}, err
	}
	if c.usable(dir, rec, key, lost) && slices.Equal(rec.Contact, c.opts.Contact) {
		return rec.account(key), nil
	}
	ctx, unlock, err := c.opts.Accounts.Lock(ctx)
	if err != nil {
		return acme.Account{}, &Error{Step: StepAccount, Err: fmt.Errorf("locking the account: %w", err)}
	}
	defer unlock()
	if rec, key, err = c.loadAccount(ctx); err != nil {
		return acme.Account{}, err
	}
	if c.usable(dir, rec, key, lost) {
		if !slices.Equal(rec.Contact, c.opts.Contact) {
			return c.setContact(ctx, rec, rec.account(key))
		}
		return rec.account(key), nil
	}
	return c.register(ctx, rec, key)
}

// loadAccount returns a nil key when there is no account or a damaged one,
// which is then made anew.
func (c *Client) loadAccount(ctx context.Context) (AccountRecord, crypto.Signer, error) {
	rec, err := c.opts.Accounts.Load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return AccountRecord{}, nil, nil
	}
	if err != nil {
		return AccountRecord{}, nil, &Error{Step: StepAccount, Err: fmt.Errorf("loading the account: %w", err)}
	}
	if c.rebound(rec) {
		c.log.InfoContext(ctx, "the external account binding was changed; a new account is registered", "account", rec.Location)
		return AccountRecord{}, nil, nil
	}
	key, err := certpem.DecodeKey([]byte(rec.KeyPEM))
	if err == nil {
		err = checkAccountKey(key)
	}
	if err != nil {
		c.log.WarnContext(ctx, "the stored account key cannot be used; a new account is registered", "err", err)
		return AccountRecord{}, nil, nil
	}
	return rec, key, nil
}

func checkAccountKey(key crypto.Signer) error {
	switch t, _ := certpem.TypeOf(key.Public()); t {
	case certpem.Ed25519, "":
		return errors.New("an account key is RSA or ECDSA")
	}
	return nil
}

// rebound reports whether the account was made with another external account
// binding than the one that is configured now, and so is not the one wanted. An
// account without one on record is kept: the binding's key may be good for one
// registration only.
func (c *Client) rebound(rec AccountRecord) bool {
	return c.opts.EAB != nil && rec.EABKeyID != "" && rec.EABKeyID != c.opts.EAB.KeyID
}

// usable reports whether a stored account can sign requests to this CA. Its
// URL is never sent to a CA of another origin.
func (c *Client) usable(dir *directory, rec AccountRecord, key crypto.Signer, lost string) bool {
	if key == nil || rec.Location == "" || rec.Location == lost || rec.Directory != c.opts.Directory {
		return false
	}
	return sameOrigin(rec.Location, dir.NewAccount) || sameOrigin(rec.Location, c.opts.Directory)
}

func sameOrigin(a, b string) bool {
	ua, err1 := url.Parse(a)
	ub, err2 := url.Parse(b)
	return err1 == nil && err2 == nil && ua.Scheme == ub.Scheme && strings.EqualFold(ua.Host, ub.Host)
}

func (r AccountRecord) account(key crypto.Signer) acme.Account {
	return acme.Account{Status: acme.StatusValid, Contact: r.Contact, Location: r.Location, PrivateKey: key}
}

// register finds the account of key at the CA or makes it. A CA that takes RSA
// keys only gets one (F31).
func (c *Client) register(ctx context.Context, rec AccountRecord, key crypto.Signer) (acme.Account, error) {
	acct, err := c.registerKey(ctx, rec, key, certpem.P256)
	if e := asError(err); e != nil && e.Problem.is(badSignatureAlgorithm) {
		c.log.InfoContext(ctx, "the CA takes no ECDSA account key; registering with an RSA key", "err", err)
		acct, err = c.registerKey(ctx, AccountRecord{}, nil, certpem.RSA2048)
	}
	return acct, err
}

// registerKey is register for one key, or with a nil key for a new one. The key
// is stored first, so that an account that was made is never lost.
func (c *Client) registerKey(ctx context.Context, rec AccountRecord, key crypto.Signer, keyType certpem.KeyType) (none acme.Account, err error) {
	known := key != nil // the CA may have an account for this key
	if !known {
		if key, err = certpem.GenerateKey(keyType); err != nil {
			return none, &Error{Step: StepAccount, Err: err}
		}
	}
	contact := rec.Contact
	if rec, err = c.newRecord(rec, key); err != nil {
		return none, &Error{Step: StepAccount, Err: err}
	}
	if err := c.storeAccount(ctx, rec); err != nil {
		return none, err
	}
	if known {
		if rec.Location, err = c.findAccount(ctx, key); err != nil {
			return none, err
		}
	}
	found := rec.Location != ""
	if found {
		rec.Contact = contact
	} else {
		if rec.Location, err = c.newAccount(ctx, key); err != nil {
			return none, err
		}
	}
	if err := c.storeAccount(ctx, rec); err != nil {
		return none, err
	}
	if found && !slices.Equal(contact, c.opts.Contact) {
		return c.setContact(ctx, rec, rec.account(key))
	}
	return rec.account(key), nil
}

func (c *Client) newRecord(rec AccountRecord, key crypto.Signer) (AccountRecord, error) {
	keyPEM, err := certpem.EncodeKey(key)
	if err != nil {
		return rec, err
	}
	rec.Directory, rec.Location, rec.Contact, rec.KeyPEM = c.opts.Directory, "", c.opts.Contact, string(keyPEM)
	rec.EABKeyID = ""
	if c.opts.EAB != nil {
		rec.EABKeyID = c.opts.EAB.KeyID
	}
	return rec, nil
}

func (c *Client) storeAccount(ctx context.Context, rec AccountRecord) error {
	if err := c.opts.Accounts.Store(ctx, rec); err != nil {
		return &Error{Step: StepAccount, Err: fmt.Errorf("storing the account: %w", err)}
	}
	return nil
}

// findAccount asks for the account of key without making one (RFC 8555 §7.3.1).
// It returns "" when there is none.
func (c *Client) findAccount(ctx context.Context, key crypto.Signer) (location string, err error) {
	x, err := c.call(ctx, StepAccount, idempotent, func(ctx context.Context, api *acme.Client) error {
		_, err := api.GetAccount(ctx, acme.Account{PrivateKey: key})
		return err
	})
	if err != nil {
		if x != nil && x.problem.saysNoAccount() {
			return "", nil
		}
		return "", err
	}
	var status string
	if set(&status, parseObject(x.body), "status"); status != "" && status != acme.StatusValid {
		return "", &Error{Step: StepAccount, URL: x.location, Err: fmt.Errorf("the account is %s at the CA; another one is made once its record is removed from storage", status)}
	}
	return x.location, nil
}

// saysNoAccount reports whether the reply to a search for an account means that
// there is none. Some CAs do not say so by the proper type, or ask for a
// binding before they look.
func (p *Problem) saysNoAccount() bool {
	switch {
	case p == nil, p.is(rateLimited), p.is(badNonce):
		return false
	}
	return p.Status == 400 || p.is(accountDoesNotExist) || p.is(externalAccountRequired)
}

func (c *Client) newAccount(ctx context.Context, key crypto.Signer) (location string, err error) {
	want := acme.Account{Contact: c.opts.Contact, TermsOfServiceAgreed: true, PrivateKey: key}
	x, err := c.call(ctx, StepAccount, idempotent, func(ctx context.Context, api *acme.Client) error {
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
		return "", err
	case x.location == "":
		return "", &Error{Step: StepAccount, URL: x.url, Err: errors.New("the CA's reply names no account URL (Location header, RFC 8555 §7.3)")}
	}
	c.log.InfoContext(ctx, "registered an account", "account", x.location)
	return x.location, nil
}

// setContact tells the CA of another contact (RFC 8555 §7.3.2). That it refuses
// keeps nobody from getting a certificate; it is told again at the next start.
func (c *Client) setContact(ctx context.Context, rec AccountRecord, acct acme.Account) (acme.Account, error) {
	_, err := c.call(ctx, StepAccount, idempotent, func(ctx context.Context, api *acme.Client) error {
		// acmez's InitiateChallenge posts any payload; its UpdateAccount cannot
		// send that there is no contact any more.
		_, err := api.InitiateChallenge(ctx, acct, acme.Challenge{URL: acct.Location, Payload: map[string][]string{"contact": append([]string{}, c.opts.Contact...)}})
		return err
	})
	if e := asError(err); e != nil && (e.Problem.is(accountDoesNotExist) || ctx.Err() != nil) {
		return acct, err
	}
	if err != nil {
		c.log.WarnContext(ctx, "the CA did not take over the account's new contact", "err", err)
		return acct, nil
	}
	rec.Contact, acct.Contact = c.opts.Contact, c.opts.Contact
	return acct, c.storeAccount(ctx, rec)
}
