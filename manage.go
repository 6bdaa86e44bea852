package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/hostname"
)

// ManageSync manages a certificate for each of names and returns when each has
// one, or when the first attempt to get it has failed; then the errors are
// joined. The names stay managed in either case, and what failed is tried again
// in the background. Names that are managed already are looked at again. When
// ctx ends, ManageSync returns and the work goes on.
func (m *Manager) ManageSync(ctx context.Context, names []string) error {
	return m.Manage(ctx, specsOf(names)...)
}

// ManageAsync is ManageSync without the wait: it returns once it knows that the
// names can be managed.
func (m *Manager) ManageAsync(names []string) error {
	_, err := m.add(specsOf(names), false)
	return err
}

// Manage is ManageSync for certificates that need more saying.
func (m *Manager) Manage(ctx context.Context, specs ...Spec) error {
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	waits, err := m.add(specs, true)
	if err != nil {
		return err
	}
	return await(ctx, waits, "waiting for certificates")
}

// await collects what waiters are told, until ctx ends.
func await(ctx context.Context, waits []chan error, doing string) error {
	var errs []error
	for _, w := range waits {
		select {
		case err := <-w:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("%s: %w", doing, context.Cause(ctx)))...)
		}
	}
	return errors.Join(errs...)
}

func specsOf(names []string) []Spec {
	specs := make([]Spec, 0, len(names))
	for _, n := range names {
		specs = append(specs, Spec{Names: []string{n}})
	}
	return specs
}

// plan is a checked Spec.
type plan struct {
	names    []string
	keyTypes []KeyType
	set      *settings
}

// add puts specs under management and has each looked at. All are checked
// before the first is added.
func (m *Manager) add(specs []Spec, wait bool) ([]chan error, error) {
	plans, err := m.check(specs)
	if err != nil {
		return nil, err
	}
	var waits []chan error
	var keys []string
	m.mu.Lock()
	if m.isClosed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	for _, p := range plans {
		for rank, t := range p.keyTypes {
			c := m.entryLocked(p, t, rank)
			if wait {
				waits = append(waits, c.wait(false))
			}
			keys = append(keys, certKey(c.id))
		}
	}
	m.mu.Unlock()
	for _, k := range keys {
		m.queue.SetNow(k)
	}
	return waits, nil
}

// entryLocked returns the managed certificate for a plan and key type.
func (m *Manager) entryLocked(p plan, t KeyType, rank int) *managed {
	id := certID(p.names, t)
	if c := m.managed[id]; c != nil {
		c.mu.Lock()
		c.set = p.set
		c.mu.Unlock()
		return c
	}
	c := &managed{id: id, names: p.names, keyType: t, rank: rank, set: p.set, ready: make(chan struct{})}
	c.status = NameStatus{Name: p.names[0], Names: p.names, KeyType: t, NextAction: "load", NextAt: time.Now().Round(0)}
	m.managed[id] = c
	for _, n := range p.names {
		m.byName[n] = append(m.byName[n], id)
	}
	return c
}

func (m *Manager) check(specs []Spec) ([]plan, error) {
	plans := make([]plan, 0, len(specs))
	var errs []error
	for i, s := range specs {
		p, err := m.checkSpec(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("name %d: %w", i+1, err))
			continue
		}
		plans = append(plans, p)
	}
	return plans, errors.Join(errs...)
}

func (m *Manager) checkSpec(s Spec) (plan, error) {
	p := plan{set: &settings{profile: s.Profile, mustStaple: s.MustStaple, notBefore: s.NotBefore, notAfter: s.NotAfter, issuers: m.conf.Issuers}}
	if p.set.profile == "" {
		p.set.profile = m.conf.Profile
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
	if p.keyTypes, err = checkKeyTypes("Spec.KeyTypes", s.KeyTypes); err != nil {
		return p, err
	}
	if len(p.keyTypes) == 0 {
		p.keyTypes = m.conf.KeyTypes
	}
	p.set.anyKey = len(p.keyTypes) == 1
	if s.NotAfter != 0 && s.NotAfter <= max(s.NotBefore, 0) {
		return p, configErrorf("Spec.NotAfter", "must be above zero and after NotBefore")
	}
	if len(s.Issuers) > 0 {
		p.set.issuers = nil
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, iss := range s.Issuers {
			b, err := m.bindLocked(fmt.Sprintf("Spec.Issuers[%d]", i), iss)
			if err != nil {
				return p, err
			}
			p.set.issuers = append(p.set.issuers, b)
		}
	}
	return p, checkIssuers(p)
}

// checkIssuers says what none of the issuers could issue; what one of them can
// is left to be tried.
func checkIssuers(p plan) error {
	var first error
	for _, iss := range p.set.issuers {
		ck, ok := iss.(interface {
			check(names []string, profile string) error
		})
		if !ok {
			return nil
		}
		err := ck.check(p.names, p.set.profile)
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
		m.queue.Remove(certKey(c.id))
		c.drop(ErrNotManaged)
		m.cache.Remove(time.Now(), c.id)
		m.events.emit(Event{Kind: EventUnmanaged, Name: c.names[0], Names: c.names})
	}
	return errors.Join(errs...)
}

func (m *Manager) removeManaged(set map[string]bool) (dropped []*managed, err error) {
	var errs []error
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range set {
		ids := m.byName[name]
		if len(ids) == 0 && !slices.ContainsFunc(dropped, func(c *managed) bool { return slices.Contains(c.names, name) }) {
			errs = append(errs, fmt.Errorf("name %q: %w", name, ErrNotManaged))
		}
		for _, id := range slices.Clone(ids) {
			c := m.managed[id]
			if i := slices.IndexFunc(c.names, func(n string) bool { return !set[n] }); i >= 0 {
				errs = append(errs, fmt.Errorf("name %q shares a certificate with %q: name all of %v", name, c.names[i], c.names))
				continue
			}
			delete(m.managed, id)
			for _, n := range c.names {
				m.byName[n] = slices.DeleteFunc(m.byName[n], func(s string) bool { return s == id })
				if len(m.byName[n]) == 0 {
					delete(m.byName, n)
				}
			}
			dropped = append(dropped, c)
		}
	}
	return dropped, errors.Join(errs...)
}

// Renew replaces the certificates of a managed name now, whether or not they
// are due, and returns when that is done or has failed. Back-off of the
// Manager's own is passed over.
func (m *Manager) Renew(ctx context.Context, name string) error {
	list, err := m.entries(name)
	if err != nil {
		return err
	}
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	waits := make([]chan error, 0, len(list))
	for _, c := range list {
		waits = append(waits, c.wait(true))
		m.queue.SetNow(certKey(c.id))
	}
	return await(ctx, waits, fmt.Sprintf("waiting for the renewal of %q", name))
}

// Wait returns when a certificate for a managed name is served, or ctx ends.
func (m *Manager) Wait(ctx context.Context, name string) error {
	list, err := m.entries(name)
	if err != nil {
		return err
	}
	select {
	case <-list[0].ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a certificate for %q: %w", name, context.Cause(ctx))
	case <-m.ctx.Done():
		return ErrClosed
	}
}

// entries returns the managed certificates for a name.
func (m *Manager) entries(name string) ([]*managed, error) {
	n, err := hostname.Normalize(name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed {
		return nil, ErrClosed
	}
	var list []*managed
	for _, id := range m.byName[n] {
		list = append(list, m.managed[id])
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("name %q: %w", n, ErrNotManaged)
	}
	return list, nil
}
