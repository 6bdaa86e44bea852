package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/revocation"
	"github.com/certwright/certwright/internal/schedule"
	"github.com/certwright/certwright/storage"
)

// KeyType is the kind of a certificate's key.
type KeyType = certpem.KeyType

// The key types. The zero value of a KeyType means P256.
const (
	P256    = certpem.P256    // ECDSA on P-256, the default
	P384    = certpem.P384    // ECDSA on P-384
	RSA2048 = certpem.RSA2048 // RSA, 2048 bits
	RSA3072 = certpem.RSA3072 // RSA, 3072 bits
	RSA4096 = certpem.RSA4096 // RSA, 4096 bits
)

// keyTypes are those that can be asked for.
var keyTypes = [...]KeyType{P256, P384, RSA2048, RSA3072, RSA4096}

// settings say how a managed certificate is issued. They are replaced, not
// changed, and many certificates share one.
type settings struct {
	issuers    []*issuer
	profile    string
	mustStaple bool
	staples    bool // OCSP responses are stapled
	anyKey     bool // there is one key type, so that an adopted certificate may have another
	lifetime   time.Duration
	policy     renewalPolicy
}

// wants reports whether b comes from one of the CAs that are asked.
func (s *settings) wants(b *records.Bundle) bool {
	if b.Has(records.Adopted) {
		return true // until its renewal, which asks for what is configured
	}
	for _, iss := range s.issuers {
		if iss.ca == b.CA() {
			return true
		}
	}
	return false
}

// managed is one certificate that the Manager keeps. There is one for every
// certificate, for as long as it is managed, so it is kept small.
//
// Its place in the cache and its place in the schedule are part of it.
type managed struct {
	certcache.Entry // Names

	m       *Manager
	keyType uint8 // index in keyTypes
	rank    uint8 // among the key types of its names; guarded by mu

	mu sync.Mutex // guards the state; taken after the Manager's, never held during I/O, a callback or a log line
	state
}

// state is what is known of a managed certificate. It is changed only by
// [Manager.change], and [decide] says what follows from it. Times are Unix
// seconds, 0 for at once, never for never.
type state struct {
	task   schedule.Task
	cfg    *settings
	cur    served          // in the cache
	next   *records.Bundle // stored, to be served once its time has come; nil: none
	why    *trouble        // nil mostly
	busy   deeds           // what is under way
	know   facts
	readAt int64 // storage is read again; 0: need not be
	ariAt  int64 // the CA is asked for renewal info
	ocspAt int64 // the responder is asked
	wish   int64 // Unix nanoseconds: an order that is made from then on is wanted; 0: none
}

// served is what is in the cache. It is replaced, not changed.
type served struct {
	b      *records.Bundle
	staple *revocation.Staple
	ari    *suggestion
}

// stuckFor is for how long, in seconds, the first call that ignores its context
// keeps its like from being made, and each further one for four times as long:
// each holds a place of its lane until it returns.
const stuckFor = 60 * 60

// facts are what is true of a managed certificate.
type facts uint8

const (
	isLoaded   facts = 1 << iota // storage was read
	isExpired                    // the expiry of cur was told
	isRevoked                    // by the CA's word
	isUnwanted                   // the newest covers the names, but another set, key type or CA is configured
	isTried                      // somebody waits: back-off of our own is passed once
)

// trouble is what few certificates have at a time.
type trouble struct {
	gone     error                     // why it is not managed any more; nil while it is
	waiters  []*waiter                 // who waits for something of it
	flights  [deedCount]*flight        // under way
	tries    map[string]*try           // by issuer ID: what came of the last attempts
	orders   map[string]*records.Order // by issuer ID: those that are further than the stored ones
	stuck    map[string][]*flight      // abandoned and not back, by what it works on: that is not begun once more meanwhile
	broken   *records.Bundle           // what was served and cannot be parsed; nil: nothing
	staple   *revocation.Staple        // of the next certificate; nil: none yet
	standins []*standin                // serve single names while there is nothing for all

	retry    int64     // not before, after a failure that is no issuer's
	failures int       // of that kind, in a row
	since    time.Time // the first of them
	err      error     // the last failure that was nobody's but ours; nil after a success
	degraded string    // what could not be kept in storage or read
	by       deed      // what work found that out
	wished   int64     // the wish that the last order met
}

func (t *trouble) isZero() bool {
	for _, f := range t.flights {
		if f != nil {
			return false
		}
	}
	return t.gone == nil && len(t.waiters) == 0 && len(t.tries) == 0 && len(t.orders) == 0 && len(t.stuck) == 0 && t.broken == nil && t.staple == nil &&
		len(t.standins) == 0 && t.retry == 0 && t.err == nil && t.degraded == ""
}

// failing reports whether the last attempt failed. To wait is no failure.
func (t *trouble) failing() bool { return len(t.tries) > 0 || t.err != nil && !isWait(t.err) }

// isWait reports whether an attempt has to wait: for another instance, which has
// the lease, or for an attempt for another certificate.
func isWait(err error) bool {
	return errors.Is(err, errBusy) || errors.Is(err, errTurn) || errors.Is(err, storage.ErrLeaseLost)
}

// try is what came of the last attempts at one issuer.
type try struct {
	hold  records.Hold // the one that ends last
	holds holds        // all; nil: there is no other. They are not changed
	err   error        // of the last attempt in this process; nil: the hold was read from storage
	isNew bool         // it was not reported yet
	wish  int64        // the wish that it was made for; 0: none
}

// flight is work for a certificate that is under way.
type flight struct {
	*lane.Flight
	lane   *lane.Lane
	began  time.Time
	cancel context.CancelFunc
	on     string // what it works on: an issuer's ID, or what kind of flight it is

	mu     sync.Mutex  // guards the fields below
	apply  func(*news) // what it found out; nil until it is back
	isBack bool
	isLost bool   // abandoned before it was back
	lostAt int64  // Unix seconds; set before the flight is known as stuck
	step   string // what is being done
	detail string
	lease  Lease  // held now; nil: none
	turn   func() // ends the turn of the names at the issuer; nil: it has none
}

// work runs do, whose result is applied when it lands. One that was abandoned and
// comes back all the same lets its like be begun again.
func (f *flight) work(ctx context.Context, c *managed, do func(ctx context.Context) func(*news)) {
	defer func() { // also after a panic
		f.mu.Lock()
		f.isBack = true
		isLost := f.isLost
		f.mu.Unlock()
		if isLost {
			c.m.change(c, func(*news) {
				w := c.trouble()
				if left := slices.DeleteFunc(w.stuck[f.on], func(other *flight) bool { return other == f }); len(left) > 0 {
					w.stuck[f.on] = left
				} else {
					delete(w.stuck, f.on)
				}
			})
		}
	}()
	apply := do(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.apply = apply
}

// result returns what the flight found out.
func (f *flight) result() func(*news) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply
}

// noteLostLocked notes a flight that was abandoned and is not back.
func (c *managed) noteLostLocked(f *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isBack {
		return
	}
	f.isLost, f.lostAt = true, time.Now().Unix()
	w := c.trouble()
	if w.stuck == nil {
		w.stuck = map[string][]*flight{}
	}
	w.stuck[f.on] = append(w.stuck[f.on], f)
}

// stuckUntil returns until when nothing is begun on what a flight that was
// abandoned works on, and is not back from; 0 when there is none.
func (s *state) stuckUntil(on string, now int64) int64 {
	if s.why == nil || len(s.why.stuck[on]) == 0 {
		return 0
	}
	list := s.why.stuck[on]
	lost := list[len(list)-1].lostAt
	if lost > now+int64(clockSkew/time.Second) { // by a clock that was ahead
		return 0
	}
	return lost + stuckFor<<min(2*(len(list)-1), 10)
}

// progress notes what is being done.
func (f *flight) progress(step, detail string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.step, f.detail = step, detail
}

// doing says what is being done.
func (f *flight) doing() (step, detail string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.step, f.detail
}

// id is the identity of the certificate in storage.
func (c *managed) id() string { return records.ID(c.Names, c.key()) }

func (c *managed) key() KeyType { return keyTypes[c.keyType] }

// Schedule, Due and String make it work for the schedule.

// Schedule implements schedule.Work.
func (c *managed) Schedule() *schedule.Task { return &c.task }

// Due implements schedule.Work.
func (c *managed) Due() { c.m.change(c, func(*news) {}) }

// String names the certificate in errors of the schedule.
func (c *managed) String() string { return "certificate " + c.id() }

// asManaged returns the certificate that an entry of the cache is a part of, or
// nil for one that is not managed.
func asManaged(e *certcache.Entry) *managed {
	c, _ := e.Owner.(*managed)
	return c
}

// trouble returns what few have, which is there from then on.
func (s *state) trouble() *trouble {
	if s.why == nil {
		s.why = &trouble{}
	}
	return s.why
}

// tidy lets go of what says nothing.
func (s *state) tidy() {
	if s.why != nil && s.why.isZero() {
		s.why = nil
	}
}

func (s *state) isGone() bool { return s.why != nil && s.why.gone != nil }

// newest returns the newest certificate that is stored, nil when there is none.
func (s *state) newest() *records.Bundle {
	if s.next != nil {
		return s.next
	}
	return s.cur.b
}

// usable reports whether a client would accept what is served.
func (s *state) usable(now int64) bool { return s.cur.b != nil && s.cur.b.Usable(now) }

// goodUntil returns until when clients accept what is served, those too that insist
// on a staple; 0 when they do not.
func (s *state) goodUntil(now int64) int64 {
	b, st := s.cur.b, s.cur.staple
	switch {
	case !s.usable(now), st != nil && st.Status == revocation.Revoked:
		return 0
	case !b.Has(records.MustStaple | records.OCSP):
		return b.End
	case !revocation.Usable(st, time.Unix(now, 0)):
		return 0
	}
	return min(b.End, st.End().Unix())
}

// left returns how long the newest certificate is good for, 0 without one.
func (s *state) left(now int64) time.Duration {
	if b := s.newest(); b != nil {
		return time.Duration(max(b.End-now, 0)) * time.Second
	}
	return 0
}

// judge notes whether the newest certificate is what is configured.
func (c *managed) judge() {
	c.know &^= isUnwanted
	b := c.newest()
	if b == nil || b.Has(records.Adopted) { // until its renewal
		return
	}
	if !c.cfg.wants(b) || b.KeyType() != c.key() || b.ID() != c.id() {
		c.know |= isUnwanted
	}
}

// goneError is what who waits for c is told when it is not managed any more.
func (c *managed) goneError() error { return fmt.Errorf("name %q: %w", c.Names[0], c.why.gone) }
