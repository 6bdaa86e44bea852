package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/internal/filelock"
)

// locksDir is the folder of locks, in the storage's.
const locksDir = "locks"

// Lock implements Locker. Within this Dir waiters get the lock in the order in
// which they came; among processes there is no order.
func (d *Dir) Lock(ctx context.Context, name string) (Lease, error) {
	if err := checkCall(ctx, "locking", name); err != nil {
		return nil, err
	}
	if err := d.enter(); err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	held, err := d.lock(ctx, name)
	if err != nil {
		d.running.Done()
		return nil, err
	}
	l := NewLease(ctx, name, LeaseOptions{
		Token:   held.Token(),
		Verify:  func() error { return leaseLostIf(held.Held()) },
		Release: func(context.Context) error { return leaseLostIf(held.Unlock()) },
	})
	context.AfterFunc(held.Context(), func() {
		defer d.running.Done()
		l.Lose()          // unless it was unlocked
		_ = held.Unlock() // says that it was lost
	})
	return l, nil
}

// lock waits for the lock. That the folder is gone goes before what came of it.
func (d *Dir) lock(ctx context.Context, name string) (*filelock.Lock, error) {
	gone := d.checkRoot() // or the lock would be made in the folder that is there
	if gone == nil {
		held, err := d.locks.Lock(ctx, name)
		if err == nil {
			return held, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("locking name %q: %w", name, endOf(ctx))
		}
		if gone = d.checkRoot(); gone == nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("locking name %q: %w", name, gone)
}

// leaseLostIf makes an error of a lock that was lost one that is ErrLeaseLost.
func leaseLostIf(err error) error {
	if errors.Is(err, filelock.ErrLost) {
		return fmt.Errorf("%w: %w", ErrLeaseLost, err)
	}
	return err
}

// Tidy removes what processes that died have left in the folder: temporary
// files, and the files of locks that nobody has used for an hour. It takes each
// lock as any taker does, so that it is never in the way of a living holder. It
// returns when ctx ends, or with what it could not remove.
func (d *Dir) Tidy(ctx context.Context) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.running.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.closing, func() { cancel(d.checkOpen()) })()
	err := errors.Join(durable.Sweep(ctx, d.dir, sweepAge), d.locks.Tidy(ctx))
	if err != nil {
		return fmt.Errorf("tidying storage folder %q: %w", d.dir, err)
	}
	return nil
}
