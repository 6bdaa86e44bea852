package certwright

import (
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
	Running  int           // names being worked on
	Waiting  int           // names that wait for their time or for a worker
	Oldest   time.Duration // for how long the longest of them has been running
	Panics   int           // recovered panics since the start
	Managed  int           // managed certificates
	Failing  int           // of them, those whose last attempt failed
	Degraded string        // the last failure to keep or read something in storage
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
	j := c.open()
	s := NameStatus{
		Name: c.Names[0], Names: slices.Clone(c.Names), KeyType: c.keyType.keyType(),
		NextAction: j.next.action(), NextAt: j.nextAt, Revoked: j.revoked,
		WindowStart: j.window.start, WindowEnd: j.window.end, ExplanationURL: j.ari.ExplanationURL,
		Attempts: j.state.Attempts, LastAttempt: j.state.Last, LastError: j.state.Error,
	}
	if b := j.served; b != nil {
		s.Issuer, s.Serial = b.issuer, b.serial()
		f := j.facts(b)
		s.NotBefore, s.NotAfter = f.NotBefore, f.NotAfter
		s.RenewAt = j.renewAt(b, j.window)
	}
	if j.staple != nil && j.staple.Status == revocation.Good {
		s.StapleNextUpdate = j.staple.NextUpdate
	}
	c.mu.Lock()
	if c.act != nil {
		s.Degraded = c.act.degraded
	}
	c.mu.Unlock()
	s.State = stateOf(s, time.Now())
	return s
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
	h := Health{LastWake: q.LastWake, NextDue: q.NextDue, Running: q.Running, Waiting: q.Waiting, Panics: q.Panics}
	if !q.OldestSince.IsZero() {
		h.Oldest = time.Since(q.OldestSince)
	}
	for _, c := range m.added() {
		h.Managed++
		c.mu.Lock()
		if r := c.has.rare; r != nil && r.state.Error != "" {
			h.Failing++
		}
		c.mu.Unlock()
	}
	m.mu.Lock()
	h.Degraded = m.lastDegraded
	m.mu.Unlock()
	return h
}

// publish makes what the worker knows visible to Status, and wakes who waits for
// a certificate.
func (c *job) publish(next step, at time.Time) {
	c.next, c.nextAt = next, at
	c.keep()
}
