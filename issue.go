package certwright

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/hostname"
	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

const (
	// lockTimeout bounds the wait for another instance that works on the same
	// name.
	lockTimeout = time.Minute

	// turnPatience bounds the wait for another certificate of the same name: who
	// waits takes up room in the issuer's lane.
	turnPatience = 15 * time.Second

	// moment is the shortest wait for which a slot is given back.
	moment = 100 * time.Millisecond

	// storeFor is for how long an order has to fail to be stored, while other
	// records can be, to be gone without.
	storeFor = time.Hour

	// leastLife is what a new certificate has to be good for: one that ends before
	// is of no use, and would be replaced at once.
	leastLife = 30 * time.Second

	// quickRetry is when work is tried again that failed for no fault of a CA:
	// a lease that was lost, another instance that took too long.
	quickRetry = 10 * time.Second
)

var (
	// errNotStored means that a certificate was issued and could not be stored.
	// It is not served: what is served is stored.
	errNotStored = errors.New("the certificate was issued but is not stored yet")

	// errNotKept means that an order was made and what is needed to go on with
	// it could not be stored. It is kept in memory.
	errNotKept = errors.New("the order is not stored yet")

	// errNotNoted means that the journal of a challenge could not be stored.
	errNotNoted = errors.New("the challenge is not noted in storage")

	// errBusy means that another instance works on the name.
	errBusy = errors.New("another instance is working on it")

	// errTurn means that another certificate for one of the names is being issued.
	errTurn = errors.New("another certificate for the name is being issued")
)

// attempt is one attempt to get a certificate from one issuer.
type attempt struct {
	iss   *issuer
	f     *flight
	cfg   *settings
	cur   *records.Bundle // what is served
	order *records.Order  // one in progress that could not be stored; nil: none
	pass  pass
	began time.Time     // when the issuer was first asked
	left  time.Duration // for which what is served is good
	holds holds
}

// newAttempt takes from the state of c what an attempt needs.
func (m *Manager) newAttempt(c *managed, f *flight, iss *issuer) attempt {
	a := attempt{iss: iss, f: f, cfg: c.cfg, cur: c.newest(), pass: c.pass(), left: c.left(time.Now().Unix())}
	if c.why != nil {
		a.order = c.why.orders[iss.id]
	}
	return a
}

// obtain gets a new certificate for c: from storage when another instance has
// been faster, and else from the issuer. It is the one path of a first issue and
// of a renewal.
func (m *Manager) obtain(ctx context.Context, c *managed, a attempt) func(*news) {
	isAsked, onLane := false, ctx
	defer func() {
		if !isAsked {
			lane.Refund(onLane)
		}
	}()
	defer a.f.abandon(m) // its turn and its lease
	a.f.progress("turn", "")
	if err := a.f.takeTurn(ctx, a.iss, c.Names); err != nil {
		return m.obtainFailed(ctx, c, a, err)
	}
	a.f.progress("lease", "")
	lease, err := m.lockFor(ctx, a.f, records.IssueLock(c.id()))
	if err != nil {
		return m.obtainFailed(ctx, c, a, err)
	}
	ctx = lease.Context()
	old, err := m.records.LoadBundle(ctx, c.id(), time.Now())
	if err != nil && !isMissing(err) {
		return m.obtainFailed(ctx, c, a, err)
	}
	if m.suffices(c, a, old.Bundle) {
		return m.took(c, a, old.Bundle)
	}
	a.holds = m.loadHolds(ctx, c, a.iss)
	now := time.Now().Unix()
	if max(a.holds.until(a.pass, 0, now), a.pass.until(a.iss.down.Load(), 0, now)) > now {
		return func(*news) {
			t := c.tryOf(a.iss)
			t.hold, t.holds = a.holds.latest(now), a.holds
		}
	}
	isAsked, a.began = true, time.Now()
	b, err := m.ask(ctx, c, a, old)
	if err != nil {
		return m.obtainFailed(ctx, c, a, err)
	}
	return m.issued(c, a, old.Bundle, b)
}

// ask calls the issuer, and once more when its error is about an order that was
// made before. A call that panics or ends its goroutine is noted too: a program
// that is started over and over does not ask each time.
func (m *Manager) ask(ctx context.Context, c *managed, a attempt, old records.Stored) (*records.Bundle, error) {
	isBack := false
	defer func() {
		if !isBack {
			m.noteFailure(ctx, c, a, &StepError{Issuer: a.iss.id, Step: "issue", Err: errors.New("the call panicked or ended its goroutine")})
		}
	}()
	ctx = m.journalFor(ctx, c, a)
	b, err := m.issue(ctx, c, a, old)
	if err != nil && mayRetryNow(err) {
		m.dropOrder(ctx, c, a.iss)
		a.order = nil
		b, err = m.issue(ctx, c, a, old)
	}
	isBack = true
	return b, err
}

// takeTurn waits, for a bounded time, until no other attempt at an issuer is for one
// of names: a CA counts the failed validations of a name, whatever certificate it is
// for, and each attempt has to know of those before it. Who waits holds no lease.
func (f *flight) takeTurn(ctx context.Context, iss *issuer, names []string) error {
	turn, err := iss.turnOf(ctx, names)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn = turn
	return err
}

// turnOf waits for the turn of all names.
func (i *issuer) turnOf(ctx context.Context, names []string) (done func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, turnPatience, errTurn)
	defer cancel()
	defer idleSoon(ctx)()
	var held []func()
	done = func() {
		for _, unlock := range held {
			unlock()
		}
	}
	for _, name := range identifiersOf(names) { // sorted, so that no two wait for each other
		unlock, err := i.turns.Lock(ctx, name)
		if err != nil {
			done()
			return nil, err
		}
		held = append(held, unlock)
	}
	return done, nil
}

// isMissing reports whether a record is not there, or is of no use.
func isMissing(err error) bool {
	var damaged *records.DamagedError
	return isNotExist(err) || errors.As(err, &damaged)
}

func isNewer(err error) bool { return errors.Is(err, records.ErrNewer) }

// suffices reports whether a stored certificate makes a new one needless: it is
// another one than the one in use, what is configured, and not due itself. After
// a call of Renew it must be younger than that.
func (m *Manager) suffices(c *managed, a attempt, b *records.Bundle) bool {
	if b == nil || b.Same(a.cur) || !a.cfg.wants(b) || b.ID() != c.id() {
		return false
	}
	if a.pass.wish != 0 && b.Stored <= a.pass.wish/int64(time.Second) {
		return false
	}
	now := time.Now().Unix()
	return now < b.End && now < renewalTime(b, nil, a.cfg.policy)
}

// took makes what another instance stored the certificate of c.
func (m *Manager) took(c *managed, a attempt, b *records.Bundle) func(*news) {
	return func(n *news) {
		m.obtainedLocked(c, a, b)
		n.add(func() { m.emit(c, Event{Kind: EventAdopted}) })
	}
}

// issued makes a new certificate that of c.
func (m *Manager) issued(c *managed, a attempt, old, b *records.Bundle) func(*news) {
	kind := EventRenewed
	if old == nil && a.cur == nil {
		kind = EventIssued
	}
	m.noteChange(b.ID())
	return func(n *news) {
		m.obtainedLocked(c, a, b)
		n.add(func() {
			m.log.Info("certificate "+string(kind), "name", c.Names[0], "issuer", b.Account(), "serial", b.Serial(), "not_after", time.Unix(b.End, 0).UTC())
			m.emit(c, Event{Kind: kind})
		})
	}
}

// obtainedLocked has b served, and forgets what went wrong before.
func (m *Manager) obtainedLocked(c *managed, a attempt, b *records.Bundle) {
	c.next, c.ocspAt = b, 0
	c.judge()
	c.wellLocked()
	w := c.trouble()
	w.tries, w.orders, w.staple, w.degraded = nil, nil, nil, ""
	if c.wish == a.pass.wish { // and not one of a later call
		w.wished, c.wish = c.wish, 0
	}
}

// obtainFailed sorts a failed attempt by whose fault it is.
func (m *Manager) obtainFailed(ctx context.Context, c *managed, a attempt, err error) func(*news) {
	if ctx.Err() != nil && a.f.Context.Err() == nil && !isWait(err) && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", storage.ErrLeaseLost, err) // by a Locker that does not say so
	}
	switch {
	case isWait(err):
		tell := m.log.Warn
		if errors.Is(err, errTurn) {
			tell = m.log.Debug
		}
		tell("a name has to wait", "name", c.Names[0], "due", time.Now().Add(quickRetry), "err", err)
		return func(*news) {
			c.trouble().retry, c.why.err = time.Now().Add(quickRetry).Unix(), err
		}
	case a.f.Context.Err() != nil: // closed or unmanaged
		return func(*news) {}
	case !isStepError(err), errors.Is(err, errNotStored), errors.Is(err, errNotKept), errors.Is(err, errNotNoted):
		return func(n *news) { m.troubleLocked(c, fmt.Errorf("issuing a certificate for %q: %w", c.Names[0], err), n) }
	}
	if errors.Is(err, ErrOrderGone) {
		m.dropOrder(ctx, c, a.iss)
	}
	h := m.noteFailure(ctx, c, a, err)
	return func(*news) {
		c.wellLocked()
		t := c.tryOf(a.iss)
		t.hold, t.holds, t.err, t.isNew, t.wish = h, a.holds, err, true, a.pass.wish
		if errors.Is(err, ErrOrderGone) {
			delete(c.why.orders, a.iss.id)
		}
	}
}

func isStepError(err error) bool {
	var e *StepError
	return errors.As(err, &e)
}

// lockFor waits for the named lease, for a bounded time. The flight has it from
// then on.
func (m *Manager) lockFor(ctx context.Context, f *flight, name string) (Lease, error) {
	back := idleSoon(ctx)
	lease, err := m.lockWithin(ctx, name, lockTimeout)
	back()
	if err == nil {
		f.mu.Lock()
		f.lease = lease
		f.mu.Unlock()
	}
	return lease, err
}

// idleSoon gives the slot of ctx's flight back once what is waited for has taken
// longer than a moment, until back is called.
func idleSoon(ctx context.Context) (back func()) {
	var mu sync.Mutex
	isBack, resume := false, func() {}
	timer := time.AfterFunc(moment, func() {
		mu.Lock()
		defer mu.Unlock()
		if !isBack {
			resume = lane.Idle(ctx)
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		isBack = true
		r := resume
		mu.Unlock()
		r()
	}
}

// sleep waits for d, and gives the slot of ctx's flight back unless that is but a
// moment.
func sleep(ctx context.Context, d time.Duration) error {
	if d < moment {
		return pauseFor(ctx, d)
	}
	return lane.Sleep(ctx, d)
}

// lockWithin waits for the named lease for as long as patience lasts; then the
// error is errBusy.
func (m *Manager) lockWithin(ctx context.Context, name string, patience time.Duration) (Lease, error) {
	// The lease's context ends with the one that Lock is given, so the wait is
	// bounded beside it and not by it.
	wait, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { cancel(errBusy) })
	lease, err := m.conf.Locker.Lock(wait, name)
	if !timer.Stop() && err == nil {
		// The time ran out in the moment in which the lease came.
		m.unlock(ctx, lease)
		err = errBusy
	}
	if err != nil {
		if errors.Is(context.Cause(wait), errBusy) && ctx.Err() == nil {
			err = errBusy
		}
		cancel(nil)
		return nil, fmt.Errorf("locking %q: %w", name, err)
	}
	return &boundLease{Lease: lease, cancel: cancel}, nil
}

// underLease calls f under the named lease, for which it waits for a bounded time.
func (m *Manager) underLease(ctx context.Context, name string, f func(ctx context.Context) error) error {
	lease, err := m.lockWithin(ctx, name, lockTimeout)
	if err != nil {
		return err
	}
	defer m.unlock(ctx, lease)
	return f(lease.Context())
}

// boundLease ends the context under a lease with its release.
type boundLease struct {
	Lease
	cancel context.CancelCauseFunc
}

// Unlock implements Lease.
func (l *boundLease) Unlock(ctx context.Context) error {
	defer l.cancel(nil)
	return l.Lease.Unlock(ctx)
}

// issue asks the issuer. It runs under the lease for c.
func (m *Manager) issue(ctx context.Context, c *managed, a attempt, old records.Stored) (*records.Bundle, error) {
	order, key, err := m.openOrder(ctx, c, a)
	if err != nil {
		return nil, err
	}
	csr, err := makeCSR(c.Names, key, a.cfg.mustStaple)
	if err != nil {
		return nil, fmt.Errorf("making the CSR for %q: %w", c.Names[0], err)
	}
	lease := ctx
	req := IssueRequest{
		Names: slices.Clone(c.Names), CSR: csr, Profile: a.cfg.profile, State: order.State,
		Save: func(ctx context.Context, b []byte) error {
			if lease.Err() != nil { // whatever context an Issuer has that calls it late
				return context.Cause(lease)
			}
			return m.saveOrder(ctx, c, order, b)
		},
		Progress: a.f.progress,
		Sleep:    sleep,
	}
	if a.cfg.lifetime != 0 {
		req.NotAfter = time.Now().Add(a.cfg.lifetime).Truncate(time.Second)
	}
	if old.Bundle != nil {
		if req.Replaces, err = old.Leaf(); err != nil {
			m.log.Warn("the certificate that is replaced cannot be parsed", "name", c.Names[0], "err", err)
		} else if old.Account() == a.iss.id {
			req.ReplacesData = old.Data
		}
	}
	a.f.progress("issue", "")
	issued, err := a.iss.Issue(context.WithValue(ctx, failedKey{}, a.holds.failed(time.Now().Unix())), req)
	if err != nil {
		return nil, asStepError(a.iss, ctx, err)
	}
	return m.accept(ctx, c, a, accepting{order, key, issued, old})
}

// asStepError makes an error of a caller's Issuer say whose it is.
func asStepError(iss *issuer, ctx context.Context, err error) error {
	if ctx.Err() != nil && isWait(context.Cause(ctx)) {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if isStepError(err) || errors.Is(err, errNotKept) {
		return err
	}
	return &StepError{Issuer: iss.id, Step: "issue", Err: err}
}

// accepting is what an issuer answered, and what was asked.
type accepting struct {
	order  *records.Order
	key    crypto.Signer
	issued Issued
	old    records.Stored
}

// accept checks an issued certificate and makes it durable; only then is it a
// bundle.
func (m *Manager) accept(ctx context.Context, c *managed, a attempt, r accepting) (*records.Bundle, error) {
	fail := func(step string, err error) error { return &StepError{Issuer: a.iss.id, Step: step, Err: err} }
	now := time.Now()
	b, warnings, err := m.records.Make(records.NewBundle{
		Names: c.Names, KeyType: c.key(), CA: a.iss.ca, Account: a.iss.id, Profile: a.cfg.profile,
		Key: r.key, Chain: r.issued.Chain, Data: r.issued.Data, Stored: now,
	})
	if err != nil {
		m.dropOrder(ctx, c, a.iss) // it would bring the same chain
		return nil, fail("verify", &refusedError{err})
	}
	for _, w := range warnings {
		m.log.Warn("the CA's chain is served without what is not needed or cannot be used", "name", c.Names[0], "issuer", a.iss.id, "err", w)
	}
	switch soon := now.Add(leastLife).Unix(); {
	case b.NotAfter <= soon: // the order is good
		return nil, fail("verify", fmt.Errorf("the certificate ends at %s, which is now or past by this host's clock: set the clock right", time.Unix(b.NotAfter, 0).UTC().Format(time.RFC3339)))
	case b.End <= soon:
		m.dropOrder(ctx, c, a.iss)
		return nil, fail("verify", &refusedError{fmt.Errorf("a certificate above the leaf ends at %s, so that no client accepts the chain: the CA has to send another", time.Unix(b.End, 0).UTC().Format(time.RFC3339))})
	}
	if old := r.old; old.Bundle != nil && old.Usable(now.Unix()) && (!b.Usable(now.Unix()) || b.Has(records.MustStaple) || forTests(b.CA()) && !forTests(old.CA())) {
		if err := m.records.KeepPrevious(ctx, old); err != nil {
			return nil, fail("store", fmt.Errorf("%w: %w", errNotStored, err))
		}
	}
	if err := m.records.StoreBundle(ctx, records.Stored{Bundle: b, Data: r.issued.Data}); err != nil {
		return nil, fail("store", fmt.Errorf("%w: %w", errNotStored, err))
	}
	// It is stored: what goes wrong from here on costs it nothing.
	err = m.calls.do("the end of the order for "+c.Names[0], callTimeout, func() error {
		m.noteSuccess(ctx, a)
		m.dropOrder(ctx, c, a.iss)
		return nil
	})
	if err != nil {
		m.log.Warn("what is left of an issue could not be removed", "name", c.Names[0], "err", err)
	}
	return b, nil
}

// refusedError is a certificate that was issued and is refused here. The next
// would most likely be refused too.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }

// isRefused reports whether a certificate was refused here. How long that is
// waited after is our word, not the CA's.
func isRefused(err error) bool {
	_, ok := errors.AsType[*refusedError](err)
	return ok
}

// Unwrap returns the cause.
func (e *refusedError) Unwrap() error { return e.err }

// RetryAfter spaces orders whose certificates are of no use.
func (e *refusedError) RetryAfter() time.Duration { return 24 * time.Hour }

// openOrder returns the order in progress for c at an issuer, or begins one by
// storing its key: each has its own.
func (m *Manager) openOrder(ctx context.Context, c *managed, a attempt) (*records.Order, crypto.Signer, error) {
	if a.order != nil {
		if key := m.resumable(c, a, a.order); key != nil {
			return a.order, key, m.storeOrder(ctx, c, a.order)
		}
	}
	stored, err := m.records.LoadOrder(ctx, c.id(), a.iss.id)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, nil, err
	case isNewer(err): // it is left as it is, and gone without
		m.log.Warn("the record of an issue in progress was written by a newer version and is left as it is", "name", c.Names[0], "err", err)
	case err != nil && !isNotExist(err):
		m.degraded(c, doObtain, "the record of an issue in progress cannot be read; it begins anew", err)
	case err == nil:
		if key := m.resumable(c, a, stored); key != nil {
			return stored, key, nil
		}
	}
	key, err := certpem.GenerateKey(c.key())
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key for %q: %w", c.Names[0], err)
	}
	keyPEM, err := certpem.EncodeKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key for %q: %w", c.Names[0], err)
	}
	order := &records.Order{
		Names: c.Names, Profile: a.cfg.profile, Lifetime: a.cfg.lifetime,
		Created: time.Now().UTC().Round(0), Issuer: a.iss.id, KeyPEM: string(keyPEM),
	}
	return order, key, m.storeOrder(ctx, c, order)
}

// resumable returns the key of an order that can be gone on with, or nil.
func (m *Manager) resumable(c *managed, a attempt, o *records.Order) crypto.Signer {
	key, err := certpem.DecodeKey([]byte(o.KeyPEM))
	if err != nil || o.Profile != a.cfg.profile || o.Lifetime != a.cfg.lifetime || records.ID(o.Names, c.key()) != c.id() {
		return nil
	}
	if t, known := certpem.TypeOf(key.Public()); !known || t != c.key() {
		return nil
	}
	if a.cur != nil && a.cur.HasKey(key.Public()) { // it has ended
		return nil
	}
	// Who calls Renew may fear for the keys there are. One that a process left that
	// died was in no use, and its order costs as much as another.
	if made := o.Created.UnixNano(); made < a.pass.wish && made >= m.began.UnixNano() {
		return nil
	}
	return key
}

// storeOrder makes an order durable. It is not what keeps a name from being
// renewed: when its record fails for good, or is a newer version's, it is gone without.
func (m *Manager) storeOrder(ctx context.Context, c *managed, o *records.Order) error {
	err := m.records.StoreOrder(ctx, c.id(), o)
	if isNewer(err) {
		return nil
	}
	if m.goesWithout(ctx, c, err) {
		return nil
	}
	return err
}

// goesWithout reports whether an issue goes on although a record of it could not be
// stored.
func (m *Manager) goesWithout(ctx context.Context, c *managed, err error) bool {
	if err == nil || time.Since(c.troubledSince()) < storeFor || m.records.Probe(ctx) != nil {
		return false
	}
	m.degraded(c, doObtain, "the record of an issue in progress cannot be stored while others can; it is gone without", err)
	return true
}

// troubledSince returns since when storage fails for c, now when it does not.
func (c *managed) troubledSince() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil || c.why.failures == 0 {
		return time.Now()
	}
	return c.why.since
}

// saveOrder keeps what an issuer needs to go on with its order.
func (m *Manager) saveOrder(ctx context.Context, c *managed, o *records.Order, b []byte) error {
	o.State = b
	err := m.storeOrder(ctx, c, o)
	c.mu.Lock()
	w := c.trouble()
	if err != nil {
		if w.orders == nil {
			w.orders = map[string]*records.Order{}
		}
		kept := *o
		w.orders[o.Issuer] = &kept
	} else {
		delete(w.orders, o.Issuer)
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	return nil
}

// dropOrder forgets an issue that ended. What stays is recognised by its key.
func (m *Manager) dropOrder(ctx context.Context, c *managed, iss *issuer) {
	if err := m.records.DropOrder(ctx, c.id(), iss.id); err != nil && !isNewer(err) && ctx.Err() == nil {
		m.degraded(c, doObtain, "the record of a finished issue could not be removed", err)
	}
}

func makeCSR(names []string, key crypto.Signer, mustStaple bool) ([]byte, error) {
	t := &x509.CertificateRequest{}
	for _, n := range names {
		if hostname.IsIP(n) {
			t.IPAddresses = append(t.IPAddresses, net.ParseIP(n))
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	if mustStaple {
		feature, err := certpem.MustStapleExtension()
		if err != nil {
			return nil, err
		}
		t.ExtraExtensions = append(t.ExtraExtensions, feature)
	}
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}
