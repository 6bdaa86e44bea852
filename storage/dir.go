package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/durable"
)

// maxRecord is the longest value of a Dir, in bytes. A longer file is
// none of ours, and is not read into memory.
const maxRecord = 16 << 20

// Dir is a Storage and a Locker in a folder. Any number of processes may
// share the folder, on one host or, through a network file system, on several.
// It is safe for concurrent use. Its zero value is not usable: call
// OpenDir.
//
// Each value is one file, replaced by rename and flushed to the disk before
// Store returns; values have at most 16 MiB. Keys are escaped so that any of
// them is a safe file name on Linux, macOS and Windows, and so that a folder can
// be moved between them: v1/certs/ca/*.example.com is the file
// v1/certs/ca/%2a.example.com.rec. Files that no key leads to are left alone and
// not listed. Keys of many hundred bytes can go beyond the longest path that the
// system knows (1,024 bytes on macOS), which is an error.
//
// Locks are files in the folder locks, held with the kernel's file locks: when a
// process dies its locks are free at once. The file of a lock that is free stays
// for about a second. On network file systems, and where
// the kernel has no file locks, they are lease files with a heartbeat: a dead
// process's lock is free LeaseTTL after the last beat, and a holder that could
// not beat for three quarters of LeaseTTL has lost its lease. No host compares
// its clock with another's. Once any instance has used lease files in a folder
// all others do, which the file locks/leases tells them; it may be removed while
// no instance runs.
//
// Store looks for a lease in its context and refuses with ErrLeaseLost when the
// lease has ended or its lock file says so.
type Dir struct {
	dir    string
	base   string      // dir as the begin of a longer path
	root   fileID      // what dir was when it was opened
	mode   fs.FileMode // likewise
	marker string      // the path of leasesMarker
	fresh  bool
	ttl    time.Duration

	leaseFiles atomic.Bool
	turns      turns
	watches    lockWatches

	closing context.Context // ends with Close
	close   context.CancelFunc
	running sync.WaitGroup // calls of Lock and watchers of leases
	once    sync.Once      // closes

	// Timers are made with the Dir, and never within a synctest bubble
	// that it was not made in.
	sweeping *time.Timer   // runs sweep, once
	swept    chan struct{} // closed by sweep
	clearing *time.Timer   // runs clearLeft
	clear    chan struct{} // holds what the one clearLeft that runs has put in

	mu       sync.Mutex // guards what follows
	closed   bool
	leases   map[*dirLease]struct{}
	left     map[string]struct{} // paths of lock files for clearLeft
	warnings []string
}

// Path returns the absolute path of the folder.
func (d *Dir) Path() string { return d.dir }

// Fresh reports whether the folder held no value when it was opened.
func (d *Dir) Fresh() bool { return d.fresh }

// Warnings returns what was found wrong without being in the way of the folder's
// use: mostly permissions, when the folder was opened, that were wider than 0700
// for the folder and 0600 for files. Each says which path, and whether it could
// be mended. Files in a folder of 0700 are not looked at, since nobody else
// reaches them there; a Store gives its file 0600 in any case. What the sweep of
// dead writers' files met, half a minute after opening, comes to it then; a
// Manager logs what there was when it was made.
func (d *Dir) Warnings() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.warnings)
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
	return nil
}

func (d *Dir) store(ctx context.Context, key string, value []byte) error {
	if len(value) > maxRecord {
		return fmt.Errorf("%d bytes, at most %d: %w", len(value), maxRecord, durable.ErrTooLarge)
	}
	if err := d.checkRoot(); err != nil {
		return err
	}
	f, err := durable.DiskOf(ctx).Prepare(d.recordFile(key), value, 0o600)
	if err != nil {
		return err
	}
	err = LeaseErr(ctx)
	if err == nil && ctx.Err() != nil {
		err = endOf(ctx)
	}
	if err != nil {
		return errors.Join(err, f.Discard())
	}
	return f.Commit()
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
	if err != nil {
		return fmt.Errorf("deleting key %q: %w", key, err)
	}
	path := d.recordFile(key)
	if err := durable.DiskOf(ctx).Remove(path); err != nil {
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
	err = d.walk(ctx, folderPath(prefix), func(key string, _ fs.DirEntry) {
		if below(key, prefix) {
			keys = append(keys, key)
		}
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

// walk calls found for every record in the folder rel and below. A folder or
// file that vanishes meanwhile is passed over.
func (d *Dir) walk(ctx context.Context, rel string, found func(string, fs.DirEntry)) error {
	if ctx.Err() != nil {
		return endOf(ctx)
	}
	entries, err := os.ReadDir(filepath.Join(d.dir, rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(rel, e.Name())
		if key, ok := recordKey(path); ok {
			found(key, e)
			continue
		}
		if !leadsToRecords(path, e) {
			continue
		}
		if err := d.walk(ctx, path, found); err != nil {
			return err
		}
	}
	return nil
}

// leadsToRecords reports whether the folder's entry at path, relative to the
// storage's, is a folder that can have records in it or below.
func leadsToRecords(path string, e fs.DirEntry) bool {
	return e.IsDir() && path != locksDir && maybeFolder(e.Name())
}

// Close ends every lease of this Dir, as lost, and every wait for one,
// and returns when nothing of them is left. Later calls of other methods fail
// with fs.ErrClosed. Closing twice does nothing.
func (d *Dir) Close() (err error) {
	d.once.Do(func() { err = d.end() })
	return err
}

func (d *Dir) end() error {
	d.mu.Lock()
	d.closed = true
	leases := make([]*dirLease, 0, len(d.leases))
	for l := range d.leases {
		leases = append(leases, l)
	}
	d.mu.Unlock()
	d.close()
	for _, l := range leases {
		l.lose()
		l.unwatch()
	}
	d.running.Wait()
	if !d.sweeping.Stop() {
		<-d.swept
	}
	d.clearing.Stop()
	d.clearLeft() // after one that runs
	return d.watches.close()
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
		return d.closedError()
	}
	return nil
}

func (d *Dir) closedError() error {
	return fmt.Errorf("using storage folder %q: %w", d.dir, fs.ErrClosed)
}

// checkRoot returns an error when the folder is no longer the one that was
// opened: removed, or hidden because its volume was unmounted. That error is
// never fs.ErrNotExist.
func (d *Dir) checkRoot() error {
	var there fileID
	if err := readID(d.dir, &there); err != nil {
		return fmt.Errorf("storage folder %q is gone: %v", d.dir, err) //nolint:errorlint // must not be taken for a missing key
	}
	if !there.same(&d.root) {
		return fmt.Errorf("storage folder %q is not the one that was opened", d.dir)
	}
	return nil
}

// recordFile returns the path of key's file.
func (d *Dir) recordFile(key string) string {
	if isPlainKey(key) { // as nearly all are, and then no more than this is needed
		return d.base + filepath.FromSlash(key) + recordExt
	}
	return d.base + recordPath(key)
}
