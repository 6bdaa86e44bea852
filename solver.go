package certwright

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/guard"
	"github.com/certwright/certwright/internal/records"
)

// The DNS challenge types: RFC 8555 §8.4, draft-ietf-acme-dns-account-label and
// draft-ietf-acme-dns-persist.
const (
	dns01        = "dns-01"
	dnsAccount01 = "dns-account-01"
	dnsPersist01 = "dns-persist-01"
)

const (
	// cleanUpPatience is for how long a Solver's CleanUp is waited for.
	cleanUpPatience = 15 * time.Second

	// cleanUpTimeout is what a CleanUp of the caller's is given.
	cleanUpTimeout = time.Minute
)

// ownBound is one of the Manager's own Solvers, whose CleanUp costs no certificate,
// whatever its storage does.
type ownBound struct {
	acmeflow.Solver
	calls *calls
}

func (b ownBound) CleanUp(ctx context.Context, ch acmeflow.Challenge) error {
	return b.calls.do(cleanUpOf(ch.Type, ch.Identifier), cleanUpPatience, func() error { return b.Solver.CleanUp(ctx, ch) })
}

func cleanUpOf(challengeType, name string) string {
	return fmt.Sprintf("the clean-up of %s for %s", challengeType, name)
}

// callerSolver makes an acmeflow.Solver of a caller's. What it presents is in the
// journal of the attempt, which is in the context, until it is cleaned up.
type callerSolver struct {
	s      Solver
	issuer string // ID
}

// newCallerSolver returns an acmeflow.Waiter if s is a Waiter.
func newCallerSolver(s Solver, issuer string) acmeflow.Solver {
	c := &callerSolver{s, issuer}
	if w, ok := s.(Waiter); ok {
		return &callerWaiter{c, w}
	}
	return c
}

func (c *callerSolver) Present(ctx context.Context, ch acmeflow.Challenge) error {
	defer idleSoon(ctx)()
	j := journalOf(ctx)
	e, err := j.note(ctx, c.entry(j, ch))
	if err != nil {
		return err
	}
	return c.s.Present(ctx, j.challenge(e, string(acmeflow.StepPresent)))
}

func (c *callerSolver) CleanUp(ctx context.Context, ch acmeflow.Challenge) error {
	j := journalOf(ctx)
	key := c.entry(j, ch).Key()
	e := j.entry(key)
	if e == nil { // it was not presented; what others left has been cleaned up before
		return nil
	}
	err := j.cleanUp(ctx, c.s, e)
	if err != nil {
		j.m.leftovers.soon()
	}
	return err
}

// entry returns a new entry for a challenge.
func (c *callerSolver) entry(j *journal, ch acmeflow.Challenge) *records.JournalEntry {
	e := &records.JournalEntry{
		Bundle: j.id, Issuer: c.issuer, Type: ch.Type, Name: ch.Identifier, Wildcard: ch.Wildcard, Token: ch.Token,
		KeyAuthorization: ch.KeyAuthorization, Account: ch.Account, Noted: time.Now().UTC().Truncate(time.Second),
	}
	e.DNSName, e.DNSValue = txtRecord(ch)
	return e
}

// callerWaiter is a callerSolver of a Waiter.
type callerWaiter struct {
	*callerSolver
	w Waiter
}

func (c *callerWaiter) Wait(ctx context.Context, ch acmeflow.Challenge) error {
	defer idleSoon(ctx)()
	j := journalOf(ctx)
	e := j.entry(c.entry(j, ch).Key())
	if e == nil {
		return nil
	}
	return c.w.Wait(ctx, j.challenge(e, string(acmeflow.StepWait)))
}

// txtRecord returns the TXT record for a challenge, empty when it has none.
func txtRecord(ch acmeflow.Challenge) (name, value string) {
	switch ch.Type {
	case dns01, dnsAccount01:
		sum := sha256.Sum256([]byte(ch.KeyAuthorization))
		name, value = "_acme-challenge."+ch.Identifier, base64.RawURLEncoding.EncodeToString(sum[:])
		if ch.Type == dnsAccount01 {
			label := sha256.Sum256([]byte(ch.Account))
			name = "_" + strings.ToLower(base32.StdEncoding.EncodeToString(label[:10])) + "." + name
		}
	case dnsPersist01:
		account := ch.AccountURI
		if account == "" {
			account = ch.Account
		}
		if len(ch.IssuerDomains) > 0 {
			r := persistRecord(ch.Identifier, ch.IssuerDomains[0], account, ch.Wildcard)
			name, value = r.Name, r.Value
		}
	}
	return name, value
}

// persistRecord is the record for dns-persist-01. It says nothing of an end: it is
// good for as long as it stands.
func persistRecord(name, issuerDomain, account string, wildcard bool) TXTRecord {
	value := issuerDomain + "; accounturi=" + account
	if wildcard {
		value += "; policy=wildcard"
	}
	return TXTRecord{Name: "_validation-persist." + name, Value: value}
}

// checkSolver asks a Solver that can say so what it cannot do. names is nil in New.
func checkSolver(challengeType string, s Solver, names []string) *ConfigError {
	c, ok := s.(interface {
		Check(challengeType string, names []string) error
	})
	if !ok {
		return nil
	}
	err := <-guard.Call(nil, "its Check", func() error { return c.Check(challengeType, names) })
	if err == nil {
		return nil
	}
	field := fmt.Sprintf("ACME.Solvers[%q]", challengeType)
	if ce, ok := err.(*ConfigError); ok && ce != nil { //nolint:errorlint // one further in is of something else
		field, err = field+"."+ce.Field, ce.Err
	}
	return &ConfigError{Field: field, Err: err}
}
