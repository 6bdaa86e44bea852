package certwright

import (
	"context"
	"errors"
	"fmt"

	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// resealer is a Storage that seals its values and can change the key of one.
type resealer interface {
	Reseal(ctx context.Context, key string) (changed bool, err error)
}

// Reseal seals every record of this storage with the first of its keys that was
// sealed with another, or not at all, and returns how many could not be, or were not
// reached before ctx ended. Only when it is zero and the error is nil are the other
// keys not needed any more. The error says which and why; one that is damaged counts
// too, although it is of no use with any key. Of two seals around each other each
// has its keys changed.
// Each certificate and account is done under its own lease, so that Reseal may
// run while instances are at work; those that store meanwhile must have the new
// key first too. It is also done, bit by bit, whenever storage is cleaned.
//
// Without a sealed storage (package storage, Seal) there is nothing to do.
func (m *Manager) Reseal(ctx context.Context) (left int, err error) {
	left, damaged, err := m.resealAll(ctx)
	return left + len(damaged), errors.Join(append(damaged, err)...)
}

// resealAll is Reseal, with what is damaged apart.
func (m *Manager) resealAll(ctx context.Context) (left int, damaged []error, err error) {
	s, ok := storage.Find[resealer](m.rawStorage)
	if !ok {
		return 0, nil, nil
	}
	leases, err := m.leasesOfRecords(ctx)
	if err != nil {
		return 0, nil, err
	}
	keys, err := m.conf.Storage.List(ctx, "v1")
	if err != nil {
		return 0, nil, fmt.Errorf("listing keys below %q: %w", "v1", err)
	}
	var errs []error
	for i, key := range keys {
		if ctx.Err() != nil {
			left += len(keys) - i
			errs = append(errs, context.Cause(ctx))
			break
		}
		err := m.reseal(ctx, s, key, leases[key])
		if err != nil {
			err = fmt.Errorf("sealing %q anew: %w", key, err)
		}
		switch {
		case errors.Is(err, storage.ErrDamaged):
			damaged = append(damaged, err)
		case err != nil:
			left++
			errs = append(errs, err)
		}
	}
	return left, damaged, errors.Join(errs...)
}

// leasesOfRecords returns the names of the leases under which records are changed,
// by key; all others are changed without.
func (m *Manager) leasesOfRecords(ctx context.Context) (map[string]string, error) {
	leases := map[string]string{}
	for kind, lock := range map[records.Kind]func(id string) string{
		records.Certs: records.IssueLock, records.Orders: records.IssueLock, records.Journal: records.IssueLock, records.Accounts: accountLock,
	} {
		list, err := m.records.List(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			leases[e.Key] = lock(e.ID)
		}
	}
	return leases, nil
}

// reseal seals one value anew, under the named lease unless that is empty. A storage
// that panics, or waits for the end of its context, is that value's error.
func (m *Manager) reseal(ctx context.Context, s resealer, key, lock string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the storage panicked: %v", p)
		}
	}()
	again := func(ctx context.Context) error {
		return bounded(ctx, callTimeout, func(ctx context.Context) error {
			_, err := s.Reseal(ctx, key)
			return err
		})
	}
	if lock == "" {
		return again(ctx)
	}
	return m.underLease(ctx, lock, again)
}
