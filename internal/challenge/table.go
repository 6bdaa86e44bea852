// Package challenge answers http-01 (RFC 8555 §8.3) and tls-alpn-01 (RFC 8737)
// for the instance that presented a challenge and for every other one that
// shares its storage.
//
// Strangers can ask as often as they like. What this instance presented is
// answered from memory. Anything else is looked for in the storage, for at most
// three seconds: all who ask share a list, so that 20,000 of them at once cost two
// lists. At most 4 lists and 16 loads run at any time, each on one goroutine, with
// one more that starts the lists. A call that goes on although its three seconds
// are over is no longer waited for, and counts until it returns.
package challenge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// The challenge types that a Table answers.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
)

// Store is the part of a storage that is needed. A nil Store keeps challenges
// in memory only.
type Store interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix string) ([]string, error)
}

// Challenge is a pending challenge.
type Challenge struct {
	Type             string    `json:"type"`
	Identifier       string    `json:"identifier"` // normalised DNS name or canonical IP address
	Token            string    `json:"token"`
	KeyAuthorization string    `json:"key_authorization"`
	Presented        time.Time `json:"presented"`
}

// CertMaker makes the self-signed certificate that answers tls-alpn-01
// (RFC 8737 §3).
type CertMaker func(identifier, keyAuthorization string) (*tls.Certificate, error)

// Table holds the pending challenges. It is safe for concurrent use.
type Table struct {
	store Store
	cert  CertMaker
	look  look

	mu   sync.RWMutex        // guards mine
	mine map[string][]answer // what was presented here, by place, newest last
}

// answer is a challenge that was presented here.
type answer struct {
	Challenge
	cert *tls.Certificate // for tls-alpn-01
}

// Options say where challenges are shared and how.
type Options struct {
	// Store is where they are shared; nil keeps them in memory only.
	Store Store
	// Prefix is what their keys begin with; they are flat below it.
	Prefix string
	// Cert makes the certificate that answers tls-alpn-01.
	Cert CertMaker
	// Go starts a goroutine of the owner's run group. It may do nothing once
	// Context has ended, which ends all looks at the Store. Both are needed with
	// a Store only.
	Go      func(func())
	Context context.Context
	// Damaged reports whether an error of the Store says that a value is damaged,
	// and of no use to anybody. nil means that none does.
	Damaged func(error) bool
}

// New returns an empty Table.
func New(o Options) *Table {
	return &Table{store: o.Store, cert: o.Cert, mine: map[string][]answer{}, look: look{
		store: o.Store, prefix: o.Prefix, spawn: o.Go, ctx: o.Context, damaged: o.Damaged, known: map[string]Challenge{},
		listing: make(chan struct{}, lists), loading: make(chan struct{}, loads),
	}}
}

// Present makes ch answerable here at once and, when it returns, on every
// instance that shares the store. ch.Presented is set to the time now. When it
// fails to be shared it is answerable here all the same, until CleanUp.
func (t *Table) Present(ctx context.Context, ch Challenge) error {
	if !ValidToken(ch.Token) {
		return errors.New("the CA's token is not base64url text (RFC 8555 §8.1)")
	}
	ch.Presented = time.Now().UTC().Round(0)
	a := answer{Challenge: ch}
	switch ch.Type {
	case HTTP01:
	case TLSALPN01:
		cert, err := t.cert(ch.Identifier, ch.KeyAuthorization)
		if err != nil {
			return fmt.Errorf("making the challenge's certificate: %w", err)
		}
		a.cert = cert
	default:
		return fmt.Errorf("presenting a challenge of type %q: unknown here", ch.Type)
	}
	t.mu.Lock()
	t.mine[ch.place()] = append(without(t.mine[ch.place()], ch), a)
	t.mu.Unlock()
	if t.store == nil {
		return nil
	}
	value, err := json.Marshal(ch)
	if err != nil {
		return fmt.Errorf("encoding a challenge: %w", err)
	}
	if err := t.store.Store(ctx, t.look.key(ch), value); err != nil {
		return fmt.Errorf("sharing the challenge for %q: %w", ch.Identifier, err)
	}
	return nil
}

// CleanUp removes what Present added, here even when it fails in the store. It
// may be called for a challenge that was never presented.
func (t *Table) CleanUp(ctx context.Context, ch Challenge) error {
	t.mu.Lock()
	left := without(t.mine[ch.place()], ch)
	if len(left) > 0 {
		t.mine[ch.place()] = left
	} else {
		delete(t.mine, ch.place())
	}
	t.mu.Unlock()
	used := slices.ContainsFunc(left, func(a answer) bool { return a.Token == ch.Token }) // the token of two names
	if t.store == nil || used || !ValidToken(ch.Token) {
		return nil
	}
	if err := t.store.Delete(ctx, t.look.key(ch)); err != nil {
		return fmt.Errorf("removing the challenge for %q: %w", ch.Identifier, err)
	}
	return nil
}

// without returns a new list that does not have ch.
func without(list []answer, ch Challenge) []answer {
	var out []answer
	for _, a := range list {
		if a.Identifier != ch.Identifier || a.Token != ch.Token {
			out = append(out, a)
		}
	}
	return out
}

// newest returns the newest challenge that was presented here for a place.
func (t *Table) newest(place string) (a answer, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := t.mine[place]
	if len(list) == 0 {
		return answer{}, false
	}
	return list[len(list)-1], true
}

// KeyAuthorization returns the answer to a validation request for a token (RFC
// 8555 §8.3), and whether there is one. A token cannot be guessed, so it does not
// matter for which host it is asked: proxies put another one in its place. The
// store is looked at only for a token that is well-formed and not known here; a
// store that fails, or has not answered within three seconds, has none.
func (t *Table) KeyAuthorization(ctx context.Context, token string) (string, bool) {
	if !ValidToken(token) {
		return "", false
	}
	if a, ok := t.newest(httpPlace(token)); ok {
		return a.KeyAuthorization, true
	}
	list, err := t.look.find(ctx, httpPlace(token))
	if err != nil || len(list) == 0 {
		return "", false
	}
	return list[0].KeyAuthorization, true
}

// Certificate returns the certificate that answers tls-alpn-01 for identifier.
// When several attempts are pending, the newest key authorization wins. The
// error satisfies errors.Is(err, fs.ErrNotExist) when none is; another one says
// why the store could not be looked at, for three seconds at most.
func (t *Table) Certificate(ctx context.Context, identifier string) (*tls.Certificate, error) {
	if a, ok := t.newest(alpnPlace(identifier)); ok {
		return a.cert, nil
	}
	list, err := t.look.find(ctx, alpnPlace(identifier))
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking for a challenge for %q: %w", identifier, err)
	case len(list) == 0:
		return nil, fmt.Errorf("looking for a challenge for %q: %w", identifier, fs.ErrNotExist)
	}
	newest := slices.MaxFunc(list, func(a, b Challenge) int { return a.Presented.Compare(b.Presented) })
	return t.cert(identifier, newest.KeyAuthorization)
}

// Clean removes from the store what processes left that died: challenges that
// were presented more than ten minutes ago. It returns how many there were. What
// cannot be read stays. It goes on after an error, until ctx has ended.
func (t *Table) Clean(ctx context.Context) (removed int, err error) {
	if t.store == nil {
		return 0, nil
	}
	return t.look.clean(ctx)
}

// ValidToken reports whether s can be a token: base64url characters
// (RFC 8555 §8.1), and not of a size that only serves to do harm.
func ValidToken(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
		if !ok {
			return false
		}
	}
	return true
}
