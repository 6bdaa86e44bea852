package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/durable"
)

// Tidy removes what processes that died have left in the folder: temporary
// files, and the files of locks that nobody holds. It takes each lock as any
// taker does, so that it is never in the way of a living holder. It returns when
// ctx ends, or with what it could not remove.
func (d *Dir) Tidy(ctx context.Context) error {
	if !d.enter() {
		return d.closedError()
	}
	defer d.running.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.closing, func() { cancel(fs.ErrClosed) })()

	errs := []error{durable.Sweep(ctx, d.dir, sweepAge)}
	entries, err := os.ReadDir(d.locksFolder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	var leases []*leaseTaker
	for _, e := range entries {
		if ctx.Err() != nil {
			return endOf(ctx)
		}
		path := filepath.Join(d.locksFolder(), e.Name())
		switch {
		case strings.HasSuffix(e.Name(), ".lock") && e.Type().IsRegular():
			errs = append(errs, clearKernelLock(path))
		case strings.HasSuffix(e.Name(), ".lease") && e.IsDir():
			leases = append(leases, &leaseTaker{dir: path, ttl: d.ttl, link: os.Link})
		}
	}
	errs = append(errs, d.tidyLeases(ctx, leases))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tidying storage folder %q: %w", d.dir, err)
	}
	return nil
}

// tidyLeases removes the lease files that do not change for a TTL. They are
// watched all at once, since each has to be watched for so long.
func (d *Dir) tidyLeases(ctx context.Context, takers []*leaseTaker) error {
	if len(takers) == 0 {
		return nil
	}
	var errs []error
	for _, t := range takers {
		_, err := t.look()
		errs = append(errs, err)
	}
	t := time.NewTimer(d.ttl + d.ttl/10 + time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return endOf(ctx)
	}
	for _, t := range takers {
		if ctx.Err() != nil {
			return endOf(ctx)
		}
		free, err := t.look()
		if err != nil || !free {
			errs = append(errs, err)
			continue
		}
		if len(t.seen) == 0 {
			_ = os.Remove(t.dir) // not empty: somebody has just come
			continue
		}
		l, err := t.take()
		if err == nil && l != nil {
			err = l.release()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
