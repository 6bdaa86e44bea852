package records

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Kinds of records, as their first lines have them.
const (
	kindBundle      = "bundle"
	kindOrder       = "order"
	kindHold        = "hold"
	kindRenewalInfo = "renewal-info"
	kindStaple      = "staple"
	kindAccount     = "account"
	kindChanges     = "changes"
	kindCleaned     = "cleaned"
	kindProbe       = "probe"
	kindJournal     = "journal"
)

// Order is an order in progress: what is needed to go on with it after a crash.
// It has a key of its own, and is of one issuer: another order, and another
// issuer's, has another key.
type Order struct {
	Names    []string      `json:"names"`
	Profile  string        `json:"profile,omitempty"`
	Lifetime time.Duration `json:"lifetime,omitempty"` // that was asked for; 0: the issuer chose
	Created  time.Time     `json:"created"`
	Issuer   string        `json:"issuer"`          // the issuer's ID
	KeyPEM   string        `json:"key"`             // PKCS #8
	State    []byte        `json:"state,omitempty"` // what the issuer saved last
}

// String returns whose order it is: it does not show the key.
func (o Order) String() string { return fmt.Sprintf("order of %v at %s", o.Names, o.Issuer) }

// LoadOrder returns the order of an issuer for the bundle of that ID. When there
// is none the error satisfies errors.Is(err, fs.ErrNotExist).
func (r *Records) LoadOrder(ctx context.Context, id, issuer string) (*Order, error) {
	var o Order
	key := orderKey(id, issuer)
	if err := r.loadJSON(ctx, key, kindOrder, &o); err != nil {
		return nil, err
	}
	if o.Issuer != issuer {
		return nil, fmt.Errorf("reading %q: it is an order of %q: %w", key, o.Issuer, fs.ErrNotExist)
	}
	return &o, nil
}

// StoreOrder stores an order for the bundle of that ID at its issuer.
func (r *Records) StoreOrder(ctx context.Context, id string, o *Order) error {
	return r.storeJSON(ctx, orderKey(id, o.Issuer), kindOrder, o)
}

// DropOrder forgets the order of an issuer for the bundle of that ID.
func (r *Records) DropOrder(ctx context.Context, id, issuer string) error {
	return r.Delete(ctx, orderKey(id, issuer))
}

const (
	// clockSkew is how far the clock of whoever noted a hold may be ahead.
	clockSkew = 2 * 60
	// longestHold is longer than any wait that a CA asks for and that is kept.
	longestHold = 8 * 24 * 60 * 60
)

// Hold is a "not before" of one issuer's account, for the account as a whole or
// for a subject: an identifier, or the ID of a bundle. Times are Unix seconds.
type Hold struct {
	Account  string  `json:"account"` // the issuer's ID
	Subject  string  `json:"subject,omitempty"`
	Noted    int64   `json:"noted"`
	Until    int64   `json:"until"`
	Last     int64   `json:"last,omitempty"` // the last attempt
	ByCA     bool    `json:"by_ca,omitempty"`
	Attempts int     `json:"attempts,omitempty"` // failed in a row
	Failed   []int64 `json:"failed,omitempty"`   // failed validations of the last hour
	Error    string  `json:"error,omitempty"`
}

// Counts reports whether the hold is to be kept at now, Unix seconds. One that
// no wait explains does not count: a clock was wrong when it was noted. A nil
// Hold counts for nothing.
func (h *Hold) Counts(now int64) bool {
	return h != nil && h.Noted-clockSkew <= now && now < h.Until && h.Until-h.Noted <= longestHold
}

// FailedSince returns when validations have failed at or after t, Unix seconds,
// which is at most an hour ago, the first one first. Those that a clock that was
// wrong has put into the future do not count. There are none for a nil Hold.
func (h *Hold) FailedSince(t int64) (list []int64) {
	if h == nil {
		return nil
	}
	for _, at := range h.Failed {
		if t <= at && at <= t+60*60+clockSkew {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	return list
}

// LoadHold returns the hold of an account for a subject; the empty subject is
// the account as a whole. When there is none the error satisfies errors.Is(err,
// fs.ErrNotExist).
func (r *Records) LoadHold(ctx context.Context, account, subject string) (*Hold, error) {
	var h Hold
	key := holdKey(account, subject)
	if err := r.loadJSON(ctx, key, kindHold, &h); err != nil {
		return nil, err
	}
	if h.Account != account || h.Subject != subject {
		return nil, fmt.Errorf("reading %q: it is a hold of %q for %q: %w", key, h.Account, h.Subject, fs.ErrNotExist)
	}
	return &h, nil
}

// StoreHold stores a hold for its account and subject.
func (r *Records) StoreHold(ctx context.Context, h *Hold) error {
	return r.storeJSON(ctx, holdKey(h.Account, h.Subject), kindHold, h)
}

// DropHold forgets the hold of an account for a subject.
func (r *Records) DropHold(ctx context.Context, account, subject string) error {
	return r.Delete(ctx, holdKey(account, subject))
}

// RenewalInfo is a CA's suggestion for a bundle's leaf (RFC 9773 §4.2).
type RenewalInfo struct {
	Serial         string    `json:"serial"` // as of Bundle.Serial
	Start          time.Time `json:"start"`
	End            time.Time `json:"end"`
	Refresh        time.Time `json:"refresh"` // when to ask again
	ExplanationURL string    `json:"explanation_url,omitempty"`
	Odd            bool      `json:"odd,omitempty"` // the last answer made no sense
}

// LoadRenewalInfo returns what is stored for the bundle of that ID. When there
// is nothing the error satisfies errors.Is(err, fs.ErrNotExist).
func (r *Records) LoadRenewalInfo(ctx context.Context, id string) (*RenewalInfo, error) {
	var i RenewalInfo
	if err := r.loadJSON(ctx, keyOf(RenewalInfos, id), kindRenewalInfo, &i); err != nil {
		return nil, err
	}
	return &i, nil
}

// StoreRenewalInfo stores a suggestion for the bundle of that ID.
func (r *Records) StoreRenewalInfo(ctx context.Context, id string, i *RenewalInfo) error {
	return r.storeJSON(ctx, keyOf(RenewalInfos, id), kindRenewalInfo, i)
}

// DropRenewalInfo forgets the suggestion for the bundle of that ID.
func (r *Records) DropRenewalInfo(ctx context.Context, id string) error {
	return r.Delete(ctx, keyOf(RenewalInfos, id))
}

// Staple is an OCSP response for a bundle's leaf.
type Staple struct {
	Serial string    `json:"serial"` // as of Bundle.Serial
	Raw    []byte    `json:"raw"`    // DER (RFC 6960)
	Asked  time.Time `json:"asked"`
}

// LoadStaple returns what is stored for the bundle of that ID. When there is
// nothing the error satisfies errors.Is(err, fs.ErrNotExist).
func (r *Records) LoadStaple(ctx context.Context, id string) (*Staple, error) {
	var s Staple
	if err := r.loadJSON(ctx, keyOf(Staples, id), kindStaple, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// StoreStaple stores a response for the bundle of that ID.
func (r *Records) StoreStaple(ctx context.Context, id string, s *Staple) error {
	return r.storeJSON(ctx, keyOf(Staples, id), kindStaple, s)
}

// DropStaple forgets the response for the bundle of that ID.
func (r *Records) DropStaple(ctx context.Context, id string) error {
	return r.Delete(ctx, keyOf(Staples, id))
}

// Account is an issuer's account at its CA. The key is stored before the CA is
// asked to register it; Location is empty until it has.
type Account struct {
	Directory string   `json:"directory"`
	Location  string   `json:"location,omitempty"`
	Contact   []string `json:"contact,omitempty"`
	EABKeyID  string   `json:"eab_key_id,omitempty"`
	KeyPEM    string   `json:"key"`
}

// String returns the account's URL: it does not show the key.
func (a Account) String() string { return fmt.Sprintf("account %q at %s", a.Location, a.Directory) }

// LoadAccount returns the account of the issuer of that ID. When there is none
// the error satisfies errors.Is(err, fs.ErrNotExist).
func (r *Records) LoadAccount(ctx context.Context, issuer string) (*Account, error) {
	var a Account
	if err := r.loadJSON(ctx, keyOf(Accounts, component(issuer)), kindAccount, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// StoreAccount stores the account of the issuer of that ID.
func (r *Records) StoreAccount(ctx context.Context, issuer string, a *Account) error {
	return r.storeJSON(ctx, keyOf(Accounts, component(issuer)), kindAccount, a)
}

// DropAccount forgets the account of the issuer of that ID.
func (r *Records) DropAccount(ctx context.Context, issuer string) error {
	return r.Delete(ctx, keyOf(Accounts, component(issuer)))
}

// Cleaned says when the storage was cleaned last, by whichever instance.
type Cleaned struct {
	At      time.Time `json:"at"`
	Removed int       `json:"removed"`
}

// LoadCleaned returns what is stored. When there is nothing the error satisfies
// errors.Is(err, fs.ErrNotExist).
func (r *Records) LoadCleaned(ctx context.Context) (Cleaned, error) {
	var c Cleaned
	err := r.loadJSON(ctx, keyCleaned, kindCleaned, &c)
	return c, err
}

// StoreCleaned stores c.
func (r *Records) StoreCleaned(ctx context.Context, c Cleaned) error {
	return r.storeJSON(ctx, keyCleaned, kindCleaned, c)
}

// Probe returns nil when the storage as a whole works: what is stored can be
// loaded again. What another instance stores meanwhile is as good.
func (r *Records) Probe(ctx context.Context) error {
	var p struct {
		At time.Time `json:"at"`
	}
	p.At = time.Now().UTC()
	if err := r.storeJSON(ctx, keyProbe, kindProbe, p); err != nil {
		return err
	}
	return r.loadJSON(ctx, keyProbe, kindProbe, &p)
}
