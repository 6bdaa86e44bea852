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

const (
	// tidyAge is how long ago a file must have been written, by this host's clock,
	// for Tidy to touch its lock. A wrong clock costs a retry only.
	tidyAge = time.Hour

	// gonePrefix begins the names of folders of locks that are being removed.
	gonePrefix = ".gone-"
)

// Tidy removes the folders of locks that have been free, or their holders dead,
// for an hour. A lock whose holder died on another host, or before this one was
// booted, is removed by a later call that sees it unchanged. The error joins what
// could not be done; the rest was. It ends early with the cause of ctx's end.
func (f *Folder) Tidy(ctx context.Context) error {
	if err := f.tidy(ctx); err != nil {
		return fmt.Errorf("tidying locks in folder %q: %w", f.dir, err)
	}
	return nil
}

func (f *Folder) tidy(ctx context.Context) error {
	ctx, leave, err := f.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
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
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(f.dir, e.Name())
		switch {
		case e.IsDir() && strings.HasPrefix(e.Name(), gonePrefix): // its remover died
			errs = append(errs, os.RemoveAll(path))
		case e.IsDir() && isFolderName(e.Name()) && isOld(path):
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

// tidyLock removes the lock in dir. It takes the lock as any taker does; the
// heartbeat holds it for a TTL. When it cannot it returns what it saw.
func (f *Folder) tidyLock(dir string, before sighting) (sighting, error) {
	t := &taker{folder: f, dir: dir, seen: before}
	l, err := t.try()
	if l == nil {
		return t.seen, err
	}
	// Whoever has seen a generation in dir does not find it in the next folder.
	gone := filepath.Join(f.dir, gonePrefix+rand.Text())
	if err := os.Rename(dir, gone); err != nil {
		return sighting{}, errors.Join(err, l.Unlock())
	}
	l.discard()
	return sighting{}, os.RemoveAll(gone)
}

// isOld reports whether nothing was written in the folder of a lock for long.
func isOld(dir string) bool {
	limit := time.Now().Add(-tidyAge)
	old := true
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		old = old && err == nil && info.ModTime().Before(limit)
		return err
	})
	return old && err == nil
}
