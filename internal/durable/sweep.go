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

// farAhead is how far ahead a file's time must be to be of a clock that was wrong:
// a sweep may take long itself.
const farAhead = time.Hour

// Sweep removes the temporary files below dir that were last written longer
// than olderThan ago, by the clock that gives dir's files their times, or when that
// was wrong: the ones of writers that died. A replacement takes well under a second,
// so that a minute is plenty; a living writer whose file is swept gets an error and
// the target keeps its content. Folders that may not be entered, such as
// lost+found, are passed over: no writer of ours was there. What else fails is
// reported, joined, after the rest is done. It ends early, with the cause of
// ctx's end, when ctx ends.
func Sweep(ctx context.Context, dir string, olderThan time.Duration) error {
	var errs []error
	now, err := timeIn(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweeping folder %q: %w", dir, err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && d.Type().IsRegular() && IsTemp(d.Name()) {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				if age := now.Sub(info.ModTime()); age > olderThan || age < -farAhead {
					err = os.Remove(path)
				}
			}
			d = nil
		}
		passedOver := path != dir && d != nil && errors.Is(err, fs.ErrPermission)
		if err != nil && !passedOver && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		return nil // a folder that could not be read is left by itself
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("sweeping folder %q: %w", dir, err)
	}
	return nil
}

// timeIn returns the time that a file has which is written in dir now.
func timeIn(dir string) (time.Time, error) {
	path := TempPath(dir)
	err := os.WriteFile(path, nil, 0o600)
	if err != nil {
		return time.Time{}, err
	}
	info, err := os.Stat(path)
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
