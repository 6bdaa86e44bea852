package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/schedule"
	"github.com/certwright/certwright/storage"
)

const (
	cleanLock = "clean" // the name of the lease

	defaultCleanInterval = 24 * time.Hour
	defaultCleanGrace    = 14 * 24 * time.Hour

	// cleanFirst bounds the time from the start to the first look: a program
	// that is restarted over and over cleans all the same.
	cleanFirst = 10 * time.Minute

	// cleanPause comes before every call for a single key, so that a round in a
	// large storage takes its time and not the storage's.
	cleanPause = 20 * time.Millisecond

	// cleanPatience bounds the wait for a lease: whoever holds it is at work on
	// what would be removed.
	cleanPatience = 2 * time.Second

	// cleanRetry is when a round that failed is tried again, at the latest.
	cleanRetry = time.Hour

	// changesAge is the age at which an instance that has told of no change since
	// has nothing to tell.
	changesAge = 24 * time.Hour
)

// cleanRule says how one kind of record goes.
type cleanRule struct {
	kind     records.Kind
	grace    time.Duration // it stays for so long after it is of no use by itself
	managed  bool          // also that of certificates that are managed here
	lease    bool          // it goes under the lease for issuing it
	remember bool          // its time does not move, so that it is read once
}

// rules lists what can go stale. An account never does.
func (c *cleaner) rules() []cleanRule {
	return []cleanRule{
		{kind: records.Certs, grace: c.grace, lease: true, remember: true},
		{kind: records.Orders, grace: c.grace, lease: true},
		{kind: records.Holds, grace: c.grace, managed: true},
		{kind: records.Staples, grace: c.grace},
		{kind: records.RenewalInfos, grace: c.grace},
		{kind: records.ChangeLists, grace: changesAge, managed: true},
	}
}

// cleaner removes from storage what nobody needs any more. Rounds run one at a
// time, beside all other work.
type cleaner struct {
	m        *Manager
	task     schedule.Task
	interval time.Duration
	grace    time.Duration
	busy     atomic.Bool

	// later says from when on a certificate of a name that is not managed here
	// can be stale, so that it need not be read before. Only the round uses it.
	later map[string]time.Time
}

// Schedule implements schedule.Work.
func (c *cleaner) Schedule() *schedule.Task { return &c.task }

// Due implements schedule.Work: it begins a round unless one is running, and
// plans the next when it ends.
func (c *cleaner) Due() {
	if !c.busy.CompareAndSwap(false, true) {
		return
	}
	m := c.m
	m.spawn(func() {
		next := jittered(time.Now(), min(c.interval, cleanRetry)) // also when the storage ends the goroutine
		defer func() {
			c.busy.Store(false)
			if m.ctx.Err() == nil {
				m.queue.Set(c, next.Unix())
			}
		}()
		next = c.run(m.ctx)
	})
}

// String names the cleaning in errors of the schedule.
func (c *cleaner) String() string { return "cleaning" }

// run does a round if one is due and returns when to look again.
func (c *cleaner) run(ctx context.Context) (next time.Time) {
	defer c.m.calls.begin("the cleaning of storage")()
	retry := jittered(time.Now(), min(c.interval, cleanRetry))
	defer func() {
		if p := recover(); p != nil {
			next = retry
			c.m.log.Error("recovered a panic while cleaning storage", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	next, err := c.round(ctx)
	switch {
	case err == nil:
		return next
	case ctx.Err() != nil, errors.Is(err, errBusy), errors.Is(err, storage.ErrLeaseLost), errors.Is(err, fs.ErrClosed):
		// Closing, another instance is cleaning, or the storage was closed
		// before the Manager: nobody has to do anything about it.
		c.m.log.Debug("cleaning of storage ended early", "err", err)
	default:
		c.m.log.Warn("storage could not be cleaned", "due", retry, "err", err)
	}
	return retry
}

// round cleans under a lease, so that one instance does the work of all.
func (c *cleaner) round(ctx context.Context) (time.Time, error) {
	if next, due, err := c.due(ctx); err != nil || !due {
		return next, err
	}
	lease, err := c.m.lockWithin(ctx, cleanLock, cleanPatience)
	if err != nil {
		return time.Time{}, err
	}
	defer c.m.unlock(ctx, lease)
	ctx = lease.Context()
	if next, due, err := c.due(ctx); err != nil || !due {
		return next, err
	}
	began := time.Now()
	removed, err := c.sweep(ctx)
	if removed > 0 {
		c.m.log.Info("storage cleaned", "removed", removed, "took", time.Since(began))
	}
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now().UTC().Truncate(time.Second) // as the schedule has it
	if err := c.m.records.StoreCleaned(ctx, records.Cleaned{At: now, Removed: removed}); err != nil {
		return time.Time{}, err
	}
	// The others come a little later: whoever cleaned knows which certificates
	// need not be read.
	return now.Add(c.interval), nil
}

// due reports whether a round is due, and else when to look again.
func (c *cleaner) due(ctx context.Context) (next time.Time, due bool, err error) {
	r, err := c.m.records.LoadCleaned(ctx)
	var damaged *records.DamagedError
	switch {
	case isNotExist(err):
		return time.Time{}, true, nil
	case errors.As(err, &damaged):
		c.m.log.Warn("the record of the last cleaning is damaged; cleaning now", "err", err)
		return time.Time{}, true, nil
	case err != nil:
		return time.Time{}, false, err
	}
	now := time.Now()
	if r.At.After(now.Add(c.interval)) { // by a clock that was wrong
		return time.Time{}, true, nil
	}
	if next = r.At.Add(c.interval); !now.Before(next) {
		return time.Time{}, true, nil
	}
	spread := time.Duration(rand.Float64() * float64(c.interval) / 10)
	return next.Add(c.interval/20 + spread).Round(0), false, nil
}

// tidier is a Storage that can hold what is no key's, left by processes that
// died.
type tidier interface {
	Tidy(ctx context.Context) error
}

// sweep looks at everything that can go stale. It goes on after an error.
func (c *cleaner) sweep(ctx context.Context) (removed int, err error) {
	var errs []error
	for _, r := range c.rules() {
		n, err := c.apply(ctx, r)
		removed += n
		errs = append(errs, err)
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
	}
	n, err := c.m.table.Clean(ctx)
	removed += n
	errs = append(errs, err)
	if c.m.cleanUpLeft(ctx) {
		c.m.leftovers.soon()
	}
	left, damaged, err := c.m.resealAll(ctx)
	if err != nil {
		errs = append(errs, fmt.Errorf("%d records are still sealed with another key: %w", left, err))
	}
	for _, err := range damaged {
		c.m.log.Info("not sealed anew: the record is damaged", "err", err)
	}
	if t, ok := storage.Find[tidier](c.m.rawStorage); ok {
		errs = append(errs, t.Tidy(ctx))
	}
	if ctx.Err() != nil {
		return removed, context.Cause(ctx)
	}
	return removed, errors.Join(errs...)
}

// apply removes what a rule finds stale. What it cannot read it leaves alone.
func (c *cleaner) apply(ctx context.Context, r cleanRule) (removed int, err error) {
	list, err := c.m.records.List(ctx, r.kind)
	if err != nil {
		return 0, err
	}
	var errs []error
	later := make(map[string]time.Time)
	for _, e := range list {
		if c.stays(r, e) {
			continue
		}
		if at, known := c.later[e.Key]; r.remember && known && time.Now().Before(at) {
			later[e.Key] = at
			continue
		}
		gone, at, err := c.look(ctx, r, e)
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case gone:
			removed++
		case r.remember && !at.IsZero():
			later[e.Key] = at
		}
	}
	if r.remember {
		c.later = later
	}
	return removed, errors.Join(errs...)
}

// stays reports whether a record stays whatever it holds.
func (c *cleaner) stays(r cleanRule, e records.Entry) bool {
	return !r.managed && !e.Previous && c.m.managedByID(e.ID) != nil
}

// look reads a record and removes it when it is stale. It returns from when on it
// is.
func (c *cleaner) look(ctx context.Context, r cleanRule, e records.Entry) (gone bool, staleAt time.Time, err error) {
	staleAt, err = c.staleAt(ctx, r, e)
	if err != nil || staleAt.IsZero() || time.Now().Before(staleAt) {
		return false, staleAt, err
	}
	if r.lease {
		lease, err := c.m.lockWithin(ctx, records.IssueLock(e.ID), cleanPatience)
		if errors.Is(err, errBusy) {
			return false, time.Time{}, nil // somebody wants it after all
		}
		if err != nil {
			return false, time.Time{}, err
		}
		defer c.m.unlock(ctx, lease)
		ctx = lease.Context()
		// What is there now may be new.
		staleAt, err = c.staleAt(ctx, r, e)
		if err != nil || staleAt.IsZero() || time.Now().Before(staleAt) || c.stays(r, e) {
			return false, staleAt, err
		}
	}
	if err := pauseFor(ctx, cleanPause); err != nil {
		return false, staleAt, err
	}
	if err := c.m.records.Delete(ctx, e.Key); err != nil {
		return false, staleAt, err
	}
	c.m.log.Debug("removed from storage", "key", e.Key, "stale_since", staleAt)
	return true, staleAt, nil
}

// staleAt returns from when on a record is stale, and zero when that cannot be
// told or it is gone.
func (c *cleaner) staleAt(ctx context.Context, r cleanRule, e records.Entry) (time.Time, error) {
	if err := pauseFor(ctx, cleanPause); err != nil {
		return time.Time{}, err
	}
	at, err := c.m.records.Over(ctx, e)
	switch {
	case isMissing(err), isNewer(err):
		if !isNotExist(err) {
			c.m.log.Info("not cleaned: the record cannot be read", "key", e.Key, "err", err)
		}
		return time.Time{}, nil
	case err != nil || at.IsZero():
		return time.Time{}, err
	}
	return at.Add(r.grace), nil
}

// pauseFor waits for d, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
