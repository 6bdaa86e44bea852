package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// journal is what is noted of the challenges that Solvers of the caller's present
// for one certificate, so that whoever has its lease next cleans up what is left.
type journal struct {
	m        *Manager
	id       string          // of the certificate
	lease    context.Context // ends with the lease for it
	progress func(step, detail string)
	without  func(error) bool // reports whether what cannot be noted is gone without; nil: it never is
	delays   bool             // a certificate waits for the clean-ups
	slow     atomic.Bool      // one of them took longer than it is waited for

	mu      sync.Mutex                       // guards entries and their States
	entries map[string]*records.JournalEntry // by key: what is presented, or left
}

type journalKey struct{}

// journalOf returns the journal of an attempt.
func journalOf(ctx context.Context) *journal { return ctx.Value(journalKey{}).(*journal) }

// entry returns what is noted at a key, or nil.
func (j *journal) entry(key string) *records.JournalEntry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries[key]
}

// note stores an entry, once a clean-up of the same challenge has returned. An entry
// that is left of the same challenge gives it its State.
func (j *journal) note(ctx context.Context, e *records.JournalEntry) (*records.JournalEntry, error) {
	if running, ok := j.m.cleaningUp.Load(e.Key()); ok {
		timer := time.NewTimer(cleanUpTimeout) // more than that it has not
		defer timer.Stop()
		select {
		case <-running.(chan struct{}):
		case <-timer.C:
		case <-ctx.Done():
			return e, context.Cause(ctx)
		}
	}
	j.mu.Lock()
	if left := j.entries[e.Key()]; left != nil {
		e.State = left.State
	}
	j.entries[e.Key()] = e
	j.mu.Unlock()
	return e, j.store(ctx, e)
}

func (j *journal) store(ctx context.Context, e *records.JournalEntry) error {
	err := j.m.records.StoreJournal(ctx, e)
	if err == nil || j.without != nil && j.without(err) {
		return nil
	}
	return fmt.Errorf("%w: %w", errNotNoted, err)
}

// save is Challenge.Save.
func (j *journal) save(ctx context.Context, e *records.JournalEntry, b []byte) error {
	if j.lease.Err() != nil { // whatever context a Solver has that calls it late
		return context.Cause(j.lease)
	}
	j.mu.Lock()
	e.State = b
	stored := *e
	j.mu.Unlock()
	return j.store(ctx, &stored)
}

// challenge is what a Solver is given for an entry.
func (j *journal) challenge(e *records.JournalEntry, step string) Challenge {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Challenge{
		Type: e.Type, Name: e.Name, Wildcard: e.Wildcard, Token: e.Token, KeyAuthorization: e.KeyAuthorization,
		Account: e.Account, DNSName: e.DNSName, DNSValue: e.DNSValue, State: e.State,
		Save: func(ctx context.Context, b []byte) error { return j.save(ctx, e, b) },
		Lock: func(ctx context.Context, name string) (Lease, error) {
			lease, err := j.m.lockWithin(ctx, records.SolverLock(name), solverLockTimeout)
			if err != nil {
				return nil, err
			}
			return solverLease{lease, j.m}, nil
		},
		Progress: func(detail string) {
			if j.progress != nil {
				j.progress(step, fmt.Sprintf("%s for %q: %s", e.Type, e.Name, detail))
			}
		},
		Log: j.m.log.With("issuer", e.Issuer, "name", e.Name, "challenge", e.Type),
	}
}

// solverLockTimeout bounds the wait for others that change the same.
const solverLockTimeout = 2 * time.Minute

// solverLease is a lease of a Solver's, whose release costs it a bounded time.
type solverLease struct {
	Lease
	m *Manager
}

// Unlock implements Lease. What goes wrong is told, and costs the Solver nothing.
func (l solverLease) Unlock(ctx context.Context) error {
	l.m.unlock(ctx, l.Lease)
	return nil
}

// cleanUp has a Solver clean up what an entry is of, and forgets it then. It is
// waited for for a bounded time, and goes on by itself after that: one call for an
// entry at a time. When a certificate waits and one has taken longer, no more are
// begun: they are left for later.
func (j *journal) cleanUp(ctx context.Context, s Solver, e *records.JournalEntry) error {
	if j.delays && j.slow.Load() && j.lease.Err() == nil {
		return errors.New("it is left for later, as clean-ups take long")
	}
	over := make(chan struct{})
	if _, busy := j.m.cleaningUp.LoadOrStore(e.Key(), over); busy {
		return errors.New("a call of CleanUp for it has not returned yet")
	}
	began := time.Now()
	err := j.m.calls.do(cleanUpOf(e.Type, e.Name), cleanUpPatience, func() error {
		done, err := j.cleanUpNow(ctx, s, e, over)
		if done && errors.Is(err, storage.ErrLeaseLost) {
			return j.forgetLate(e)
		}
		return err
	})
	if err != nil && time.Since(began) >= cleanUpPatience {
		j.slow.Store(true)
	}
	return err
}

// cleanUpNow closes over at its end. done reports whether the Solver has cleaned up:
// an error is of the forgetting then.
func (j *journal) cleanUpNow(ctx context.Context, s Solver, e *records.JournalEntry, over chan struct{}) (done bool, err error) {
	defer close(over)
	defer j.m.cleaningUp.Delete(e.Key())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	if err := s.CleanUp(ctx, j.challenge(e, "clean up")); err != nil {
		return false, err
	}
	j.mu.Lock()
	again := j.entries[e.Key()] != e // presented again meanwhile
	if !again {
		delete(j.entries, e.Key())
	}
	j.mu.Unlock()
	if again {
		return true, nil
	}
	return true, j.m.records.Delete(ctx, e.Key())
}

// forgetLate removes an entry whose clean-up took longer than the lease was held for
// it, unless its challenge has been presented again since.
func (j *journal) forgetLate(e *records.JournalEntry) error {
	lease, err := j.m.lockWithin(j.m.ctx, records.IssueLock(j.id), cleanUpTimeout)
	if err != nil {
		return err
	}
	ctx := lease.Context()
	defer j.m.unlock(ctx, lease)
	stored, err := j.m.records.LoadJournal(ctx, records.Entry{Key: e.Key()})
	if err != nil || !stored.Noted.Equal(e.Noted) {
		return err
	}
	return j.m.records.Delete(ctx, e.Key())
}

// journalFor returns the context for an attempt under the lease for c, which ctx is
// of, once what is left of attempts before has been cleaned up.
func (m *Manager) journalFor(ctx context.Context, c *managed, a attempt) context.Context {
	j := m.newJournal(ctx, c.id())
	j.delays = true
	if m.hasSolvers() {
		back := idleSoon(ctx)
		if list, err := m.listJournal(ctx); err != nil || j.open(ctx, list) > 0 {
			m.leftovers.soon()
		}
		back()
	}
	j.slow.Store(false)
	j.progress = a.f.progress
	j.without = func(err error) bool { return isNewer(err) || m.goesWithout(ctx, c, err) }
	return context.WithValue(ctx, journalKey{}, j)
}

func (m *Manager) newJournal(lease context.Context, id string) *journal {
	return &journal{m: m, id: id, lease: lease, entries: map[string]*records.JournalEntry{}}
}

// listJournal returns what is left for any certificate, and tells when that cannot be
// looked for.
func (m *Manager) listJournal(ctx context.Context) ([]records.Entry, error) {
	list, err := m.records.List(ctx, records.Journal)
	if err != nil {
		m.log.Warn("challenges that were left could not be looked for", "err", err)
	}
	return list, err
}

// open reads what list has of attempts before and cleans it up. It returns how many
// could not be.
func (j *journal) open(ctx context.Context, list []records.Entry) (left int) {
	for _, found := range list {
		if found.ID != j.id {
			continue
		}
		e, err := j.m.records.LoadJournal(ctx, found)
		var damaged *records.DamagedError
		switch {
		case errors.As(err, &damaged):
			j.m.log.Warn("it is not known any more which challenge was left: if it was a DNS one its TXT record may be there still", "err", err)
			err = j.m.records.Delete(ctx, found.Key)
		case err == nil:
			j.entries[found.Key] = e
		}
		if err != nil && !isNotExist(err) && !isNewer(err) {
			j.m.log.Warn("a challenge that was left could not be looked at", "err", err)
			left++
		}
	}
	return left + j.cleanUpLeft(ctx)
}

// cleanUpLeft cleans up all there is, side by side. It returns how many could not
// be that there is a Solver for.
func (j *journal) cleanUpLeft(ctx context.Context) int {
	j.mu.Lock()
	var all []*records.JournalEntry
	for _, e := range j.entries {
		all = append(all, e)
	}
	j.mu.Unlock()
	var left atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxCleanUps)
	for _, e := range all {
		log := j.m.log.With("name", e.Name, "challenge", e.Type, "issuer", e.Issuer, "record", e.DNSName)
		s := j.m.solverFor(e)
		if s == nil {
			log.Warn("a challenge of an earlier configuration is left, and there is no Solver that could clean it up: configure one again, or remove its record by hand")
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := j.cleanUp(ctx, s, e); err != nil {
				left.Add(1)
				log.Warn("a challenge that was left could not be cleaned up; it is tried again", "err", err)
			}
		})
	}
	wg.Wait()
	return int(left.Load())
}

// maxCleanUps is how many challenges that were left are cleaned up at once for one
// certificate.
const maxCleanUps = 10

// hasSolvers reports whether any issuer has Solvers of the caller's.
func (m *Manager) hasSolvers() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, iss := range m.issuers {
		if b, ok := iss.Issuer.(*acmeIssuer); ok && len(b.conf.Solvers) > 0 {
			return true
		}
	}
	return false
}

// solverFor returns the Solver that cleans up what an entry is of: the one that
// presented it, else one for the same challenge type, of its certificate's issuers or
// of the Config's. nil: there is none.
func (m *Manager) solverFor(e *records.JournalEntry) Solver {
	var candidates []*issuer
	if c := m.managedByID(e.Bundle); c != nil {
		c.mu.Lock()
		candidates = append(candidates, c.cfg.issuers...)
		c.mu.Unlock()
	}
	m.mu.Lock()
	if iss := m.issuers[e.Issuer]; iss != nil {
		candidates = slices.Insert(candidates, 0, iss)
	}
	m.mu.Unlock()
	for _, iss := range append(candidates, m.bound...) {
		if b, ok := iss.Issuer.(*acmeIssuer); ok && b.conf.Solvers[e.Type] != nil {
			return b.conf.Solvers[e.Type]
		}
	}
	return nil
}
