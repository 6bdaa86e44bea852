package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Lease files, for file systems without a lock that holds on every host.
//
// A lock is a folder; each file in it, named by a number, is a turn. The highest
// number has the lock. A turn is taken by making the file with the next number,
// whole and only if it is not there (link), so that the server of the file
// system decides between two who try, and nobody ever touches another's living
// file. It may be taken when there is no file, or when the files have not
// changed for the TTL by the taker's own monotonic clock: a holder writes a new
// beat into its file three times a TTL. After taking, the taker reads back its
// token and looks once more: a file that it has not judged dead makes it step
// back. Dead files are removed, and so is the file at unlock.
//
// What a file holds says nothing but whether it is ours and whether it changes:
// an empty, cut, garbled or future-dated one dies like any other.

// leaseBeats is how many heartbeats a TTL has.
const leaseBeats = 3

// The shortest and the longest delay between two looks at a lease file.
const (
	firstLeaseTry = 500 * time.Microsecond
	lastLeaseTry  = 100 * time.Millisecond
)

// maxLeaseFile is how much of a lease file is looked at, in bytes.
const maxLeaseFile = 4096

// leaseFile is a lock held by a heartbeat.
type leaseFile struct {
	dir   string // of the lock
	turn  uint64
	token string
	ttl   time.Duration

	mu   sync.Mutex // guards beat, last
	beat uint64
	last time.Time // begin of the last good beat
}

// leaseTaker waits for a lock of lease files.
type leaseTaker struct {
	dir  string
	ttl  time.Duration
	link func(from, to string) error

	seen  map[uint64]string // the turns' contents at the last look
	since time.Time         // when the contents were first seen so
}

// lockLeaseFile waits for the lock in the folder dir.
func lockLeaseFile(ctx context.Context, dir string, ttl time.Duration) (*leaseFile, error) {
	t := &leaseTaker{dir: dir, ttl: ttl, link: os.Link}
	return t.wait(ctx)
}

func (t *leaseTaker) wait(ctx context.Context) (*leaseFile, error) {
	longest := min(lastLeaseTry, t.ttl/10)
	delay := pause{next: firstLeaseTry, soon: longest, longest: longest}
	for {
		free, err := t.look()
		if err != nil {
			return nil, err
		}
		if free {
			l, err := t.take()
			if err != nil || l != nil {
				return l, err
			}
		}
		if err := delay.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// look reads the turns and reports whether the next may be taken.
func (t *leaseTaker) look() (bool, error) {
	begun := time.Now()
	turns, err := readTurns(t.dir)
	if err != nil {
		return false, err
	}
	if t.seen == nil || !equalTurns(turns, t.seen) {
		// The look may have been slow, so that the time counts from its end.
		t.seen, t.since = turns, time.Now()
	}
	return len(turns) == 0 || begun.Sub(t.since) >= t.ttl, nil
}

// take tries to take the turn after those last seen. It returns nil and nil when
// another was faster.
func (t *leaseTaker) take() (*leaseFile, error) {
	turn := highest(t.seen) + 1
	l := &leaseFile{dir: t.dir, turn: turn, token: newLeaseToken(), ttl: t.ttl, last: time.Now()}
	if made, err := t.publish(l); !made || err != nil {
		return nil, err
	}
	turns, err := readTurns(t.dir)
	if err != nil {
		return nil, errors.Join(err, l.drop())
	}
	if !l.owns(turns[turn]) {
		return nil, nil
	}
	delete(turns, turn)
	for other, content := range turns {
		if was, judged := t.seen[other]; other > turn || !judged || was != content {
			return nil, l.drop()
		}
	}
	for other := range turns {
		if err := removeTurn(t.dir, other); err != nil {
			// Whoever comes next would have to wait for this one again.
			return nil, errors.Join(fmt.Errorf("taking over lock: %w", err), l.drop())
		}
	}
	if time.Since(l.last) > l.limit() {
		return nil, l.drop()
	}
	return l, nil
}

// publish makes the lease's file, whole, if there is none, and reports whether
// it did. When in doubt the file itself says: over a network an error may come
// of an answer that was lost.
func (t *leaseTaker) publish(l *leaseFile) (bool, error) {
	temp, err := writeTurn(t.dir, l.content(0))
	if err != nil {
		return false, err
	}
	defer os.Remove(temp) //nolint:errcheck // a temporary file that stays is swept
	err = t.link(temp, l.path())
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
		// No hard links here: an empty file shows for a moment, which is only a
		// turn that is not yet dead.
		err = writeNew(l.path(), l.content(0))
	}
	if err == nil {
		return true, nil
	}
	if content, readErr := readTurn(l.path()); readErr == nil && l.owns(content) {
		return true, nil
	}
	if errors.Is(err, fs.ErrExist) || vanished(err) {
		return false, nil
	}
	return false, fmt.Errorf("making lease file: %w", err)
}

// writeTurn writes a temporary file in the lock's folder, which it makes; the
// holder before may be removing it at the same time. The storage's own folder is
// not made anew.
func writeTurn(dir, content string) (string, error) {
	for try := 1; ; try++ {
		temp := leaseTemp(dir)
		err := writeNew(temp, content)
		if err == nil {
			return temp, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || try == maxLockFileTries {
			return "", fmt.Errorf("writing lease file: %w", err)
		}
		for _, d := range []string{filepath.Dir(dir), dir} {
			if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) && d != dir {
				return "", fmt.Errorf("making folder of locks: %w", err)
			}
		}
	}
}

// writeNew writes and flushes a file that must not exist.
func writeNew(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (l *leaseFile) every() time.Duration { return l.ttl / leaseBeats }

// limit is how long the holder keeps the lease after its last good beat: less
// than the TTL, so that it stops before another starts.
func (l *leaseFile) limit() time.Duration { return l.ttl * 3 / 4 }

func (l *leaseFile) path() string { return turnPath(l.dir, l.turn) }

// keep implements hold: it writes the next beat into the lease's own file.
func (l *leaseFile) keep() error {
	begun := time.Now()
	if err := l.verify(); err != nil {
		return err
	}
	l.mu.Lock()
	l.beat++
	beat := l.beat
	l.mu.Unlock()
	if err := l.writeBeat(beat); err != nil {
		return err
	}
	l.mu.Lock()
	l.last = begun
	l.mu.Unlock()
	return nil
}

// verify implements hold.
func (l *leaseFile) verify() error {
	if err := l.fresh(); err != nil {
		return err
	}
	turns, err := readTurns(l.dir)
	if err != nil {
		return err
	}
	if !l.owns(turns[l.turn]) || highest(turns) != l.turn {
		return fmt.Errorf("lease file %q was taken over: %w", l.path(), ErrLeaseLost)
	}
	return l.fresh()
}

// fresh checks that the last good beat is not too long ago.
func (l *leaseFile) fresh() error {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	if since := time.Since(last); since > l.limit() {
		return fmt.Errorf("lease file %q has had no heartbeat for %v: %w", l.path(), since, ErrLeaseLost)
	}
	return nil
}

// writeBeat changes the beat in place. The file is opened anew each time and its
// token read from there: a rename or a truncation could hit the file of another.
func (l *leaseFile) writeBeat(beat uint64) (err error) {
	f, err := os.OpenFile(l.path(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	content, err := io.ReadAll(io.LimitReader(f, maxLeaseFile))
	if err != nil {
		return err
	}
	if !l.owns(string(content)) {
		return fmt.Errorf("lease file %q was taken over: %w", l.path(), ErrLeaseLost)
	}
	if _, err := f.WriteAt([]byte(l.content(beat)), 0); err != nil {
		return err
	}
	return f.Sync()
}

// release implements hold. A holder that is late, or whose file is another's,
// leaves the files alone. Between the look and the removal only a pause longer
// than the TTL, a take-over, its end and a new start could put another's file
// there; that one's holder would find its file gone and end.
func (l *leaseFile) release() error {
	if err := l.verify(); err != nil {
		return err
	}
	return l.drop()
}

// instant implements hold.
func (l *leaseFile) instant() bool { return false }

// drop removes the lease's file and, when nobody waits in it, the folder.
func (l *leaseFile) drop() error {
	if err := removeTurn(l.dir, l.turn); err != nil {
		return err
	}
	_ = os.Remove(l.dir) // not empty: somebody waits
	return nil
}

func turnPath(dir string, turn uint64) string {
	return filepath.Join(dir, strconv.FormatUint(turn, 10))
}

func removeTurn(dir string, turn uint64) error {
	if err := os.Remove(turnPath(dir, turn)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing lease file: %w", err)
	}
	return nil
}
