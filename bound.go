package certwright

import (
	"context"
	"fmt"
	"time"

	"github.com/certwright/certwright/storage"
)

const (
	// callTimeout bounds a call of the storage for one key, so that one that
	// never answers costs a retry and not a name.
	callTimeout = time.Minute

	// listTimeout bounds a list, which may have a lot to say.
	listTimeout = 10 * time.Minute
)

// boundStorage bounds the time that each call of a storage takes. It relies on
// the storage to honour the context.
type boundStorage struct{ Storage }

// bounded calls f with a time-out.
func bounded(ctx context.Context, limit time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from the storage within %v", limit))
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

func (s boundStorage) Load(ctx context.Context, key string) (value []byte, err error) {
	switch s.Storage.(type) {
	case *storage.Dir, *storage.Memory: // a bound would not end the system call that hangs
		return s.Storage.Load(ctx, key)
	}
	err = bounded(ctx, callTimeout, func(ctx context.Context) error {
		value, err = s.Storage.Load(ctx, key)
		return err
	})
	return value, err
}

func (s boundStorage) Store(ctx context.Context, key string, value []byte) error {
	return bounded(ctx, callTimeout, func(ctx context.Context) error { return s.Storage.Store(ctx, key, value) })
}

func (s boundStorage) Delete(ctx context.Context, key string) error {
	return bounded(ctx, callTimeout, func(ctx context.Context) error { return s.Storage.Delete(ctx, key) })
}

func (s boundStorage) List(ctx context.Context, prefix string) (keys []string, err error) {
	if _, ok := s.Storage.(*storage.Memory); ok { // nothing hangs
		return s.Storage.List(ctx, prefix)
	}
	err = bounded(ctx, listTimeout, func(ctx context.Context) error {
		keys, err = s.Storage.List(ctx, prefix)
		return err
	})
	return keys, err
}
