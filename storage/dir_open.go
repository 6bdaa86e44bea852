package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/internal/filelock"
)

const (
	minLeaseTTL = 100 * time.Millisecond

	// sweepAge is how old a temporary file is when its writer must be dead.
	sweepAge = time.Minute

	// sweepAfter is when a folder that was opened is swept: not while a server
	// that starts reads its certificates. Whoever stores before sweeps then, so
	// that a process that dies over and over leaves no more each time.
	sweepAfter = 30 * time.Second

	// entriesAtOnce is how many entries of a folder are read at a time.
	entriesAtOnce = 64
)

// DirOptions is how a Dir works. Its zero value is what OpenDir uses, and right
// for most.
type DirOptions struct {
	// LeaseTTL is how long a lock that is taken here outlives a holder that is
	// stopped, or that died on another host or on Windows. Zero means 30 seconds;
	// less than 100 milliseconds is refused. Instances need not agree on it.
	LeaseTTL time.Duration
}

// OpenDir opens a Dir in the folder at path. It makes the folder, with the
// permissions 0700, when it is missing; a folder that is there keeps its own. On
// Windows a folder, and the files in it, have the rights of the one above: see to
// it that others cannot read it.
// A path that begins with ~ is refused: no shell expands it.
// The error names the path when the folder cannot be made or read, and when it
// holds nothing and cannot be written to. All else is no error: see Warnings.
// Half a minute later or with the first Store, unless it was closed, it removes
// temporary files that dead writers left. The caller closes the Dir.
//
// Opening takes no longer with many values than with few, unless others may
// enter the folder: then every file is looked at.
func OpenDir(path string) (*Dir, error) { return DirOptions{}.Open(path) }

// Open is OpenDir with these options.
func (o DirOptions) Open(path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("opening storage folder: no path given")
	}
	if first, _, _ := strings.Cut(filepath.ToSlash(path), "/"); first == "~" || first == "$HOME" || first == "${HOME}" {
		return nil, fmt.Errorf("opening storage folder %q: %s is not expanded, only a shell does it; join the path to that of os.UserHomeDir", path, first)
	}
	if o.LeaseTTL != 0 && o.LeaseTTL < minLeaseTTL {
		return nil, fmt.Errorf("opening storage folder %q: LeaseTTL of %v, at least %v", path, o.LeaseTTL, minLeaseTTL)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening storage folder %q: %w", path, err)
	}
	d := &Dir{dir: abs, patience: releasePatience}
	if err := d.open(); err != nil {
		return nil, fmt.Errorf("opening storage folder %q: %w", abs, err)
	}
	d.locks = filelock.New(filepath.Join(abs, locksDir), o.LeaseTTL)
	d.closing, d.close = context.WithCancel(context.Background())
	d.sweeping = time.AfterFunc(sweepAfter, d.sweep)
	return d, nil
}

// open makes the folder, looks at what is in it and tries to write.
func (d *Dir) open() error {
	if err := durable.Mkdir(d.dir); err != nil {
		return err
	}
	var err error
	if d.root, err = os.Stat(d.dir); err != nil {
		return err
	}
	holds, err := d.holdsRecord()
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

// holdsRecord reports whether there is a value. It stops at the first. A folder
// below that may not be read is passed over.
func (d *Dir) holdsRecord() (bool, error) {
	root, err := os.Open(d.dir)
	if err != nil {
		return false, err
	}
	_ = root.Close() // nothing to lose
	err = d.walk(context.Background(), ".", func(_ string, _ fs.DirEntry, err error) error {
		switch {
		case err == nil:
			return fs.SkipAll
		case errors.Is(err, fs.ErrPermission):
			return nil
		}
		return err
	})
	if errors.Is(err, fs.SkipAll) {
		return true, nil
	}
	return false, err
}

// checkRecords closes the values' files to others. In a folder that nobody else
// may enter there is no need to.
func (d *Dir) checkRecords() {
	wide, first := 0, ""
	var failed error
	_ = d.walk(context.Background(), ".", func(key string, e fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			path := d.recordFile(key)
			if wide++; first == "" {
				first = fmt.Sprintf("%s with %04o", path, info.Mode().Perm())
			}
			err = os.Chmod(path, 0o600)
		}
		failed = cmp.Or(failed, err)
		return nil
	})
	if wide > 0 {
		d.warn("permissions of %d files below %s were open to others and are narrowed to 0600: %s, first", wide, d.dir, first)
	}
	if failed != nil {
		d.warn("not all permissions below %s could be looked at and narrowed: %v", d.dir, failed)
	}
}

// sweep removes the temporary files of writers that died.
func (d *Dir) sweep() {
	if d.enter() != nil {
		return
	}
	defer d.running.Done()
	if err := durable.Sweep(d.closing, d.dir, sweepAge); err != nil && d.closing.Err() == nil {
		d.warn("%v", err)
	}
}
