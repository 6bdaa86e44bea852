package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
)

// ManageSync manages a certificate for each of names and returns when each has
// one, or when the first attempt to get it has failed; then the errors are
// joined. The names stay managed in either case, and what failed is tried again
// in the background. Names that are managed already are looked at again. When
// ctx ends, ManageSync returns and the work goes on.
func (m *Manager) ManageSync(ctx context.Context, names []string) error {
	plans, err := m.checkNames(names)
	if err != nil {
		return err
	}
	return m.manage(ctx, plans)
}

// ManageAsync is ManageSync without the wait: it returns once it knows that the
// names can be managed. From then on a handshake for one of them is answered, at
// once when its certificate is in storage.
func (m *Manager) ManageAsync(names []string) error {
	plans, err := m.checkNames(names)
	if err != nil {
		return err
	}
	if len(plans) <= atOnce {
		return m.add(m.ctx, plans, nil)
	}
	return m.addLater(plans)
}

// Manage is ManageSync for certificates that need more saying.
func (m *Manager) Manage(ctx context.Context, specs ...Spec) error {
	plans, err := m.check(specs)
	if err != nil {
		return err
	}
	return m.manage(ctx, plans)
}

// manage adds plans and waits for their certificates.
func (m *Manager) manage(ctx context.Context, plans []plan) error {
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	n := 0
	for _, p := range plans {
		n += len(p.how.keyTypes)
	}
	w := newWait(n)
	if err := m.add(ctx, plans, w); err != nil {
		return err
	}
	return w.await(ctx, "waiting for certificates")
}

// checkNames is check for a certificate a name.
func (m *Manager) checkNames(names []string) ([]plan, error) {
	h := &how{keyTypes: m.conf.KeyTypes, set: &settings{profile: m.conf.Profile, issuers: m.conf.Issuers, anyKey: len(m.conf.KeyTypes) == 1}}
	return checkEach(names, func(n string) (plan, error) {
		name, err := hostname.Normalize(n)
		if err != nil {
			return plan{}, &ConfigError{Field: "Spec.Names[0]", Err: err}
		}
		p := plan{name: name, how: h}
		return p, checkIssuers(&p)
	})
}

func (m *Manager) check(specs []Spec) ([]plan, error) { return checkEach(specs, m.checkSpec) }

// checkEach returns the plans of all that check, and an error for each that does
// not.
func checkEach[T any](list []T, check func(T) (plan, error)) ([]plan, error) {
	plans := make([]plan, 0, len(list))
	var errs []error
	for i, v := range list {
		p, err := check(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("name %d: %w", i+1, err))
			continue
		}
		plans = append(plans, p)
	}
	return plans, errors.Join(errs...)
}

func (m *Manager) checkSpec(s Spec) (plan, error) {
	set := &settings{profile: s.Profile, mustStaple: s.MustStaple, lifetime: s.Lifetime, issuers: m.conf.Issuers}
	p := plan{how: &how{set: set}}
	if set.profile == "" {
		set.profile = m.conf.Profile
	}
	if len(s.Names) == 0 {
		return p, configErrorf("Spec.Names", "is empty")
	}
	for i, n := range s.Names {
		name, err := hostname.Normalize(n)
		if err != nil {
			return p, &ConfigError{Field: fmt.Sprintf("Spec.Names[%d]", i), Err: err}
		}
		if !slices.Contains(p.names, name) {
			p.names = append(p.names, name)
		}
	}
	var err error
	if p.how.keyTypes, err = checkKeyTypes("Spec.KeyTypes", s.KeyTypes); err != nil {
		return p, err
	}
	if len(p.how.keyTypes) == 0 {
		p.how.keyTypes = m.conf.KeyTypes
	}
	set.anyKey = len(p.how.keyTypes) == 1
	if s.Lifetime != 0 && s.Lifetime < time.Minute {
		return p, configErrorf("Spec.Lifetime", "must be at least a minute, or 0 for what the CA chooses; is %v", s.Lifetime)
	}
	if len(s.Issuers) > 0 {
		if set.issuers, err = m.bindAll(s.Issuers); err != nil {
			return p, err
		}
	}
	p.name = p.names[0]
	return p, checkIssuers(&p)
}

// bindAll ties the issuers of a Spec to the Manager.
func (m *Manager) bindAll(issuers []Issuer) (bound []Issuer, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, iss := range issuers {
		b, err := m.bindLocked(fmt.Sprintf("Spec.Issuers[%d]", i), iss)
		if err != nil {
			return nil, err
		}
		bound = append(bound, b)
	}
	return bound, nil
}

// checkIssuers says what none of the issuers could issue; what one of them can
// is left to be tried.
func checkIssuers(p *plan) error {
	var first error
	var one [1]string
	names := p.all(one[:0])
	for _, iss := range p.how.set.issuers {
		ck, ok := iss.(interface {
			check(names []string, profile string) error
		})
		if !ok {
			return nil
		}
		err := ck.check(names, p.how.set.profile)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
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
	errs = append(errs, err)
	for _, c := range dropped {
		m.queue.Remove(c)
		m.events.emit(Event{Kind: EventUnmanaged, Name: c.Names[0], Names: c.Names})
	}
	return errors.Join(errs...)
}

// removeManaged takes certificates for the names in set out of the cache, and
// with it out of management.
func (m *Manager) removeManaged(set map[string]bool) (dropped []*managed, err error) {
	_ = m.settle(m.ctx)
	var errs []error
	var entries []*certcache.Entry
	seen := map[*managed]bool{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range set {
		found := m.managedFor(name)
		if len(found) == 0 {
			errs = append(errs, fmt.Errorf("name %q: %w", name, ErrNotManaged))
		}
		for _, c := range found {
			if i := slices.IndexFunc(c.Names, func(n string) bool { return !set[n] }); i >= 0 {
				errs = append(errs, fmt.Errorf("name %q shares a certificate with %q: name all of %v", name, c.Names[i], c.Names))
				continue
			}
			if !seen[c] {
				seen[c] = true
				dropped, entries = append(dropped, c), append(entries, &c.Entry)
			}
		}
	}
	for _, c := range dropped {
		c.drop(ErrNotManaged) // from here on its worker serves nothing
	}
	m.cache.Remove(entries...)
	return dropped, errors.Join(errs...)
}

// Renew replaces the certificates of a managed name now, whether or not they
// are due, and returns when that is done or has failed. Back-off of the
// Manager's own is passed over.
func (m *Manager) Renew(ctx context.Context, name string) error {
	list, err := m.entries(ctx, name)
	if err != nil {
		return err
	}
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	w := newWait(len(list))
	for i, c := range list {
		c.mu.Lock()
		c.waitLocked(waiter{call: w, i: i, force: true})
		c.mu.Unlock()
		m.queue.SetNow(c)
	}
	return w.await(ctx, fmt.Sprintf("waiting for the renewal of %q", name))
}

// Wait returns when a certificate for a managed name is served, or ctx ends.
func (m *Manager) Wait(ctx context.Context, name string) error {
	list, err := m.entries(ctx, name)
	if err != nil {
		return err
	}
	ready := list[0].ready()
	if ready == nil {
		return nil
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a certificate for %q: %w", name, context.Cause(ctx))
	case <-m.ctx.Done():
		return ErrClosed
	}
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

// entries returns the managed certificates for a name.
func (m *Manager) entries(ctx context.Context, name string) ([]*managed, error) {
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
	if err := m.settle(ctx); err != nil {
		return nil, err
	}
	list := m.managedFor(n)
	if len(list) == 0 {
		return nil, fmt.Errorf("name %q: %w", n, ErrNotManaged)
	}
	return list, nil
}
