package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Sweep removes the temporary files below dir that were last written longer
// than olderThan ago, by this host's clock: the ones of writers that died. A
// replacement takes well under a second, so that an hour is plenty even when
// another host's clock is off; a living writer whose file is swept gets an error
// and the target keeps its content. Folders that may not be entered, such as
// lost+found, are passed over: no writer of ours was there. What else fails is
// reported, joined, after the rest is done. It ends early, with the cause of
// ctx's end, when ctx ends.
func Sweep(ctx context.Context, dir string, olderThan time.Duration) error {
	var errs []error
	oldest := time.Now().Add(-olderThan)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && (path == dir || !errors.Is(err, fs.ErrPermission)) {
				errs = append(errs, err)
			}
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && IsTemp(d.Name()) {
			errs = append(errs, sweepFile(path, d, oldest))
		}
		return nil
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("sweeping folder %q: %w", dir, err)
	}
	return nil
}

// sweepFile removes a temporary file that is older than oldest.
func sweepFile(path string, d fs.DirEntry, oldest time.Time) error {
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.ModTime().Before(oldest) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
