package filelock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// The delays between two looks at a lock grow with the time waited.
const (
	firstDelay = time.Millisecond
	soonDelay  = 25 * time.Millisecond  // within the first ten seconds
	lastDelay  = 100 * time.Millisecond // from 40 s on
)

// taker wants the lock in the folder dir. It is not safe for concurrent use.
type taker struct {
	folder *Folder
	dir    string
	seen   sighting
}

// sighting is what a lock's highest generation was seen to hold, and since when.
type sighting struct {
	number  uint64
	content string
	since   time.Time
}

// wait waits until it has the lock or ctx ends.
func (t *taker) wait(ctx context.Context) (*Lock, error) {
	begun := time.Now()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if l, err := t.try(); l != nil || err != nil {
			return l, err
		}
		delay := time.NewTimer(jitter(delayAfter(time.Since(begun))))
		select {
		case <-delay.C:
		case <-ctx.Done():
			delay.Stop()
		}
	}
}

// delayAfter returns how long to wait for the next look after a wait so long.
func delayAfter(waited time.Duration) time.Duration {
	return max(firstDelay, min(waited/8, soonDelay), min(waited/400, lastDelay))
}

// jitter returns d give or take a quarter, so that those who wait do not march
// in step.
func jitter(d time.Duration) time.Duration { return d*3/4 + mathrand.N(d/2) }

// try tries once. It returns nil and nil when another has the lock.
func (t *taker) try() (l *Lock, err error) {
	passable, err := t.look()
	if err == nil && passable {
		l, err = t.take()
	}
	if err != nil {
		return nil, fmt.Errorf("%w; check that this process may read and write in folder %q and that its disk is not full", err, t.folder.dir)
	}
	return l, nil
}

// look reads the highest generation and reports whether it may be passed.
func (t *taker) look() (bool, error) {
	begun := time.Now()
	top, err := highest(t.dir)
	if err != nil {
		return false, err
	}
	if top.number == 0 {
		t.seen = sighting{}
		return true, nil
	}
	var content string
	var dead bool
	if top.regular {
		content, dead, err = t.inspect(generation(t.dir, top.number))
	}
	if vanished(err) {
		return false, nil // passed, and removed
	}
	if err != nil {
		return false, err
	}
	if t.seen.number != top.number || t.seen.content != content {
		// The look may have been slow: time counts from its end.
		t.seen = sighting{top.number, content, time.Now()}
	}
	r, ok := parse(content)
	ttl := t.folder.ttl
	if ok {
		ttl = r.TTL
	}
	return dead || r.Free || begun.Sub(t.seen.since) >= ttl, nil
}

// inspect reads a generation and reports whether its holder died on this host.
func (t *taker) inspect(path string) (content string, dead bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", false, err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	content, err = readAll(f)
	if err != nil {
		return "", false, err
	}
	r, _ := parse(content)
	if r.Free || r.Host == "" {
		return content, false, nil
	}
	host, err := hostOf(t.folder.boot, f)
	if err != nil || r.Host != host {
		return content, false, err
	}
	dead, err = kernelLockIsFree(f)
	return content, dead, err
}

// take tries to make the generation after the one last seen. It returns nil and
// nil when another was faster.
func (t *taker) take() (*Lock, error) {
	path := generation(t.dir, t.seen.number+1)
	if len(filepath.Base(path)) > maxDigits {
		return nil, fmt.Errorf("no number is left for lock file %q; remove folder %q while nobody uses it", path, t.dir)
	}
	if t.seen.number == 0 { // nothing above the folder of all locks is made
		for _, dir := range []string{t.folder.dir, t.dir} {
			if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
	}
	begun := time.Now()
	file, err := t.folder.create(filepath.Join(t.dir, tempPrefix+rand.Text()))
	if vanished(err) { // somebody removed the folder
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l := newLock(t, file, begun)
	if err := t.begin(l, file.Name()); err != nil {
		l.discard()
		if errors.Is(err, ErrLost) || errors.Is(err, fs.ErrExist) || vanished(err) {
			return nil, nil // another was faster
		}
		return nil, err
	}
	l.sweep()
	return l, nil
}

// begin makes a lock of a temporary file. The file has the kernel's lock and a
// whole record before it has its name: a holder that dies at any moment leaves a
// generation that is seen to be dead.
func (t *taker) begin(l *Lock, temp string) error {
	defer os.Remove(temp) //nolint:errcheck // one that stays is swept
	host, err := hostOf(t.folder.boot, l.file)
	if err != nil {
		return err
	}
	locked := false
	if host != "" {
		if locked, err = kernelLock(l.file); err != nil {
			return err
		}
	}
	if locked {
		l.record.Host = host
	} else {
		err = l.file.Close()
		l.file = nil
	}
	if err != nil {
		return err
	}
	if err := overwrite(temp, l.record); err != nil {
		return err
	}
	if err := t.name(l, temp); err != nil {
		return err
	}
	if t.seen.content != "" {
		// In a folder that is another one now there may be a lower number that is
		// held. Nobody but a holder above it removes what was passed.
		content, err := readFile(generation(t.dir, t.seen.number))
		if err == nil && content != t.seen.content {
			err = fmt.Errorf("%w: another wrote into what was passed", ErrLost)
		}
		if err != nil {
			return err
		}
	}
	return l.Held()
}

// name gives a generation's file its name, which must be nobody's. Where files
// have but one name it is made under that name, with the heartbeat alone: the
// kernel's lock would come too late.
func (t *taker) name(l *Lock, temp string) error {
	err := t.folder.link(temp, l.path())
	if err != nil && !errors.Is(err, fs.ErrExist) && sameFile(temp, l.path()) {
		err = nil // only the answer was lost
	}
	if err == nil {
		l.named = true
		return nil
	}
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	file, err := t.folder.create(l.path())
	if err != nil {
		return err
	}
	l.named, l.record.Host = true, ""
	err = file.Close()
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	return errors.Join(err, overwrite(l.path(), l.record))
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
