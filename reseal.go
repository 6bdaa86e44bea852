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
// sealed with another, or not at all, and returns how many could not be: while it
// is above zero the other keys are still needed. The error says which and why.
// Each certificate and account is done under its own lease, so that Reseal may
// run while instances are at work; those that store meanwhile must have the new
// key first too. It is also done, bit by bit, whenever storage is cleaned.
//
// Without a sealed storage (package storage, Seal) there is nothing to do.
func (m *Manager) Reseal(ctx context.Context) (left int, err error) {
	s, ok := storage.Find[resealer](m.rawStorage)
	if !ok {
		return 0, nil
	}
	leases := map[string]string{} // by key
	for _, kind := range []records.Kind{records.Certs, records.Orders} {
		list, err := m.records.List(ctx, kind)
		if err != nil {
			return 0, err
		}
		for _, e := range list {
			leases[e.Key] = records.IssueLock(e.ID)
		}
	}
	list, err := m.records.List(ctx, records.Accounts)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		leases[e.Key] = accountLock(e.ID)
	}
	keys, err := m.conf.Storage.List(ctx, "v1")
	if err != nil {
		return 0, fmt.Errorf("listing keys below %q: %w", "v1", err)
	}
	var errs []error
	for _, key := range keys {
		if err := m.reseal(ctx, s, key, leases[key]); err != nil {
			left++
			errs = append(errs, fmt.Errorf("sealing %q anew: %w", key, err))
		}
		if ctx.Err() != nil {
			return left, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return left, errors.Join(errs...)
}

// reseal seals one value anew, under the named lease unless that is empty.
func (m *Manager) reseal(ctx context.Context, s resealer, key, lock string) error {
	again := func(ctx context.Context) error {
		_, err := s.Reseal(ctx, key)
		return err
	}
	if lock == "" {
		return again(ctx)
	}
	return m.underLease(ctx, lock, again)
}
