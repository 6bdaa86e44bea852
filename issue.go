package certwright

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/record"
)

const (
	// lockTimeout bounds the wait for another instance that works on the same
	// name: no worker is held longer by it.
	lockTimeout = time.Minute

	// quickRetry is when work is tried again that failed for no fault of a CA:
	// a lease that was lost, another instance that took too long.
	quickRetry = 10 * time.Second
)

// errNotStored means that a certificate was issued and could not be stored. It
// is not served: what is served is stored.
var errNotStored = errors.New("the certificate was issued but is not stored yet")

// errNotKept means that an order was made and what is needed to go on with it
// could not be stored. It is kept in memory.
var errNotKept = errors.New("the order is not stored yet")

// errBusy means that another instance works on the name.
var errBusy = errors.New("another instance is working on it")

// waitError stands for a failure before, which is why no attempt is made yet.
type waitError struct{ text string }

func (e *waitError) Error() string { return e.text }

// orderRecord is what is kept of an issue in progress: the next key, stored
// before any CA is asked, and what each issuer needs to go on with its order.
type orderRecord struct {
	Names   []string          `json:"names"`
	Profile string            `json:"profile,omitempty"`
	Created time.Time         `json:"created"`
	Key     string            `json:"key"` // PEM, PKCS #8
	Issuers map[string][]byte `json:"issuers,omitempty"`
}

// obtain gets a new certificate for c: from storage when another instance has
// been faster, and else from an issuer. It is the one path of a first issue and
// of a renewal. It returns the bundle that is stored, and whether another
// instance stored it.
func (m *Manager) obtain(ctx context.Context, c *job, force bool) (b *bundle, adopted bool, err error) {
	began := time.Now()
	lease, err := m.lock(ctx, storageKey("issue", c.id()))
	if err != nil {
		return nil, false, err
	}
	defer unlock(ctx, lease, m.log)
	ctx = lease.Context()
	old, err := m.loadBundle(ctx, c.managed)
	if err != nil {
		return nil, false, err
	}
	if m.suffices(c, old.bundle, force, began) {
		c.state = stateRecord{} // whoever stored it has cleared it
		return old.bundle, true, nil
	}
	if c.state, err = m.loadState(ctx, c); err != nil {
		return nil, false, err
	}
	if s := c.state; !force && time.Now().Before(s.Next) {
		return nil, false, &IssueError{Name: c.Names[0], Attempts: s.Attempts, RetryAt: s.Next, Errs: []error{&waitError{s.Error}}}
	}
	b, err = m.issue(ctx, c, old, force)
	return b, false, err
}

// suffices reports whether a stored certificate makes a new one needless: it is
// another one than the one in use and not due itself. For a forced renewal it
// must be younger than the wish for it.
func (m *Manager) suffices(c *job, old *bundle, force bool, began time.Time) bool {
	if old == nil || old.same(c.bundle) && (force || c.revoked || c.isBroken(c.bundle)) {
		return false
	}
	if force && old.stored().Before(began) {
		return false
	}
	now := time.Now()
	w := window{}
	if old.same(c.bundle) {
		w = c.window
	}
	return now.Before(c.facts(old).NotAfter) && now.Before(c.renewAt(old, w))
}

// lock waits for the named lease, for a bounded time.
func (m *Manager) lock(ctx context.Context, name string) (Lease, error) {
	return m.lockWithin(ctx, name, lockTimeout)
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
		unlock(ctx, lease, m.log)
		err = errBusy
	}
	if err != nil {
		cancel(nil)
		if errors.Is(context.Cause(wait), errBusy) && ctx.Err() == nil {
			err = errBusy
		}
		return nil, fmt.Errorf("locking %q: %w", name, err)
	}
	return &boundLease{Lease: lease, cancel: cancel}, nil
}

// boundLease ends the context under a lease with its release.
type boundLease struct {
	Lease
	cancel context.CancelCauseFunc
}

func (l *boundLease) Unlock(ctx context.Context) error {
	defer l.cancel(nil)
	return l.Lease.Unlock(ctx)
}

// issue asks the issuers in turn. It runs under the lease for c.
func (m *Manager) issue(ctx context.Context, c *job, old storedBundle, force bool) (*bundle, error) {
	set := c.settings()
	order, key, err := m.openOrder(ctx, c, old.bundle)
	if err != nil {
		return nil, err
	}
	csr, err := makeCSR(c.Names, key, set.mustStaple)
	if err != nil {
		return nil, fmt.Errorf("making the CSR for %q: %w", c.Names[0], err)
	}
	failure := &IssueError{Name: c.Names[0]}
	for _, iss := range set.issuers {
		if is := c.state.Issuers[iss.ID()]; !force && time.Now().Before(is.Next) {
			failure.Errs = append(failure.Errs, &StepError{Issuer: iss.ID(), Step: "wait", Err: fmt.Errorf("not before %s, after: %s", is.Next.UTC().Format(time.RFC3339), is.Error)})
			continue
		}
		b, err := m.issueFrom(ctx, c, issueTask{issuer: iss, set: set, order: order, key: key, csr: csr, replaces: old})
		if errors.Is(err, ErrOrderGone) {
			var fresh error
			if order, key, csr, fresh = m.newKey(ctx, c, old.bundle); fresh != nil {
				return nil, fresh
			}
			if mayRetryNow(err) {
				b, err = m.issueFrom(ctx, c, issueTask{issuer: iss, set: set, order: order, key: key, csr: csr, replaces: old})
			}
		}
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("issuing a certificate for %q: %w", c.Names[0], context.Cause(ctx))
		}
		if errors.Is(err, errNotStored) || errors.Is(err, errNotKept) {
			return nil, err // no other issuer could do better; the order is gone on with
		}
		failure.Errs = append(failure.Errs, err)
		m.log.Debug("an issuer failed", "name", c.Names[0], "issuer", iss.ID(), "err", err)
		m.noteFailure(c, iss, err)
	}
	now := time.Now().Round(0)
	state := c.state
	state.settle(set.issuers, errors.Join(failure.Errs...), now)
	m.saveState(ctx, c, state)
	failure.Attempts, failure.RetryAt = state.Attempts, state.Next
	return nil, failure
}

// newKey begins the issue for c anew, with another key.
func (m *Manager) newKey(ctx context.Context, c *job, old *bundle) (*orderRecord, crypto.Signer, []byte, error) {
	m.dropOrder(ctx, c)
	c.unsaved = nil
	order, key, err := m.openOrder(ctx, c, old)
	if err != nil {
		return nil, nil, nil, err
	}
	csr, err := makeCSR(c.Names, key, c.settings().mustStaple)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making the CSR for %q: %w", c.Names[0], err)
	}
	return order, key, csr, nil
}

// noteFailure sets when the issuer may be asked again for c.
func (m *Manager) noteFailure(c *job, iss Issuer, err error) {
	now := time.Now().Round(0)
	asked, _ := RetryAfter(err)
	asked = max(asked, pauseOf(err))
	n := c.state.Issuers[iss.ID()].Attempts + 1
	c.state.failed(iss.ID(), err, now, now.Add(delay(n, c.left(), asked)))
}

// issueTask is one attempt at one issuer.
type issueTask struct {
	issuer   Issuer
	set      *settings
	order    *orderRecord
	key      crypto.Signer
	csr      []byte
	replaces storedBundle
}

// issueFrom gets the certificate from one issuer, checks and stores it.
func (m *Manager) issueFrom(ctx context.Context, c *job, t issueTask) (_ *bundle, err error) {
	id := t.issuer.ID()
	req := IssueRequest{
		Names: slices.Clone(c.Names), CSR: t.csr, Profile: t.set.profile, State: t.order.Issuers[id],
		Save: func(ctx context.Context, b []byte) error { return m.saveOrder(ctx, c, t.order, id, b) },
	}
	if t.set.lifetime != 0 {
		req.NotAfter = time.Now().Add(t.set.lifetime).Truncate(time.Second)
	}
	if t.replaces.bundle != nil {
		if req.Replaces, err = t.replaces.Parse(); err != nil {
			m.log.Warn("the certificate that is replaced cannot be parsed", "name", c.Names[0], "err", err)
		} else if t.replaces.issuer == id {
			req.ReplacesData = t.replaces.data
		}
	}
	issued, err := callIssuer(ctx, t.issuer, req)
	if err != nil {
		return nil, err
	}
	return m.accept(ctx, c, t, issued)
}

// callIssuer makes an error of a panic in an issuer.
func callIssuer(ctx context.Context, iss Issuer, req IssueRequest) (issued Issued, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &StepError{Issuer: iss.ID(), Step: "issue", Err: fmt.Errorf("the issuer panicked: %v", p)}
		}
	}()
	return iss.Issue(ctx, req)
}

// accept checks an issued certificate and makes it durable; only then is it a
// bundle.
func (m *Manager) accept(ctx context.Context, c *job, t issueTask, issued Issued) (*bundle, error) {
	id := t.issuer.ID()
	fail := func(step string, err error) error {
		return &StepError{Issuer: id, Step: step, Err: err}
	}
	chain, err := certpem.ParseChain(issued.Chain)
	if err != nil {
		m.dropOrder(ctx, c) // it would bring the same chain
		return nil, fail("verify", err)
	}
	now := time.Now().UTC().Round(0)
	r := certRecord{
		ID: c.id(), Names: c.Names, Issuer: id, Profile: t.set.profile, Stored: now,
		Key: t.order.Key, Chain: string(certpem.EncodeChain(chain)), Data: issued.Data,
	}
	b, err := newBundle(r, chain, t.key, &m.decoder.chains)
	if err == nil && !now.Before(b.notAfter()) {
		err = fmt.Errorf("the certificate expired at %s; is the clock right?", b.notAfter().Format(time.RFC3339))
	}
	if err != nil {
		m.dropOrder(ctx, c)
		return nil, fail("verify", err)
	}
	if err := m.storeBundle(ctx, c.managed, r); err != nil {
		return nil, fail("store", fmt.Errorf("%w: %w", errNotStored, err))
	}
	m.clearState(ctx, c)
	m.dropOrder(ctx, c)
	return b, nil
}

// openOrder returns the issue in progress for c, or begins one by storing the
// next key. A record whose key is in use already belongs to an issue that ended.
func (m *Manager) openOrder(ctx context.Context, c *job, old *bundle) (*orderRecord, crypto.Signer, error) {
	key := storageKey(keyOrders, c.id())
	value, err := m.conf.Storage.Load(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("loading %q: %w", key, err)
	}
	if err == nil {
		r, signer, err := decodeOrder(value)
		switch {
		case errors.Is(err, record.ErrNewer): // not to be overwritten
			return nil, nil, fmt.Errorf("reading %q: %w", key, err)
		case err != nil:
			m.degraded(c.managed, "the record of an issue in progress is damaged; it begins anew", fmt.Errorf("reading %q: %w", key, err))
		case m.resumable(c, r, signer, old) && (c.unsaved == nil || c.unsaved.Key != r.Key):
			c.unsaved = nil
			return r, signer, nil
		}
	}
	if r, signer := m.unsavedOrder(c, old); r != nil {
		err := m.storeOrder(ctx, c, r)
		if err == nil {
			c.unsaved = nil
		}
		return r, signer, err
	}
	signer, err := certpem.GenerateKey(certpem.KeyType(c.keyType.keyType()))
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key for %q: %w", c.Names[0], err)
	}
	keyPEM, err := certpem.EncodeKey(signer)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key for %q: %w", c.Names[0], err)
	}
	r := &orderRecord{Names: c.Names, Profile: c.settings().profile, Created: time.Now().UTC().Round(0), Key: string(keyPEM)}
	return r, signer, m.storeOrder(ctx, c, r)
}

// unsavedOrder returns the issue in progress that could not be stored when it
// went on, or nil when there is none that can be gone on with.
func (m *Manager) unsavedOrder(c *job, old *bundle) (*orderRecord, crypto.Signer) {
	if c.unsaved == nil {
		return nil, nil
	}
	signer, err := certpem.DecodeKey([]byte(c.unsaved.Key))
	if err != nil || !m.resumable(c, c.unsaved, signer, old) {
		c.unsaved = nil
		return nil, nil
	}
	return c.unsaved, signer
}

func decodeOrder(value []byte) (*orderRecord, crypto.Signer, error) {
	r := new(orderRecord)
	if err := record.Decode(kindOrder, value, r); err != nil {
		return nil, nil, err
	}
	signer, err := certpem.DecodeKey([]byte(r.Key))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the key: %w", err)
	}
	return r, signer, nil
}

func (m *Manager) resumable(c *job, r *orderRecord, key crypto.Signer, old *bundle) bool {
	t, known := certpem.TypeOf(key.Public())
	switch {
	case !known || KeyType(t) != c.keyType.keyType(), !sameSet(r.Names, c.Names), r.Profile != c.settings().profile:
		return false
	case old != nil && old.hasKey(key):
		return false
	}
	return true
}

// saveOrder keeps what an issuer needs to go on with its order.
func (m *Manager) saveOrder(ctx context.Context, c *job, r *orderRecord, issuer string, b []byte) error {
	if r.Issuers == nil {
		r.Issuers = map[string][]byte{}
	}
	r.Issuers[issuer] = b
	if err := m.storeOrder(ctx, c, r); err != nil {
		c.unsaved = r
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	c.unsaved = nil
	return nil
}

func (m *Manager) storeOrder(ctx context.Context, c *job, r *orderRecord) error {
	return storeRecord(ctx, m.conf.Storage, recordPlace{storageKey(keyOrders, c.id()), kindOrder}, r)
}

// dropOrder forgets an issue that ended. What stays is recognised by its key.
func (m *Manager) dropOrder(ctx context.Context, c *job) {
	key := storageKey(keyOrders, c.id())
	if err := m.conf.Storage.Delete(ctx, key); err != nil && ctx.Err() == nil {
		m.degraded(c.managed, "the record of a finished issue could not be removed", fmt.Errorf("deleting %q: %w", key, err))
	}
}
