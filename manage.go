package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/schedule"
)

// ManageSync manages a certificate for each of names and returns when each is served
// a valid one, or when an attempt to get it has failed; then the errors are
// joined. What is stored and covers a name will do, whatever is configured now; what
// is wanted in its place goes on behind, and so does a renewal that is due. The names stay managed in either
// case, and what failed is tried again in the background. A name that cannot be
// managed is an error and keeps no other from being managed.
//
// Names that are managed already are looked at again. What failed within the last
// five minutes, or too often within the hour, or is held up by the CA's own word,
// is not tried at once: the error says why and when it is. When ctx ends,
// ManageSync returns and the work goes on.
func (m *Manager) ManageSync(ctx context.Context, names []string) error {
	plans, err := m.checkNames(names)
	return errors.Join(err, m.manage(ctx, plans))
}

// ManageAsync is ManageSync without the wait: it returns once the names are
// managed. From then on a handshake for one of them is answered, at once when its
// certificate is in storage.
func (m *Manager) ManageAsync(names []string) error {
	plans, err := m.checkNames(names)
	return errors.Join(err, m.add(plans, nil))
}

// Manage is ManageSync for certificates that need more saying.
func (m *Manager) Manage(ctx context.Context, specs ...Spec) error {
	plans, err := m.check(specs)
	return errors.Join(err, m.manage(ctx, plans))
}

// manage adds plans and waits for their certificates.
func (m *Manager) manage(ctx context.Context, plans []plan) error {
	if len(plans) == 0 {
		return nil
	}
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	n := 0
	for _, p := range plans {
		n += len(p.keys)
	}
	w := newWait(n)
	if err := m.add(plans, w); err != nil {
		return err
	}
	return w.await(ctx, "waiting for certificates")
}

// plan is a checked Spec.
type plan struct {
	names []string // normalised, sorted but for the first, each once
	keys  []uint8  // indexes in keyTypes
	cfg   *settings
}

// checkNames is check for a certificate a name.
func (m *Manager) checkNames(names []string) ([]plan, error) {
	if len(names) == 0 {
		return nil, &ConfigError{Field: "names", Err: errors.New("is empty: name at least one")}
	}
	common := m.planOf(Spec{})
	all := make([]string, len(names)) // one piece for all
	return checkEach(names, func(i int, n string) (plan, error) {
		p := common
		p.names = all[i : i+1 : i+1]
		var err error
		if all[i], err = hostname.Normalize(n); err == nil {
			err = p.possible()
		}
		if ce, ok := errors.AsType[*ConfigError](err); ok {
			err = ce.Err
		}
		if err != nil {
			err = &ConfigError{Field: fmt.Sprintf("names[%d]", i), Err: err}
		}
		return p, err
	})
}

func (m *Manager) check(specs []Spec) ([]plan, error) {
	if len(specs) == 0 {
		return nil, configErrorf("specs", "is empty: give at least one Spec")
	}
	return checkEach(specs, func(i int, s Spec) (plan, error) {
		p, err := m.checkSpec(s)
		if err != nil && len(specs) > 1 {
			err = fmt.Errorf("spec %d: %w", i+1, err)
		}
		return p, err
	})
}

// checkEach returns the plans of all that check, and an error for each that does
// not.
func checkEach[T any](list []T, check func(int, T) (plan, error)) ([]plan, error) {
	plans := make([]plan, 0, len(list))
	var errs []error
	for i, v := range list {
		p, err := check(i, v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		plans = append(plans, p)
	}
	return plans, errors.Join(errs...)
}

// planOf fills in what a Spec leaves to the Config.
func (m *Manager) planOf(s Spec) plan {
	set := &settings{profile: s.Profile, mustStaple: s.MustStaple, lifetime: s.Lifetime, issuers: m.bound, policy: m.policy, staples: !m.conf.DisableStapling}
	if set.profile == "" {
		set.profile = m.conf.Profile
	}
	types := s.KeyTypes
	if len(types) == 0 {
		types = m.conf.KeyTypes
	}
	p := plan{cfg: set}
	for _, t := range types {
		p.keys = append(p.keys, uint8(slices.Index(keyTypes[:], t)))
	}
	set.anyKey = len(p.keys) == 1
	return p
}

func (m *Manager) checkSpec(s Spec) (p plan, err error) {
	if len(s.Names) == 0 {
		return p, configErrorf("Spec.Names", "is empty: name at least one")
	}
	var names []string
	for i, n := range s.Names {
		name, err := hostname.Normalize(n)
		if err != nil {
			return p, &ConfigError{Field: fmt.Sprintf("Spec.Names[%d]", i), Err: err}
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if s.KeyTypes, err = checkKeyTypes("Spec.KeyTypes", s.KeyTypes); err != nil {
		return p, err
	}
	if s.Lifetime != 0 && s.Lifetime < time.Minute {
		return p, configErrorf("Spec.Lifetime", "must be 0 or at least a minute, is %v", s.Lifetime)
	}
	p = m.planOf(s)
	p.names = names
	if len(s.Issuers) > 0 {
		if p.cfg.issuers, err = m.bindAll("Spec.Issuers", s.Issuers); err != nil {
			return p, err
		}
	}
	return p, p.possible()
}

// possible says what none of the issuers could issue; what one of them can is
// left to be tried.
func (p *plan) possible() error {
	var first error
	for _, iss := range p.cfg.issuers {
		ck, ok := iss.Issuer.(interface {
			check(names []string, profile string) error
		})
		if !ok {
			return nil
		}
		err := ck.check(p.names, p.cfg.profile)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// add puts plans under management and has each looked at. w is told how that
// ends; nil means that nobody waits.
func (m *Manager) add(plans []plan, w *callWait) error {
	var all []*managed
	m.mu.Lock()
	if m.isClosed {
		m.mu.Unlock()
		return ErrClosed
	}
	var added []*certcache.Entry
	batch := map[string]*managed{}
	for i := range plans {
		for rank, k := range plans[i].keys {
			c, isNew := m.entryLocked(&plans[i], k, batch)
			if isNew || len(plans[i].keys) > 1 {
				m.rankLocked(c, uint8(rank))
			}
			if isNew {
				added = append(added, &c.Entry)
			}
			all = append(all, c)
		}
	}
	m.cache.Add(added...)
	m.mu.Unlock()
	m.checkStandardNames()
	if w == nil {
		list := make([]schedule.Work, len(all))
		for i, c := range all {
			list[i] = c
		}
		m.queue.SetNow(list...)
		return nil
	}
	for i, c := range all {
		m.change(c, func(*news) { m.wantLocked(c, w, i) })
	}
	return nil
}

// checkStandardNames tells, once, that what is to be served in place of others is
// not there: it may be misspelt.
func (m *Manager) checkStandardNames() {
	missing := func(name string) bool {
		return name != "" && len(m.cache.Entries(name)) == 0 && len(m.cache.Entries("*."+hostname.Parent(name))) == 0
	}
	def, fall := missing(m.conf.DefaultName), missing(m.conf.FallbackName)
	if !def && !fall || !m.namesTold.CompareAndSwap(false, true) {
		return
	}
	const told = "a name that is to be served in place of others is not managed so far; is it spelt right?"
	if def {
		m.log.Warn(told, "field", "Config.DefaultName", "name", m.conf.DefaultName)
	}
	if fall {
		m.log.Warn(told, "field", "Config.FallbackName", "name", m.conf.FallbackName)
	}
}

// entryLocked returns the managed certificate for a plan and key type, with its
// settings brought up to date, and reports whether it is new.
func (m *Manager) entryLocked(p *plan, key uint8, batch map[string]*managed) (c *managed, isNew bool) {
	id := records.ID(p.names, keyTypes[key])
	if c = batch[id]; c == nil {
		c = m.findManaged(id, p.names[0])
	}
	if c == nil {
		c = &managed{m: m, keyType: key}
		// The names of a call are in one piece, which is not to be kept for one of them.
		c.cfg, c.Names, c.Owner = p.cfg, slices.Clone(p.names), c
		batch[id] = c
		if strings.HasPrefix(id, "+") {
			m.sets[id] = c
		}
		return c, true
	}
	c.mu.Lock()
	c.cfg = p.cfg
	c.judge()
	if b := c.cur.b; b != nil && c.ariAt == never && m.informerOf(p.cfg, b) != nil {
		c.ariAt = 0 // its issuer is back
	}
	c.mu.Unlock()
	batch[id] = c
	return c, false
}

// rankLocked puts c at a place among the key types of its names.
func (m *Manager) rankLocked(c *managed, rank uint8) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rank == rank {
		return
	}
	c.rank = rank
	if c.cur.b != nil {
		m.serveLocked(c)
	}
}

// waitLocked has the i-th of a call wait until done reports true, or c is not
// managed any more, and brings what is queued for c forward.
func (m *Manager) waitLocked(c *managed, w *callWait, i int, done func(c *managed, now time.Time) (error, bool)) {
	if c.isGone() {
		w.end(i, c.goneError())
		return
	}
	t := c.trouble()
	t.waiters = append(t.waiters, &waiter{call: w, i: i, done: done})
	m.raiseLocked(c)
}

// wantLocked has the i-th of a call wait for a usable certificate. What failed is
// tried again for it.
func (m *Manager) wantLocked(c *managed, w *callWait, i int) {
	c.know |= isTried
	if c.why != nil {
		c.why.retry = 0
	}
	m.waitLocked(c, w, i, func(c *managed, now time.Time) (error, bool) {
		switch {
		case c.isServed(now.Unix()):
			return nil, true
		case c.isOver() && !isWait(c.why.err):
			if c.isBest(now.Unix()) {
				return nil, true
			}
			return c.failure(now.Unix()), true
		}
		return nil, false
	})
}

// isBest reports whether what is served is only not valid yet by this host's
// clock, so that there is nothing better to be had.
func (c *managed) isBest(now int64) bool {
	return c.cur.b != nil && now < c.cur.b.NotBefore && !c.why.failing()
}

// raiseLocked has what is queued for c go before what nobody waits for.
func (m *Manager) raiseLocked(c *managed) {
	for _, f := range c.why.flights {
		if f != nil {
			f.lane.Raise(f.Flight, 0)
		}
	}
}

// Unmanage stops managing certificates: nothing is renewed or served for them
// any more, and an attempt in progress is cancelled. What is in storage stays. A
// certificate for several names is dropped when all of them are given;
// otherwise an error says so and nothing is changed for it. A name that is not
// managed is reported as ErrNotManaged.
func (m *Manager) Unmanage(names ...string) error {
	var errs []error
	set := map[string]bool{}
	for _, n := range names {
		name, err := hostname.Normalize(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set[name] = true
	}
	dropped, err := m.removeManaged(set)
	for _, c := range dropped {
		m.queue.Remove(c)
		m.events.emit(Event{Kind: EventUnmanaged, Name: c.Names[0], Names: c.Names})
	}
	return errors.Join(append(errs, err)...)
}

// removeManaged takes certificates for the names in set out of the cache, and
// with it out of management.
func (m *Manager) removeManaged(set map[string]bool) (dropped []*managed, err error) {
	var errs []error
	var entries []*certcache.Entry
	seen := map[*managed]bool{}
	m.mu.Lock()
	for name := range set {
		list := m.managedFor(name)
		if len(list) == 0 {
			errs = append(errs, fmt.Errorf("name %q: %w", name, ErrNotManaged))
		}
		for _, c := range list {
			if i := slices.IndexFunc(c.Names, func(n string) bool { return !set[n] }); i >= 0 {
				errs = append(errs, fmt.Errorf("name %q shares a certificate with %q: name all of %v", name, c.Names[i], c.Names))
				continue
			}
			if !seen[c] {
				seen[c] = true
				dropped, entries = append(dropped, c), append(entries, &c.Entry)
				delete(m.sets, c.id())
			}
		}
	}
	for _, c := range dropped {
		c.mu.Lock()
		c.trouble().gone = ErrNotManaged // from here on nothing is served for it
		c.mu.Unlock()
	}
	m.cache.Remove(entries...)
	m.mu.Unlock()
	for _, c := range dropped {
		m.end(c)
	}
	return dropped, errors.Join(errs...)
}

// end cancels what is under way for c, which is gone, and tells who waits.
func (m *Manager) end(c *managed) {
	m.change(c, func(*news) {
		for _, f := range c.why.flights {
			if f != nil {
				f.cancel()
			}
		}
	})
}

// Renew replaces the certificates of a managed name now, whether or not they
// are due, with new keys, and returns when that is done or has failed. It passes
// over the Manager's own back-off, but neither over what the CA has asked for nor
// over four failed validations of the name within the hour.
func (m *Manager) Renew(ctx context.Context, name string) error {
	list, err := m.entries(name)
	if err != nil {
		return err
	}
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	w := newWait(len(list))
	for i, c := range list {
		m.change(c, func(*news) { m.wishLocked(c, w, i) })
	}
	return w.await(ctx, fmt.Sprintf("waiting for the renewal of %q", name))
}

// wishLocked has the i-th of a call wait for a certificate that is ordered from
// now on.
func (m *Manager) wishLocked(c *managed, w *callWait, i int) {
	wish := time.Now().UnixNano()
	c.wish = wish
	t := c.trouble()
	t.retry, t.wished = 0, min(t.wished, wish-1) // one may have been met by a clock that was ahead
	m.waitLocked(c, w, i, func(c *managed, now time.Time) (error, bool) {
		switch {
		case c.why.wished >= wish:
			return nil, true
		case c.isOver() && !isWait(c.why.err):
			return c.failure(now.Unix()), true
		}
		return nil, false
	})
}

// Wait returns when a usable certificate for a managed name is served, or ctx
// ends, or the name is not managed any more.
func (m *Manager) Wait(ctx context.Context, name string) error {
	list, err := m.entries(name)
	if err != nil {
		return err
	}
	c := list[0]
	w := newWait(1)
	m.change(c, func(*news) {
		m.waitLocked(c, w, 0, func(c *managed, now time.Time) (error, bool) { return nil, c.isServed(now.Unix()) })
	})
	return w.await(ctx, fmt.Sprintf("waiting for a certificate for %q", name))
}

// managedFor returns the managed certificates that have exactly that name.
func (m *Manager) managedFor(name string) []*managed {
	var list []*managed
	for _, e := range m.cache.Entries(name) {
		if c := asManaged(e); c != nil {
			list = append(list, c)
		}
	}
	return list
}

// findManaged returns the managed certificate with that ID, which has that name,
// or nil.
func (m *Manager) findManaged(id, name string) *managed {
	for _, c := range m.managedFor(name) {
		if c.id() == id {
			return c
		}
	}
	return nil
}

// entries returns the managed certificates for a name.
func (m *Manager) entries(name string) ([]*managed, error) {
	n, err := hostname.Normalize(name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	closed := m.isClosed
	m.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	list := m.managedFor(n)
	if len(list) == 0 {
		return nil, fmt.Errorf("name %q: %w", n, ErrNotManaged)
	}
	return list, nil
}
