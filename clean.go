package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/internal/schedule"
	"github.com/certwright/certwright/storage"
)

const (
	cleanKey = "clean" // in the schedule, and the name of the lease

	keyCleaned  = storageVersion + "/cleaned"
	kindCleaned = "cleaned"

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
)

// cleanedRecord says when storage was cleaned last, by whichever instance.
type cleanedRecord struct {
	At      time.Time `json:"at"` // the end of the round
	Removed int       `json:"removed"`
}

// cleaner removes from storage what nobody needs any more. Rounds run one at a
// time, beside the workers.
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

// Schedule, Run and String make it work for the schedule.

func (c *cleaner) Schedule() *schedule.Task { return &c.task }

func (c *cleaner) Run(context.Context) { c.start() }

func (c *cleaner) String() string { return "cleaning" }

// start begins a round unless one is running, and plans the next when it ends.
func (c *cleaner) start() {
	if !c.busy.CompareAndSwap(false, true) {
		return
	}
	m := c.m
	m.work.Go(func() {
		next := c.run(m.ctx)
		c.busy.Store(false)
		if m.ctx.Err() == nil {
			m.queue.Set(c, next)
		}
	})
}

// run does a round if one is due and returns when to look again.
func (c *cleaner) run(ctx context.Context) (next time.Time) {
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

// round cleans unless another instance has done so within the interval. It
// holds a lease, so that one instance does the work of all.
func (c *cleaner) round(ctx context.Context) (time.Time, error) {
	if next, due, err := c.due(ctx); err != nil || !due {
		return next, err
	}
	lease, err := c.m.lockWithin(ctx, cleanKey, cleanPatience)
	if err != nil {
		return time.Time{}, err
	}
	defer unlock(ctx, lease, c.m.log)
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
	now := time.Now().UTC().Round(0)
	err = storeRecord(ctx, c.m.conf.Storage, recordPlace{keyCleaned, kindCleaned}, cleanedRecord{At: now, Removed: removed})
	if err != nil {
		return time.Time{}, err
	}
	// The others come a little later: whoever cleaned knows which certificates
	// need not be read.
	return now.Add(c.interval), nil
}

// due reports whether a round is due, and else when to look again.
func (c *cleaner) due(ctx context.Context) (next time.Time, due bool, err error) {
	value, err := c.m.conf.Storage.Load(ctx, keyCleaned)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, true, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("loading %q: %w", keyCleaned, err)
	}
	var r cleanedRecord
	if err := record.Decode(kindCleaned, value, &r); err != nil {
		if errors.Is(err, record.ErrNewer) {
			return time.Time{}, false, fmt.Errorf("reading %q: %w", keyCleaned, err)
		}
		c.m.log.Warn("the record of the last cleaning is damaged; cleaning now", "err", fmt.Errorf("reading %q: %w", keyCleaned, err))
		return time.Time{}, true, nil
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

// sweep looks at everything that can go stale. It goes on after an error.
func (c *cleaner) sweep(ctx context.Context) (removed int, err error) {
	var errs []error
	for _, r := range c.rules() {
		n, err := c.apply(ctx, r)
		removed += n
		if err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
	}
	if t, ok := storage.Find[tidier](c.m.rawStorage); ok {
		errs = append(errs, t.Tidy(ctx))
	}
	if ctx.Err() != nil {
		return removed, context.Cause(ctx)
	}
	return removed, errors.Join(errs...)
}

// tidier is a Storage that can hold what is no key's, left by processes that
// died.
type tidier interface {
	Tidy(ctx context.Context) error
}

// apply removes what a rule finds stale. What it cannot read it leaves alone.
func (c *cleaner) apply(ctx context.Context, r cleanRule) (removed int, err error) {
	keys, err := c.m.conf.Storage.List(ctx, r.prefix)
	if err != nil {
		return 0, fmt.Errorf("listing keys below %q: %w", r.prefix, err)
	}
	var errs []error
	later := make(map[string]time.Time)
	for _, key := range keys {
		id, ours := r.idOf(key)
		if !ours || c.keeps(r, id) {
			continue
		}
		if at, known := c.later[key]; r.remember && known && time.Now().Before(at) {
			later[key] = at
			continue
		}
		gone, at, err := c.look(ctx, r, key, id)
		if ctx.Err() != nil {
			return removed, context.Cause(ctx)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case gone:
			removed++
		case r.remember && !at.IsZero():
			later[key] = at
		}
	}
	if r.remember {
		c.later = later
	}
	return removed, errors.Join(errs...)
}

// keeps reports whether the record of that ID stays whatever it holds.
func (c *cleaner) keeps(r cleanRule, id string) bool {
	return !r.anyone && c.m.entry(id) != nil
}

// look reads the value at key and removes it when it is stale. It returns from
// when on it is.
func (c *cleaner) look(ctx context.Context, r cleanRule, key, id string) (gone bool, staleAt time.Time, err error) {
	staleAt, err = c.staleAt(ctx, r, key, id)
	if err != nil || staleAt.IsZero() || time.Now().Before(staleAt) {
		return false, staleAt, err
	}
	if r.lease {
		lease, err := c.m.lockWithin(ctx, storageKey("issue", id), cleanPatience)
		if errors.Is(err, errBusy) {
			return false, time.Time{}, nil // somebody wants it after all
		}
		if err != nil {
			return false, time.Time{}, err
		}
		defer unlock(ctx, lease, c.m.log)
		ctx = lease.Context()
		// What is there now may be new.
		staleAt, err = c.staleAt(ctx, r, key, id)
		if err != nil || staleAt.IsZero() || time.Now().Before(staleAt) || c.keeps(r, id) {
			return false, staleAt, err
		}
	}
	if r.unless != "" {
		other := storageKey(r.unless, id)
		_, err := c.m.conf.Storage.Load(ctx, other)
		switch {
		case err == nil:
			return false, time.Time{}, nil
		case !errors.Is(err, fs.ErrNotExist):
			return false, time.Time{}, fmt.Errorf("loading %q: %w", other, err)
		}
	}
	if err := pauseFor(ctx, cleanPause); err != nil {
		return false, staleAt, err
	}
	if err := c.m.conf.Storage.Delete(ctx, key); err != nil {
		return false, staleAt, fmt.Errorf("deleting %q: %w", key, err)
	}
	c.m.log.Debug("removed from storage", "key", key, "stale_since", staleAt)
	return true, staleAt, nil
}

// staleAt returns from when on the value at key is stale, and zero when that
// cannot be told or it is gone.
func (c *cleaner) staleAt(ctx context.Context, r cleanRule, key, id string) (time.Time, error) {
	if err := pauseFor(ctx, cleanPause); err != nil {
		return time.Time{}, err
	}
	value, err := c.m.conf.Storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("loading %q: %w", key, err)
	}
	at, err := r.staleAt(id, value)
	if err != nil {
		c.m.log.Info("not cleaned: the record cannot be read", "key", key, "err", err)
		return time.Time{}, nil
	}
	return at, nil
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

// idOf returns the last component of key, and whether key has the form of the
// rule's keys: others are not ours.
func (r cleanRule) idOf(key string) (string, bool) {
	if !strings.HasPrefix(key, r.prefix+"/") {
		return "", false
	}
	parts := strings.Split(key, "/")
	return parts[len(parts)-1], len(parts) == r.parts
}
