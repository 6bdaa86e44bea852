package certwright

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/keyed"
	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/records"
)

const (
	// passAfter is how old the last attempt has to be for somebody who waits to
	// pass back-off of our own, and mostFailed how many validations of a name may
	// have failed in the last hour for any attempt: public CAs allow five.
	passAfter  = 5 * 60
	mostFailed = 4
	failedFor  = 60 * 60

	// longestDown bounds how long a CA that is down is left alone, unless it says
	// itself how long.
	longestDown = 15 * time.Minute

	// strikes is how many names have to fail at a CA without an answer of its own,
	// and with none to others, before it counts as down.
	strikes = 3

	// answersFor is for how long an answer shows that the CA works.
	answersFor = 2 * time.Minute

	// mostError is how many bytes of an error a hold keeps. It has to fit where it
	// is stored, whatever a CA or an Issuer has to say.
	mostError = 8 << 10

	// accountHoldAge is for how long the account's hold that was read is believed.
	accountHoldAge = time.Minute
)

// issuer is an Issuer in use by the Manager.
type issuer struct {
	Issuer // bound
	id, ca string
	lane   *lane.Lane                   // its orders
	upkeep *lane.Lane                   // questions to its CA beside them
	down   atomic.Pointer[records.Hold] // of the account as a whole; nil: none

	timeout  time.Duration // of an attempt, with what comes before and after it
	turns    keyed.Mutex   // by name
	mu       sync.Mutex    // guards the fields below
	readAt   time.Time     // when down was read from storage
	answered time.Time     // when it last issued or refused a certificate
	strikes  map[string]bool
}

// hasAnswered notes that the CA works, whatever it said.
func (i *issuer) hasAnswered() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answered = time.Now()
	clear(i.strikes)
}

// pass says which back-off of the Manager's own is passed.
type pass struct {
	wish  int64 // what a call of Renew asked for, in Unix nanoseconds: attempts for others do not count; 0: none
	tried bool  // somebody waits for a certificate
}

func (s *state) pass() pass { return pass{wish: s.wish, tried: s.know&isTried != 0} }

// until returns when h lets an issuer be asked; what is past is now. tried is the
// wish that this process asked it for last, 0 for none.
func (p pass) until(h *records.Hold, tried, now int64) int64 {
	free := int64(0) // of failed validations, which count also when the back-off has ended
	if failed := h.FailedSince(now - failedFor); len(failed) >= mostFailed {
		free = failed[len(failed)-mostFailed] + failedFor + 1 // whole seconds were noted
	}
	switch {
	case !h.Counts(now):
		return free
	case h.ByCA:
		return max(h.Until, free)
	case p.wish != 0 && tried != p.wish, p.tried && now-h.Last >= passAfter && free <= now:
		return free
	}
	return max(h.Until, free)
}

// heldUntil returns when an issuer may be asked; what is past is now. One whose
// last call has not returned is left alone for a while.
func (s *state) heldUntil(iss *issuer, now int64) int64 {
	if at := s.stuckUntil(iss.id, now); at > now {
		return at
	}
	p, t := s.pass(), (*try)(nil)
	if s.why != nil {
		t = s.why.tries[iss.id]
	}
	if t == nil {
		return p.until(iss.down.Load(), 0, now)
	}
	at := p.until(iss.down.Load(), t.wish, now)
	if t.hold.Subject != "" { // the account's is the issuer's to keep
		at = max(at, p.until(&t.hold, t.wish, now))
	}
	return max(at, t.holds.until(p, t.wish, now))
}

// until returns when all of l let an issuer be asked: who waits passes one, and not
// another beside it.
func (l holds) until(p pass, tried, now int64) (at int64) {
	for _, h := range l {
		at = max(at, p.until(h, tried, now))
	}
	return at
}

// holds are what is stored against an attempt for one certificate at one issuer,
// by subject: each name, and the certificate itself; and what is stored nowhere and
// belongs to no account, the failed validations of a name and its wildcard together.
type holds map[string]*records.Hold

// loadHolds reads them. What cannot be read counts as none: it never keeps a name
// from being renewed.
func (m *Manager) loadHolds(ctx context.Context, c *managed, iss *issuer) holds {
	m.readAccountHold(ctx, iss)
	list := holds{}
	for _, subject := range append(slices.Clone(c.Names), c.id()) {
		if h := m.loadHold(ctx, iss, subject); h != nil {
			list[subject] = h
		}
	}
	for _, name := range identifiersOf(c.Names) {
		both := &records.Hold{}
		for _, subject := range []string{name, "*." + name} {
			h := list[subject]
			if h == nil && !slices.Contains(c.Names, subject) {
				h = m.loadHold(ctx, iss, subject)
			}
			if h != nil && len(h.Failed) > 0 {
				both.Failed, both.Error = append(both.Failed, h.Failed...), h.Error
			}
		}
		if len(both.Failed) > 0 {
			list["both "+name] = both
		}
	}
	return list
}

// identifiersOf returns what a CA counts validations by, sorted: a name and the
// wildcard below it are one (RFC 8555 §7.1.3).
func identifiersOf(names []string) []string {
	var list []string
	for _, n := range names {
		list = append(list, strings.TrimPrefix(n, "*."))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (m *Manager) loadHold(ctx context.Context, iss *issuer, subject string) *records.Hold {
	h, err := m.records.LoadHold(ctx, iss.id, subject)
	if err == nil {
		return h
	}
	if isNotExist(err) || ctx.Err() != nil {
		return nil
	}
	m.log.Warn("a stored back-off cannot be read and counts as none", "issuer", iss.id, "err", err)
	if isMissing(err) { // it is damaged, and replaced or removed with the next attempt
		return &records.Hold{Account: iss.id, Subject: subject}
	}
	return nil
}

// readAccountHold reads what holds up the whole account, once a minute.
func (m *Manager) readAccountHold(ctx context.Context, iss *issuer) {
	iss.mu.Lock()
	fresh := time.Since(iss.readAt) < accountHoldAge && !iss.readAt.IsZero()
	iss.readAt = time.Now()
	iss.mu.Unlock()
	if fresh {
		return
	}
	if h := m.loadHold(ctx, iss, ""); h != nil {
		iss.down.Store(h)
	}
}

// latest returns the one that holds up longest, a stored one of two that hold up as
// long. It is zero when none does.
func (l holds) latest(now int64) (out records.Hold) {
	last := now
	for _, h := range l {
		at := (pass{}).until(h, 0, now)
		if at > last || at == last && at > now && h.Account != "" {
			last, out = at, *h
		}
	}
	return out
}

// failed returns the names of which validations have failed in the last hour.
func (l holds) failed(now int64) map[string]bool {
	out := map[string]bool{}
	for name, h := range l {
		if len(h.FailedSince(now-failedFor)) > 0 {
			out[name] = true
		}
	}
	return out
}

// hasFailed reports whether there was a failure that was not of the account as a
// whole.
func (l holds) hasFailed() bool {
	for _, h := range l {
		if h.Attempts > 0 {
			return true
		}
	}
	return false
}

// noteFailure stores when an issuer may be asked again for c, and returns the
// hold that ends last.
func (m *Manager) noteFailure(ctx context.Context, c *managed, a attempt, err error) records.Hold {
	now := time.Now()
	asked := askedFor(err, a.left)
	text := err.Error()
	if len(text) > mostError {
		text = strings.ToValidUTF8(text[:mostError], "") + "…"
	}
	h := records.Hold{
		Account: a.iss.id, Noted: now.Unix(), Last: now.Unix(), ByCA: asked > 0 && !isRefused(err) || isProblem(err, "rateLimited"), Error: text,
	}
	if a.iss.isDown(err, a, c.Names[0]) {
		return m.noteDown(ctx, a.iss, h, asked)
	}
	failed := failedValidations(err)
	if len(failed) == 0 {
		failed = map[string]int{c.id(): 0}
	}
	for subject, n := range failed {
		h := h
		h.Subject = subject
		if before := a.holds[subject]; before != nil {
			h.Attempts, h.Failed = before.Attempts, slices.Clone(before.Failed)
		}
		h.Attempts++
		h.Failed = slices.DeleteFunc(h.Failed, func(t int64) bool { return t <= now.Unix()-failedFor || t > now.Unix() })
		for range n {
			h.Failed = append(h.Failed, now.Unix())
		}
		h.Until = now.Add(delay(h.Attempts, a.left, asked)).Unix()
		m.storeHold(ctx, h)
		a.holds[subject] = &h
	}
	return a.holds.latest(now.Unix())
}

// askedFor returns how long not to come back after an error, 0 when it does not say.
// No more is kept than a hold can say. What was refused here is asked for again
// while what is served is good.
func askedFor(err error, left time.Duration) time.Duration {
	asked, _ := RetryAfter(err)
	if isRefused(err) && left > 0 {
		asked = min(asked, max(left/3, 5*time.Minute))
	}
	return min(max(asked, pauseOf(err)), backoff.MaxRetryAfter)
}

// noteDown keeps an issuer from being asked for any name.
func (m *Manager) noteDown(ctx context.Context, iss *issuer, h records.Hold, asked time.Duration) records.Hold {
	if before := iss.down.Load(); before != nil {
		h.Attempts = before.Attempts
	}
	h.Attempts++
	h.Until = time.Now().Add(max(min(delay(h.Attempts, 0, 0), longestDown), asked)).Unix()
	iss.down.Store(&h)
	iss.lane.Stop(time.Unix(h.Until, 0))
	m.storeHold(ctx, h)
	return h
}

func (m *Manager) storeHold(ctx context.Context, h records.Hold) {
	if err := m.records.StoreHold(ctx, &h); err != nil && ctx.Err() == nil {
		m.log.Warn("a back-off could not be stored; it is kept in memory", "issuer", h.Account, "err", err)
	}
}

// noteSuccess forgets what held an issuer up.
func (m *Manager) noteSuccess(ctx context.Context, a attempt) {
	a.iss.hasAnswered()
	a.iss.lane.Resume()
	if a.iss.down.Swap(nil) != nil {
		a.holds[""] = &records.Hold{}
	}
	for subject, h := range a.holds {
		if subject != "" && h.Account == "" { // not stored
			continue
		}
		if err := m.records.DropHold(ctx, a.iss.id, subject); err != nil && ctx.Err() == nil {
			m.log.Warn("a back-off that has ended could not be removed", "issuer", a.iss.id, "err", err)
		}
	}
}

// isDown reports whether a failed attempt says that the CA is down: at once at a
// step that is the same for all names, and at any other once several names got no
// answer while no other name got one. One that has failed before on its own says
// nothing of the CA, unless that is known to be down.
func (i *issuer) isDown(err error, a attempt, name string) bool {
	var e *StepError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Step {
	case string(acmeflow.StepDirectory), string(acmeflow.StepAccount):
		return true
	case string(acmeflow.StepOrder), string(acmeflow.StepFinalize), string(acmeflow.StepDownload):
		if e.Problem != nil && e.Problem.Status < 500 && e.Problem.Status/100 != 3 { // a redirect is a portal's
			i.hasAnswered()
			return false
		}
	default:
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if a.began.Sub(i.answered) < answersFor || a.holds.hasFailed() && i.down.Load() == nil {
		return false
	}
	if i.strikes == nil {
		i.strikes = map[string]bool{}
	}
	i.strikes[name] = true
	return len(i.strikes) >= strikes
}

// failedValidations returns how many validations failed for which identifier.
func failedValidations(err error) map[string]int {
	out := map[string]int{}
	walkErrors(err, func(err error) {
		if e, ok := err.(*StepError); ok { //nolint:errorlint // walkErrors unwraps
			for name, n := range e.validations() {
				out[name] += n
			}
		}
	})
	return out
}

// isProblem reports whether err is a problem document of that ACME type.
func isProblem(err error, kind string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Type == "urn:ietf:params:acme:error:"+kind
}

// pauseOf returns for how long an issuer is left alone that says that the
// account is paused, whichever way it says so, and 0 for any other error.
func pauseOf(err error) time.Duration {
	var p *Problem
	if errors.As(err, &p) && acmeflow.Paused(p.Type, p.Detail, p.Instance) {
		return acmeflow.PausedFor
	}
	return 0
}

// delay is how long to wait after the n-th failure in a row. It is kept below a
// part of the life that the certificate in use has left, and never shorter than
// what the CA asked for.
func delay(n int, left, asked time.Duration) time.Duration {
	d := backoff.Policy{}.Delay(n, rand.Float64())
	if left > 0 {
		d = min(d, max(left/12, 5*time.Minute))
	}
	return max(d, asked)
}

// heldError says why an issuer was not asked.
func heldError(iss *issuer, h *records.Hold, until int64) error {
	why := "after an attempt before"
	if h != nil && h.Error != "" {
		why = "after: " + h.Error
	}
	return &StepError{Issuer: iss.id, Step: "wait", Err: fmt.Errorf("not tried now but at %s, %s", time.Unix(until, 0).UTC().Format(time.RFC3339), why)}
}
