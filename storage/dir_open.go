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
	"github.com/certwright/certwright/internal/filelock"
)

const (
	minLeaseTTL = 100 * time.Millisecond

	// sweepAge is how old a temporary file is when its writer must be dead.
	sweepAge = time.Hour

	// sweepAfter is when a folder that was opened is swept: not while a server
	// that starts reads its certificates.
	sweepAfter = 30 * time.Second

	// maxPathsWarned is how many paths of one kind get a warning of their own.
	maxPathsWarned = 10

	// entriesAtOnce is how many entries of a folder are read at a time.
	entriesAtOnce = 64
)

// DirOptions is how a Dir works. Its zero value is what OpenDir uses, and right
// for most.
type DirOptions struct {
	// LeaseTTL is how long a lock that is taken here outlives a holder that is
	// stopped, or that died on another host. Zero means 30 seconds; less than 100
	// milliseconds is refused. Instances need not agree on it.
	LeaseTTL time.Duration
}

// OpenDir opens a Dir in the folder at path. It makes the folder, with the
// permissions 0700, when it is missing; a folder that is there keeps its own.
// The error names the path when the folder cannot be made or read, and when it
// holds nothing and cannot be written to. All else is no error: see Warnings.
// Half a minute later, unless it was closed, it removes temporary files that
// dead writers left. The caller closes the Dir.
//
// Opening takes no longer with many values than with few, unless others may
// enter the folder: then every file is looked at.
func OpenDir(path string) (*Dir, error) { return DirOptions{}.Open(path) }

// Open is OpenDir with these options.
func (o DirOptions) Open(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("opening storage folder: no path given")
	}
	if o.LeaseTTL != 0 && o.LeaseTTL < minLeaseTTL {
		return nil, fmt.Errorf("opening storage folder %q: LeaseTTL of %v, at least %v", path, o.LeaseTTL, minLeaseTTL)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening storage folder %q: %w", path, err)
	}
	d := &Dir{dir: abs, swept: make(chan struct{})}
	if err := d.open(); err != nil {
		return nil, fmt.Errorf("opening storage folder %q: %w", abs, err)
	}
	d.locks = filelock.New(filepath.Join(abs, locksDir), filelock.Options{TTL: o.LeaseTTL})
	d.closing, d.close = context.WithCancel(context.Background())
	d.sweeping = time.AfterFunc(sweepAfter, d.sweep)
	return d, nil
}

// open makes the folder, looks at what is in it and tries to write.
func (d *Dir) open() error {
	if err := durable.Mkdir(d.dir, 0o700); err != nil {
		return err
	}
	var err error
	if d.root, err = os.Stat(d.dir); err != nil {
		return err
	}
	holds, err := d.holdsRecord(".")
	if err != nil {
		return err
	}
	d.fresh = !holds
	if err := d.probe(); err != nil && d.fresh {
		return err
	} else if err != nil {
		d.warn("nothing can be stored in %s, what is there is used: %v", d.dir, err)
	}
	mode := d.root.Mode()
	if runtime.GOOS == "windows" || mode.Perm()&0o077 == 0 { // where they mean nothing
		return nil
	}
	d.warn("permissions of %s are %04o, open to others, and left so: narrow them to 0700 unless they are meant", d.dir, mode.Perm())
	d.checkRecords()
	return nil
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
// stops at the first. A folder below that may not be read is passed over.
func (d *Dir) holdsRecord(rel string) (bool, error) {
	f, err := os.Open(filepath.Join(d.dir, rel))
	if errors.Is(err, fs.ErrNotExist) || rel != "." && errors.Is(err, fs.ErrPermission) {
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

// checkRecords closes the values' files to others. In a folder that nobody else
// may enter there is no need to.
func (d *Dir) checkRecords() {
	wide := 0
	err := d.walk(context.Background(), ".", func(key string, e fs.DirEntry) {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
			return
		}
		path, outcome := d.recordFile(key), "narrowed to 0600"
		if err := os.Chmod(path, 0o600); err != nil {
			outcome = "cannot be narrowed: " + err.Error()
		}
		if wide++; wide <= maxPathsWarned {
			d.warn("permissions of %s are %04o, open to others: %s", path, info.Mode().Perm(), outcome)
		}
	})
	if wide > maxPathsWarned {
		d.warn("and %d more files below %s with permissions wider than 0600", wide-maxPathsWarned, d.dir)
	}
	if err != nil {
		d.warn("not all permissions below %s could be looked at: %v", d.dir, err)
	}
}

// sweep removes the temporary files of writers that died.
func (d *Dir) sweep() {
	defer close(d.swept)
	if err := durable.Sweep(d.closing, d.dir, sweepAge); err != nil && d.closing.Err() == nil {
		d.warn("%v", err)
	}
}
