// Package challenge answers http-01 (RFC 8555 §8.3) and tls-alpn-01 (RFC 8737)
// for the instance that presented a challenge and for every other one that
// shares its storage.
package challenge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
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
	// Patience is for how long a challenge is looked for again that the store
	// does not show, because some stores show a value late to other instances.
	// A request for somebody else's token waits as long. Zero is not at all. It
	// must not be changed once the Table is in use.
	Patience time.Duration

	store   Store
	prefix  string
	cert    CertMaker
	waiting chan struct{} // a slot for each request that is patient

	mu   sync.RWMutex // guards http, alpn
	http map[httpKey]Challenge
	alpn map[string][]answer // by identifier, newest last
}

// maxWaiting bounds the patient requests, which strangers can send at will; the
// others are answered with what is known.
const maxWaiting = 64

type httpKey struct{ identifier, token string }

// answer is a tls-alpn-01 challenge with the certificate for it.
type answer struct {
	token string
	cert  *tls.Certificate
}

// New returns an empty Table. Challenges are shared under the key prefix of
// store.
func New(store Store, prefix string, cert CertMaker) *Table {
	return &Table{
		store: store, prefix: prefix, cert: cert, waiting: make(chan struct{}, maxWaiting),
		http: map[httpKey]Challenge{}, alpn: map[string][]answer{},
	}
}

func (t *Table) key(ch Challenge) string {
	return t.folder(ch) + "/" + ch.Token
}

// folder is the key without the token, for errors: a token is in none of them.
func (t *Table) folder(ch Challenge) string {
	return strings.Join([]string{t.prefix, ch.Type, ch.Identifier}, "/")
}

// Present makes ch answerable here at once and, when it returns, on every
// instance that shares the store.
func (t *Table) Present(ctx context.Context, ch Challenge) error {
	if !ValidToken(ch.Token) {
		return errors.New("the CA's token is not base64url text (RFC 8555 §8.1)")
	}
	ch.Presented = time.Now().UTC().Round(0)
	switch ch.Type {
	case HTTP01:
		t.mu.Lock()
		t.http[httpKey{ch.Identifier, ch.Token}] = ch
		t.mu.Unlock()
	case TLSALPN01:
		cert, err := t.cert(ch.Identifier, ch.KeyAuthorization)
		if err != nil {
			return fmt.Errorf("making the challenge's certificate: %w", err)
		}
		t.mu.Lock()
		t.alpn[ch.Identifier] = append(without(t.alpn[ch.Identifier], ch.Token), answer{token: ch.Token, cert: cert})
		t.mu.Unlock()
	default:
		return fmt.Errorf("presenting a challenge of type %q: unknown here", ch.Type)
	}
	if t.store == nil {
		return nil
	}
	value, err := json.Marshal(ch)
	if err != nil {
		return fmt.Errorf("encoding a challenge: %w", err)
	}
	if err := t.store.Store(ctx, t.key(ch), value); err != nil {
		return fmt.Errorf("sharing the challenge for %q: storing below %q: %w", ch.Identifier, t.folder(ch), err)
	}
	return nil
}

// CleanUp removes what Present added. It may be called for a challenge that
// was never presented.
func (t *Table) CleanUp(ctx context.Context, ch Challenge) error {
	t.mu.Lock()
	delete(t.http, httpKey{ch.Identifier, ch.Token})
	if left := without(t.alpn[ch.Identifier], ch.Token); len(left) > 0 {
		t.alpn[ch.Identifier] = left
	} else {
		delete(t.alpn, ch.Identifier)
	}
	t.mu.Unlock()
	if t.store == nil || !ValidToken(ch.Token) {
		return nil
	}
	if err := t.store.Delete(ctx, t.key(ch)); err != nil {
		return fmt.Errorf("removing the challenge for %q: deleting below %q: %w", ch.Identifier, t.folder(ch), err)
	}
	return nil
}

func without(list []answer, token string) []answer {
	var out []answer
	for _, a := range list {
		if a.token != token {
			out = append(out, a)
		}
	}
	return out
}

// Pending returns how many challenges this instance has presented.
func (t *Table) Pending() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := len(t.http)
	for _, list := range t.alpn {
		n += len(list)
	}
	return n
}

// KeyAuthorization returns the answer to a validation request for identifier
// and token (RFC 8555 §8.3), and whether there is one. The store is asked only
// for a token that is well-formed and not known here.
func (t *Table) KeyAuthorization(ctx context.Context, identifier, token string) (string, bool) {
	if !ValidToken(token) {
		return "", false
	}
	t.mu.RLock()
	ch, ok := t.http[httpKey{identifier, token}]
	t.mu.RUnlock()
	if ok {
		return ch.KeyAuthorization, true
	}
	if t.store == nil || identifier == "" {
		return "", false
	}
	key := t.key(Challenge{Type: HTTP01, Identifier: identifier, Token: token})
	found := t.patiently(ctx, func() bool {
		var got Challenge
		value, err := t.store.Load(ctx, key)
		if err != nil || json.Unmarshal(value, &got) != nil {
			return false
		}
		ch = got
		return ch.Token == token && ch.Type == HTTP01 && ch.Identifier == identifier && ch.KeyAuthorization != ""
	})
	if !found {
		return "", false
	}
	return ch.KeyAuthorization, true
}

// patiently calls find until it reports true, the Table's patience is at its
// end or ctx is, and returns what find reported last.
func (t *Table) patiently(ctx context.Context, find func() bool) bool {
	const first = 50 * time.Millisecond
	if find() {
		return true
	}
	if t.Patience <= 0 {
		return false
	}
	select {
	case t.waiting <- struct{}{}:
		defer func() { <-t.waiting }()
	default:
		return false
	}
	end := time.Now().Add(t.Patience)
	for pause := first; ; pause *= 2 {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		if find() {
			return true
		}
	}
}

// Certificate returns the certificate that answers tls-alpn-01 for identifier.
// When several attempts are pending, the newest key authorization wins. The
// error satisfies errors.Is(err, fs.ErrNotExist) when none is.
func (t *Table) Certificate(ctx context.Context, identifier string) (*tls.Certificate, error) {
	t.mu.RLock()
	list := t.alpn[identifier]
	t.mu.RUnlock()
	if n := len(list); n > 0 {
		return list[n-1].cert, nil
	}
	if t.store == nil {
		return nil, fs.ErrNotExist
	}
	var newest Challenge
	var err error
	if !t.patiently(ctx, func() bool { newest, err = t.newest(ctx, identifier); return err == nil }) {
		return nil, err
	}
	return t.cert(identifier, newest.KeyAuthorization)
}

// newest finds the challenge that another instance presented last.
func (t *Table) newest(ctx context.Context, identifier string) (Challenge, error) {
	keys, err := t.store.List(ctx, strings.Join([]string{t.prefix, TLSALPN01, identifier}, "/"))
	if err != nil {
		return Challenge{}, fmt.Errorf("looking for a challenge for %q: %w", identifier, err)
	}
	var newest Challenge
	for _, key := range keys {
		var ch Challenge
		value, err := t.store.Load(ctx, key)
		if err != nil || json.Unmarshal(value, &ch) != nil || ch.Identifier != identifier || ch.Type != TLSALPN01 || ch.Token == "" {
			continue
		}
		if newest.Token == "" || ch.Presented.After(newest.Presented) {
			newest = ch
		}
	}
	if newest.Token == "" {
		return Challenge{}, fs.ErrNotExist
	}
	return newest, nil
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
