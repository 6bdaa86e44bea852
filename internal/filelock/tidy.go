package filelock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tidyAge is how long ago a file must have been written, by this host's clock,
// for Tidy to touch it. A wrong clock costs a retry only.
const tidyAge = time.Hour

// Tidy removes the folders of locks that have been free, or their holders dead,
// for an hour, and temporary files that dead processes left. A lock whose holder
// died on another host, or before this one was booted, is removed by a later
// call that sees it unchanged. The error joins what could not be done; the rest
// was. It ends early with the cause of ctx's end.
func (f *Folder) Tidy(ctx context.Context) error {
	if err := f.tidy(ctx); err != nil {
		return fmt.Errorf("tidying locks in folder %q: %w", f.dir, err)
	}
	return nil
}

func (f *Folder) tidy(ctx context.Context) error {
	if !f.enter() {
		return f.closedError()
	}
	defer f.calls.Done()
	entries, err := os.ReadDir(f.dir)
	if vanished(err) {
		return nil
	}
	errs := []error{err}
	f.mu.Lock()
	before := f.quiet
	f.mu.Unlock()
	quiet := make(map[string]sighting)
	for _, e := range entries {
		if err := errors.Join(context.Cause(ctx), context.Cause(f.closing)); err != nil {
			return err
		}
		path := filepath.Join(f.dir, e.Name())
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), tempPrefix): // its remover died
			errs = append(errs, os.RemoveAll(path))
		case e.IsDir() && isFolderName(e.Name()):
			seen, err := f.tidyLock(path, before[path])
			if seen.number > 0 {
				quiet[path] = seen
			}
			errs = append(errs, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = quiet
	return errors.Join(errs...)
}

// tidyLock removes the lock in dir if nobody has used it for long. It takes the
// lock as any taker does. When it cannot it returns what it saw.
func (f *Folder) tidyLock(dir string, before sighting) (sighting, error) {
	old, err := sweepTemps(dir)
	if !old || err != nil {
		return sighting{}, err
	}
	// No lock of the kernel, since some systems rename no folder in which a file
	// is open. The heartbeat holds the lock for a TTL.
	t := &taker{folder: f, dir: dir, plain: true, seen: before}
	defer t.drop()
	l, err := t.try()
	if l == nil {
		return t.seen, err
	}
	// Whoever has read a number in dir finds nothing there to link.
	gone := filepath.Join(f.dir, tempPrefix+rand.Text())
	if err := os.Rename(dir, gone); err != nil {
		return sighting{}, errors.Join(err, l.Unlock())
	}
	l.end(errUnlocked)
	return sighting{}, os.RemoveAll(gone)
}

// sweepTemps removes old temporary files from the folder of a lock, and reports
// whether all else there is old too.
func sweepTemps(dir string) (bool, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return false, ignoreMissing(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, ignoreMissing(err)
	}
	limit := time.Now().Add(-tidyAge)
	old := len(entries) > 0 || info.ModTime().Before(limit)
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil:
			errs = append(errs, ignoreMissing(err))
		case !strings.HasPrefix(e.Name(), tempPrefix):
			old = old && info.ModTime().Before(limit)
		case info.ModTime().Before(limit):
			errs = append(errs, ignoreMissing(os.Remove(filepath.Join(dir, e.Name()))))
		}
	}
	return old, errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
