package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/internal/filelock"
)

// maxRecord is the longest value of a Dir, in bytes. A longer file is none of
// ours, and is not read into memory.
const maxRecord = 16 << 20

// Dir is a Storage and a Locker in a folder. Any number of processes may share
// the folder, on one host or, through a network file system, on several. It is
// safe for concurrent use. Its zero value is not usable: call OpenDir.
//
// Each value is one file, replaced by rename and flushed to the disk before
// Store returns; values have at most 16 MiB. Keys are escaped so that any of
// them is a safe file name on Linux, macOS and Windows, and so that a folder can
// be moved between them: v1/certs/ca/*.example.com is the file
// v1/certs/ca/%2a.example.com.rec. Files that no key leads to are left alone and
// not listed. A folder or a pipe in the place of a value's file, and a file that is
// longer than any value, are ErrDamaged; a folder is moved aside by the next Store
// or Delete of the key. Keys of many hundred bytes can go beyond the longest path that the
// system knows (1,024 bytes on macOS), which is an error.
//
// Locks are in the folder locks. When a process dies its locks are free at once
// for others on its host, and a LeaseTTL later for others on a network file
// system and on Windows. A holder that stops for longer than that is replaced, and
// sees it when it goes on. No host compares its clock with another's.
//
// Store and Delete look for a lease in their context, before and after they
// change a file. When it has ended, or its lock is another's, the error is
// ErrLeaseLost.
//
// A folder that was unmounted, and shows an empty place, is an error and not an
// empty storage. One that was mounted again, or restored from a backup, while
// the Dir was open is used on.
type Dir struct {
	dir   string
	fresh bool
	locks *filelock.Folder

	closing  context.Context // ends with Close
	close    context.CancelFunc
	running  sync.WaitGroup // calls of Lock, Tidy and sweep, and what ends leases
	sweeping *time.Timer    // runs sweep, once
	patience time.Duration  // of Close

	mu       sync.Mutex  // guards root, warnings, and running against its end
	root     fs.FileInfo // what dir was when it was last looked at
	warnings []string
}

// Path returns the absolute path of the folder.
func (d *Dir) Path() string { return d.dir }

// Fresh reports whether the folder held no value when it was opened.
func (d *Dir) Fresh() bool { return d.fresh }

// Warnings returns what was found wrong without being in the way of the folder's
// use: that nothing can be written, permissions wider than 0700 for the folder
// and 0600 for files. Each says which path. Files in a folder of 0700 are not
// looked at, since nobody else reaches them there; a Store gives its file 0600 in
// any case. What the sweep of dead writers' files met, half a minute after
// opening or sooner, comes to it then; a Manager logs what there was when it was made.
func (d *Dir) Warnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.warnings)
}

func (d *Dir) warn(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warnings = append(d.warnings, fmt.Sprintf(format, args...))
}

// Load implements Storage.
func (d *Dir) Load(ctx context.Context, key string) ([]byte, error) {
	if err := d.checkCall(ctx, "loading", key); err != nil {
		return nil, err
	}
	value, err := durable.ReadFile(d.recordFile(key), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		// With the folder gone everything is missing, which is no answer.
		if gone := d.checkRoot(); gone != nil {
			return nil, fmt.Errorf("loading key %q: %w", key, gone)
		}
	}
	if errors.Is(err, durable.ErrNotRegular) || errors.Is(err, durable.ErrTooLarge) { // none that was stored
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("loading key %q: %w", key, err)
	}
	return value, nil
}

// Store implements Storage.
func (d *Dir) Store(ctx context.Context, key string, value []byte) error {
	if err := d.checkCall(ctx, "storing", key); err != nil {
		return err
	}
	if err := d.store(ctx, key, value); err != nil {
		return fmt.Errorf("storing key %q: %w", key, err)
	}
	if d.sweeping.Stop() {
		go d.sweep()
	}
	return nil
}

func (d *Dir) store(ctx context.Context, key string, value []byte) error {
	if len(value) > maxRecord {
		return fmt.Errorf("%d bytes, at most %d: %w", len(value), maxRecord, durable.ErrTooLarge)
	}
	if err := d.checkRoot(); err != nil {
		return err
	}
	path := d.recordFile(key)
	err := durable.WriteFile(ctx, path, value, func() error {
		err := LeaseErr(ctx)
		if err == nil && ctx.Err() != nil {
			err = endOf(ctx)
		}
		if err == nil {
			makeWay(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	return LeaseErr(ctx)
}

// makeWay moves a folder that is in the place of a value's file aside, to where no
// key leads. What goes wrong shows in what it makes way for.
func makeWay(path string) {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		// With the slash it fails when another has put a value there meanwhile.
		_ = os.Rename(path+"/", path+".ASIDE-"+rand.Text())
	}
}

// Delete implements Storage. Folders that it leaves empty go too.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := d.checkCall(ctx, "deleting", key); err != nil {
		return err
	}
	err := d.checkRoot()
	if err == nil {
		err = LeaseErr(ctx)
	}
	path := d.recordFile(key)
	if err == nil {
		makeWay(path)
		err = durable.Remove(ctx, path)
	}
	if err == nil {
		err = LeaseErr(ctx)
	}
	if err != nil {
		return fmt.Errorf("deleting key %q: %w", key, err)
	}
	for dir := filepath.Dir(path); dir != d.dir; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // not empty, or a writer is at work in it
		}
	}
	return nil
}

// List implements Storage.
func (d *Dir) List(ctx context.Context, prefix string) ([]string, error) {
	err := checkList(ctx, prefix)
	if err == nil {
		err = d.checkOpen()
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	err = d.walk(ctx, folderPath(prefix), func(key string, _ fs.DirEntry, err error) error {
		if err == nil && below(key, prefix) {
			keys = append(keys, key)
		}
		return err
	})
	if err == nil {
		err = d.checkRoot()
	}
	if err != nil {
		return nil, fmt.Errorf("listing keys below %q: %w", prefix, err)
	}
	slices.Sort(keys)
	return keys, nil
}

// walk calls found for every record in the folder rel and below, and with an
// error for what could not be read. It ends with the error that found returns. A
// folder or file that vanishes meanwhile is passed over.
func (d *Dir) walk(ctx context.Context, rel string, found func(key string, e fs.DirEntry, err error) error) error {
	f, err := os.Open(filepath.Join(d.dir, rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return found("", nil, err)
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	for {
		if ctx.Err() != nil {
			return endOf(ctx)
		}
		entries, err := f.ReadDir(entriesAtOnce) // a few, for whoever needs only one
		for _, e := range entries {
			path := filepath.Join(rel, e.Name())
			var err error
			if key, ok := recordKey(path); ok {
				err = found(key, e, nil)
			} else if leadsToRecords(path, e) {
				err = d.walk(ctx, path, found)
			}
			if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return found("", nil, err)
		}
	}
}

// Close ends every lease of this Dir, as lost, and every wait for one, and
// returns when nothing of them is left, or after ten seconds in which the file
// system did not answer. Later calls of other methods fail with fs.ErrClosed.
// Closing twice does nothing.
func (d *Dir) Close() error {
	d.mu.Lock()
	d.close()
	d.mu.Unlock()
	d.sweeping.Stop()
	err := inTime(context.WithoutCancel(d.closing), d.patience, func(context.Context) error {
		d.locks.Close()
		d.running.Wait()
		return nil
	})
	if err != nil {
		return fmt.Errorf("closing storage folder %q: %w; check that it can be reached", d.dir, err)
	}
	return nil
}

// checkCall returns the error that a call has before it starts.
func (d *Dir) checkCall(ctx context.Context, verb, key string) error {
	if err := checkCall(ctx, verb, key); err != nil {
		return err
	}
	if err := d.checkOpen(); err != nil {
		return fmt.Errorf("%s key %q: %w", verb, key, err)
	}
	return nil
}

func (d *Dir) checkOpen() error {
	if d.closing.Err() != nil {
		return fmt.Errorf("using storage folder %q: %w", d.dir, fs.ErrClosed)
	}
	return nil
}

// enter counts a call in that Close waits for, and reports whether the Dir is
// open.
func (d *Dir) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.checkOpen()
	if err == nil {
		d.running.Add(1)
	}
	return err
}

// checkRoot returns an error when the folder is gone: removed, or hidden because
// its volume was unmounted. That error is never fs.ErrNotExist. Another folder
// in its place is good when it has been used as a storage.
func (d *Dir) checkRoot() error {
	info, err := os.Stat(d.dir)
	if err != nil {
		return fmt.Errorf("storage folder %q is gone: %v", d.dir, err) //nolint:errorlint // must not be taken for a missing key
	}
	d.mu.Lock()
	same := os.SameFile(info, d.root)
	d.mu.Unlock()
	if same {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(d.dir, locksDir)); err != nil {
		holds, err := d.holdsRecord()
		if err != nil {
			return fmt.Errorf("storage folder %q is another one now: %v", d.dir, err) //nolint:errorlint // as above
		}
		if !holds {
			return fmt.Errorf("storage folder %q is another one now, and empty: mount its volume again", d.dir)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root = info
	return nil
}

// recordFile returns the path of key's file.
func (d *Dir) recordFile(key string) string { return filepath.Join(d.dir, recordPath(key)) }
