package certwright

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/revocation"
)

// State sums up how a managed certificate is.
type State string

// The states of a managed certificate.
const (
	StatePending  State = "pending"  // no certificate yet; the first attempt has not ended
	StateValid    State = "valid"    // served, and not due for renewal
	StateRenewing State = "renewing" // served, and due for renewal
	StateFailing  State = "failing"  // served, but the last attempt to renew it failed
	StateExpired  State = "expired"  // expired, and the last attempt to replace it failed or is under way
	StateMissing  State = "missing"  // none, and the last attempt to get one failed
)

// Action is what a Manager does next with a managed certificate. It is empty
// when nothing is planned.
type Action string

// The actions of a Manager.
const (
	ActionLoad          Action = "load"                      // read what storage has, for the first time
	ActionCheck         Action = "check"                     // look at what is due beside the certificate
	ActionRenew         Action = "renew"                     // replace the certificate by a new one
	ActionRetry         Action = "retry"                     // try again what failed
	ActionAwaitSlot     Action = "wait for an order slot"    // go on when ACME.OrderLimit allows an order
	ActionAwaitInstance Action = "wait for another instance" // look at what another instance, which has the lease, has got
	ActionServe         Action = "serve the new certificate" // it is stored, and becomes valid then
	ActionRenewalInfo   Action = "refresh renewal info"      // ask the CA when to renew (RFC 9773)
	ActionStaple        Action = "refresh staple"            // ask for an OCSP response
	ActionExpire        Action = "expire"                    // the certificate in use ends; it is told and replaced
)

// NameStatus is what a managed certificate is and what happens next.
type NameStatus struct {
	Name    string   // the first name
	Names   []string // all names
	KeyType KeyType
	State   State

	// The certificate in use; zero when there is none.
	Issuer              string // issuer ID
	Serial              string // hexadecimal
	NotBefore, NotAfter time.Time
	StapleNextUpdate    time.Time // when the stapled OCSP response ends; zero without one
	Revoked             bool      // by the CA's word; a replacement is under way

	// The CA's suggestion (RFC 9773); zero when there is none.
	WindowStart, WindowEnd time.Time
	ExplanationURL         string

	RenewAt time.Time // when the certificate is renewed; zero without one

	// NextAction is what the Manager does next with the name and NextAt when.
	// Ahead is how many other names come first.
	NextAction Action
	NextAt     time.Time
	Ahead      int

	// Doing is what is being done now, such as "renew: challenge: http-01", and
	// since when; empty when nothing is.
	Doing      string
	DoingSince time.Time

	Attempts    int       // failed attempts in a row
	LastAttempt time.Time // the last one that failed; zero after a success
	LastError   string    // empty after a success
	Degraded    string    // what could not be kept or read in storage; empty when all was
}

// Health is how the Manager's own work goes on. A Manager is healthy when
// LastWake is recent and Oldest is not long ago.
type Health struct {
	LastWake time.Time     // when the schedule last looked for due work
	NextDue  time.Time     // when the next work is due; zero when there is none
	Running  int           // flights under way, of all lanes
	Waiting  int           // names that wait for their time, and flights for a slot
	Oldest   time.Duration // for how long the longest of them has been under way
	Panics   int           // recovered panics since the start
	Managed  int           // managed certificates
	Failing  int           // of them, those whose last attempt failed
	Degraded string        // of one of them, what could not be kept or read in storage; empty when all was
}

// Status returns the state of every managed certificate, sorted by name. It
// asks neither storage nor the CA.
func (m *Manager) Status() []NameStatus {
	var list []NameStatus
	for _, c := range m.all() {
		list = append(list, m.statusOf(c))
	}
	slices.SortFunc(list, func(a, b NameStatus) int { return a.NextAt.Compare(b.NextAt) })
	for i := range list {
		list[i].Ahead = i
	}
	slices.SortFunc(list, func(a, b NameStatus) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		return strings.Compare(strings.Join(a.Names, ",")+string(a.KeyType), strings.Join(b.Names, ",")+string(b.KeyType))
	})
	return list
}

func (m *Manager) statusOf(c *managed) NameStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().Unix()
	s := NameStatus{Name: c.Names[0], Names: slices.Clone(c.Names), KeyType: c.key(), Revoked: c.know&isRevoked != 0}
	if a := c.cur.ari; a != nil {
		s.WindowStart, s.WindowEnd, s.ExplanationURL = wallTime(a.start), wallTime(a.end), a.url
	}
	if b := c.cur.b; b != nil {
		s.Issuer, s.Serial = b.Account(), b.Serial()
		s.NotBefore, s.NotAfter = wallTime(b.NotBefore), wallTime(b.End)
		s.RenewAt = wallTime(renewalTime(b, c.cur.ari, c.cfg.policy))
	}
	if st := c.cur.staple; st != nil && st.Status == revocation.Good {
		s.StapleNextUpdate = st.NextUpdate
	}
	if a := decide(&c.state, now); a.do == doRest && a.at != never {
		s.NextAction, s.NextAt = a.next, wallTime(a.at)
	}
	if c.why != nil {
		m.addTrouble(c, &s, now)
	}
	s.State = stateOf(s, time.Now())
	return s
}

// addTrouble fills in what few certificates have. It needs the mu of c.
func (m *Manager) addTrouble(c *managed, s *NameStatus, now int64) {
	w := c.why
	s.Degraded = w.degraded
	for _, t := range w.tries {
		if h := t.hold; h.Attempts > 0 {
			s.Attempts = max(s.Attempts, h.Attempts)
			if at := wallTime(h.Last); at.After(s.LastAttempt) {
				s.LastAttempt = at
			}
		}
	}
	if w.failing() {
		s.LastError = c.failure(now).Error()
	}
	for d, f := range w.flights {
		if f == nil {
			continue
		}
		if step, detail := f.doing(); deed(d) == doObtain || s.Doing == "" {
			s.Doing, s.DoingSince = deed(d).String(), f.began.Round(0)
			for _, more := range []string{step, detail} {
				if more != "" {
					s.Doing += ": " + more
				}
			}
		}
		if deed(d) == doObtain {
			if at := f.lane.Waits(f.Flight); !at.IsZero() {
				s.NextAction, s.NextAt = ActionAwaitSlot, at
			}
		}
	}
	if isWait(w.err) && !errors.Is(w.err, errTurn) {
		s.NextAction = ActionAwaitInstance
	}
}

// wallTime returns a time in Unix seconds, zero for none.
func wallTime(at int64) time.Time {
	if at == 0 || at == never {
		return time.Time{}
	}
	return time.Unix(at, 0).UTC()
}

func stateOf(s NameStatus, now time.Time) State {
	failed := s.LastError != ""
	switch {
	case s.Serial == "" && failed:
		return StateMissing
	case s.Serial == "":
		return StatePending
	case !now.Before(s.NotAfter):
		return StateExpired
	case failed:
		return StateFailing
	case !s.RenewAt.IsZero() && !now.Before(s.RenewAt):
		return StateRenewing
	}
	return StateValid
}

// Health returns how the Manager's own work goes on.
func (m *Manager) Health() Health {
	q := m.queue.Health()
	h := Health{LastWake: q.LastWake, NextDue: q.NextDue, Waiting: q.Waiting, Panics: q.Panics}
	for _, l := range m.lanes() {
		s := l.Status()
		h.Running += len(s.Flying) + len(s.Abandoned)
		h.Waiting += s.Queued
		h.Panics += s.Panics
		if !s.OldestSince.IsZero() {
			h.Oldest = max(h.Oldest, time.Since(s.OldestSince))
		}
	}
	for _, c := range m.all() {
		h.Managed++
		c.mu.Lock()
		if w := c.why; w != nil {
			if w.failing() {
				h.Failing++
			}
			h.Degraded = cmp.Or(h.Degraded, w.degraded)
		}
		c.mu.Unlock()
	}
	return h
}
