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
	"syscall"
	"time"
)

// The delays between two looks at a lock grow with the time waited.
const (
	firstDelay = time.Millisecond
	soonDelay  = 25 * time.Millisecond  // within the first ten seconds
	lastDelay  = 100 * time.Millisecond // from 40 s on
)

// maxMkdirs bounds the tries to make a lock's folder that somebody removes.
const maxMkdirs = 10

// taker wants the lock in the folder dir. It is not safe for concurrent use.
type taker struct {
	folder *Folder
	dir    string
	plain  bool // takes no lock of the kernel
	seen   sighting

	temp   string    // path of the file that is to become a generation; empty: to be made
	file   *os.File  // temp, with the kernel's lock on it; nil: it has none
	host   string    // this host; empty: unknown
	record record    // in temp
	linked time.Time // when others may first have seen temp as a generation
}

// sighting is what a lock's highest generation was seen to hold, and since when.
type sighting struct {
	number  uint64
	content string
	since   time.Time
}

// wait waits until it has the lock or ctx ends.
func (t *taker) wait(ctx context.Context) (*Lock, error) {
	defer t.drop()
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
func (t *taker) try() (*Lock, error) {
	if t.temp == "" {
		if err := t.prepare(); err != nil {
			t.drop()
			return nil, t.failed("making temporary lock file", err)
		}
	}
	passable, err := t.look()
	if err != nil {
		return nil, t.failed("looking at lock", err)
	}
	if !passable {
		return nil, nil
	}
	return t.take()
}

// failed says what was being done and what can be done about it.
func (t *taker) failed(doing string, err error) error {
	return fmt.Errorf("%s: %w; check that this process may read and write in folder %q and that its disk is not full",
		doing, err, t.folder.dir)
}

// prepare makes the temporary file and takes the kernel's lock on it.
func (t *taker) prepare() error {
	token := rand.Text()
	temp := filepath.Join(t.dir, tempPrefix+token)
	file, err := t.createIn(temp)
	if err != nil {
		return err
	}
	t.temp, t.file = temp, file
	t.record = record{Token: token, TTL: t.folder.ttl}
	if t.host, err = hostOf(t.folder.boot, file); err != nil {
		return err
	}
	locked := false
	if t.host != "" && !t.plain {
		if locked, err = tryKernelLock(file, exclusive); err != nil {
			return err
		}
	}
	if locked {
		t.record.Host = t.host
	} else if err := t.closeFile(); err != nil {
		return err
	}
	return overwrite(temp, t.record)
}

// createIn makes the file in the lock's folder, and the folder when it is
// missing. The folder above all locks is made too, but nothing above that.
func (t *taker) createIn(temp string) (*os.File, error) {
	for try := 1; ; try++ {
		file, err := create(temp)
		if !errors.Is(err, fs.ErrNotExist) || try > maxMkdirs {
			return file, err
		}
		for _, dir := range []string{t.folder.dir, t.dir} {
			if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
	}
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
	if dead || ok && r.Free {
		return true, nil
	}
	ttl := t.folder.ttl
	if ok {
		ttl = r.TTL
	}
	return begun.Sub(t.seen.since) >= ttl, nil
}

// inspect reads a generation and reports whether its holder died on this host.
func (t *taker) inspect(path string) (content string, dead bool, err error) {
	f, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return "", false, err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	content, err = readAll(f)
	if err != nil {
		return "", false, err
	}
	if r, ok := parse(content); !ok || r.Free || r.Host == "" || r.Host != t.host {
		return content, false, nil
	}
	dead, err = tryKernelLock(f, shared) // those who look are not in each other's way
	if dead {
		err = unlockKernel(f)
	}
	return content, dead, err
}

// take tries to make the generation after the one last seen. It returns nil and
// nil when another was faster.
func (t *taker) take() (*Lock, error) {
	number := t.seen.number + 1
	path := generation(t.dir, number)
	if len(filepath.Base(path)) > maxDigits {
		return nil, fmt.Errorf("no number is left for lock file %q; remove folder %q while nobody uses it", path, t.dir)
	}
	t.linked = time.Now()
	if made, err := t.publish(path); !made || err != nil {
		return nil, err
	}
	l := newLock(t, number)
	t.file = nil // is the lock's
	t.drop()
	if err := l.Held(); err != nil {
		unlockErr := l.Unlock()
		if errors.Is(err, ErrLost) {
			return nil, nil
		}
		return nil, t.failed("looking at lock", errors.Join(err, unlockErr))
	}
	l.sweep()
	return l, nil
}

// publish makes the temporary file the generation at path, if there is none, and
// reports whether it did. When in doubt the file itself says: over a network an
// error may come of an answer that was lost.
func (t *taker) publish(path string) (bool, error) {
	err := t.folder.link(t.temp, path)
	if noLinks(err) {
		err = t.publishPlain(path)
	}
	if err == nil {
		return true, nil
	}
	if content, readErr := readFile(path); readErr == nil {
		if r, ok := parse(content); ok && r.Token == t.record.Token {
			return true, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case vanished(err): // somebody removed the folder, or the temporary file
		t.drop()
		return false, nil
	}
	return false, t.failed("making lock file", err)
}

// noLinks reports whether the file system has no hard links: 1 is EPERM, and
// ERROR_INVALID_FUNCTION of Windows.
func noLinks(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.Errno(1)) || errors.Is(err, syscall.EINVAL)
}

// publishPlain is publish without hard links. The file is empty for a moment,
// which is only a generation that has not yet changed for a TTL.
func (t *taker) publishPlain(path string) error {
	t.record.Host = "" // the kernel's lock is on another file
	f, err := create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Close(), overwrite(path, t.record)); err != nil {
		return err
	}
	// Still there: the folder is the one in which the number was read.
	if _, err := os.Stat(t.temp); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return t.closeFile()
}

// closeFile gives the kernel's lock up.
func (t *taker) closeFile() error {
	f := t.file
	t.file = nil
	return dropKernelLock(f)
}

// drop removes the temporary file. Tidy sees to one that stays.
func (t *taker) drop() {
	_ = t.closeFile()
	if t.temp != "" {
		_ = os.Remove(t.temp)
	}
	t.temp = ""
}
