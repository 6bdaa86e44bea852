package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/certwright/certwright/internal/durable"
)

const (
	defaultLeaseTTL = 15 * time.Second
	minLeaseTTL     = 100 * time.Millisecond

	// sweepAge is how old a temporary file is when its writer must be dead.
	sweepAge = time.Hour

	// sweepAfter is when a folder that was opened is swept: not while a server
	// that starts reads its certificates.
	sweepAfter = 30 * time.Second

	// maxPathsWarned is how many paths of one kind get a warning of their own.
	maxPathsWarned = 10

	// entriesAtOnce is how many entries of a folder are read at a time.
	entriesAtOnce = 64

	// leasesMarker, in the folder of locks, says that lease files are in use.
	leasesMarker = "leases"
)

// DirOptions is how a Dir works. Its zero value is right for most.
type DirOptions struct {
	// LeaseFiles makes locks lease files with a heartbeat, on any file system.
	// False leaves it to what the file system is found to be.
	LeaseFiles bool

	// LeaseTTL is how long the heartbeat of a lease file must stand still before
	// its lock may be taken over. Zero means 15 seconds; less than 100
	// milliseconds is refused. All instances must use the same. It has no
	// meaning for locks of the kernel.
	LeaseTTL time.Duration
}

// OpenDir opens a Dir in the folder dir with the zero DirOptions.
// It makes the folder, with the permissions 0700, when it is missing. The error
// names the path when the folder cannot be made or written to. Permissions that
// are too wide do not stop it: see Warnings. Half a minute later, unless it was
// closed, it removes temporary files that dead writers left. The caller closes
// the Dir.
//
// Opening takes no longer with many values than with few, unless others may
// enter the folder: then every file is looked at.
func OpenDir(dir string) (*Dir, error) {
	return DirOptions{}.Open(dir)
}

// Open is OpenDir with these options.
func (o DirOptions) Open(dir string) (*Dir, error) {
	if dir == "" {
		return nil, errors.New("opening storage folder: no path given")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening storage folder %q: %w", dir, err)
	}
	d := &Dir{
		dir: abs, ttl: o.LeaseTTL, leases: make(map[*dirLease]struct{}), left: make(map[string]struct{}),
		swept: make(chan struct{}), clear: make(chan struct{}, 1),
	}
	if d.ttl == 0 {
		d.ttl = defaultLeaseTTL
	}
	if d.ttl < minLeaseTTL {
		return nil, fmt.Errorf("opening storage folder %q: LeaseTTL of %v, at least %v", dir, d.ttl, minLeaseTTL)
	}
	d.base = filepath.Join(abs, "x")
	d.base = d.base[:len(d.base)-1]
	d.marker = filepath.Join(d.locksFolder(), leasesMarker)
	if err := d.open(o.LeaseFiles); err != nil {
		return nil, fmt.Errorf("opening storage folder %q: %w", abs, err)
	}
	d.closing, d.close = context.WithCancel(context.Background())
	d.clearing = time.AfterFunc(leftFor, d.clearLeft) // no lock has been left
	d.clearing.Stop()
	d.sweeping = time.AfterFunc(sweepAfter, d.sweep)
	return d, nil
}

// open makes the folder, looks at what is in it and tries to write.
func (d *Dir) open(leaseFiles bool) error {
	if err := durable.Mkdir(d.dir, 0o700); err != nil {
		return err
	}
	ours, err := d.ours()
	if err != nil {
		return err
	}
	if err := durable.Mkdir(d.locksFolder(), 0o700); err != nil {
		return err
	}
	info, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	d.mode = info.Mode()
	if err := readID(d.dir, &d.root); err != nil {
		return err
	}
	if err := d.probe(); err != nil {
		return err
	}
	holds, err := d.holdsRecord(".")
	if err != nil {
		return err
	}
	d.fresh = !holds
	if runtime.GOOS != "windows" && d.mode.Perm()&0o077 != 0 { // which mean nothing there
		d.checkFolderMode(ours)
		if err := d.checkRecords(); err != nil {
			return err
		}
	}
	if leaseFiles || networkFS(d.dir) {
		return d.useLeaseFiles()
	}
	return nil
}

// ours reports whether the folder is empty or has been used by a Dir
// before. Only such a one has its permissions changed: a folder of somebody
// else's may be shared on purpose.
func (d *Dir) ours() (bool, error) {
	if _, err := os.Lstat(d.locksFolder()); err == nil {
		return true, nil
	}
	f, err := os.Open(d.dir)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// probe writes and removes a file.
func (d *Dir) probe() error {
	path := durable.TempPath(d.dir)
	err := os.WriteFile(path, []byte("x"), 0o600)
	if gone := os.Remove(path); err == nil {
		err = gone
	}
	return err
}

// holdsRecord reports whether there is a value in the folder rel or below. It
// stops at the first.
func (d *Dir) holdsRecord(rel string) (bool, error) {
	f, err := os.Open(filepath.Join(d.dir, rel))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	for {
		entries, err := f.ReadDir(entriesAtOnce)
		for _, e := range entries {
			path := filepath.Join(rel, e.Name())
			if _, ok := recordKey(path); ok {
				return true, nil
			}
			if !leadsToRecords(path, e) {
				continue
			}
			if holds, err := d.holdsRecord(path); holds || err != nil {
				return holds, err
			}
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// checkFolderMode warns that others may enter the folder and, when it is ours,
// closes it. A sticky folder is one that is shared.
func (d *Dir) checkFolderMode(ours bool) {
	if !ours || d.mode&fs.ModeSticky != 0 {
		d.warn(d.dir, d.mode, "left as it is, since it holds other things or is shared")
		return
	}
	d.tighten(d.dir, d.mode, 0o700)
}

// checkRecords closes the values' files to others. In a folder that nobody else
// may enter there is no need to.
func (d *Dir) checkRecords() error {
	wide := 0
	err := d.walk(context.Background(), ".", func(key string, e fs.DirEntry) {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
			return
		}
		wide++
		said := len(d.warnings)
		d.tighten(d.recordFile(key), info.Mode(), 0o600)
		if wide > maxPathsWarned {
			d.warnings = d.warnings[:said]
		}
	})
	if wide > maxPathsWarned {
		d.warnings = append(d.warnings, fmt.Sprintf("and %d more files below %s with permissions wider than 0600", wide-maxPathsWarned, d.dir))
	}
	return err
}

// tighten narrows the permissions of path and warns of what they were.
func (d *Dir) tighten(path string, mode, want fs.FileMode) {
	if err := os.Chmod(path, want); err != nil {
		d.warn(path, mode, "cannot be narrowed: "+err.Error())
		return
	}
	d.warn(path, mode, fmt.Sprintf("narrowed to %04o", want))
}

func (d *Dir) warn(path string, mode fs.FileMode, outcome string) {
	d.warnings = append(d.warnings, fmt.Sprintf("permissions of %s are %04o, open to others: %s", path, mode.Perm(), outcome))
}

// sweep removes the temporary files of writers that died.
func (d *Dir) sweep() {
	defer close(d.swept)
	err := durable.Sweep(d.closing, d.dir, sweepAge)
	if err == nil || d.closing.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warnings = append(d.warnings, err.Error())
}

// useLeaseFiles turns to lease files and leaves word of it for other instances.
func (d *Dir) useLeaseFiles() error {
	const text = "Locks in this folder are lease files. Remove this file only while nothing uses the folder.\n"
	if _, err := os.Stat(d.marker); err != nil {
		if err := durable.WriteFile(d.marker, []byte(text), 0o600); err != nil {
			return err
		}
	}
	d.leaseFiles.Store(true)
	return nil
}

func (d *Dir) locksFolder() string { return filepath.Join(d.dir, locksDir) }
