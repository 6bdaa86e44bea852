package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrLost means that a lock was held and no longer is: another has taken it
// over, its heartbeat could not be written in time, or its Folder was closed.
var ErrLost = errors.New("lock lost")

// errUnlocked is what Held says after Unlock.
var errUnlocked = errors.New("lock was given up by Unlock")

// Lock is a lock that is held until Unlock or until it is lost. It is safe for
// concurrent use.
type Lock struct {
	folder *Folder
	dir    string   // of the lock
	number uint64   // of the generation
	file   *os.File // has the kernel's lock; nil: it has none
	named  bool     // the generation is this lock's
	unlock func() error
	next   func() // lets the next one of this process have its turn; may be nil

	ctx context.Context // ends when the lock does
	end context.CancelCauseFunc

	writing chan struct{} // full while somebody writes to the generation's file
	record  record        // guarded by writing, but for the token and the TTL

	mu    sync.Mutex // guards what follows
	last  time.Time  // begin of the last good heartbeat
	alarm *time.Timer
}

// newLock is the lock of the generation whose file t has made, begun then.
func newLock(t *taker, file *os.File, begun time.Time) *Lock {
	l := &Lock{folder: t.folder, dir: t.dir, number: t.seen.number + 1, file: file, writing: make(chan struct{}, 1), last: begun}
	l.record = newRecord(t.folder.ttl)
	l.unlock = sync.OnceValue(l.release)
	l.ctx, l.end = context.WithCancelCause(t.folder.closing)
	l.mu.Lock() // the alarm may go off at once
	defer l.mu.Unlock()
	l.alarm = time.AfterFunc(l.limit()-time.Since(begun), func() { _ = l.state() })
	return l
}

// Token returns a text that no other lock ever has, for fencing and for logs.
func (l *Lock) Token() string { return l.record.Token }

// Context ends after Unlock, or when the lock is found lost. That takes up to a
// third of its TTL: before a write ask Held.
func (l *Lock) Context() context.Context { return l.ctx }

// Held looks whether the lock is held now. It returns nil, an error that is
// ErrLost when the lock is lost, or another one when the file system did not
// say, or after Unlock. Call it before each write that the lock protects and
// once more after it.
func (l *Lock) Held() error {
	err := l.state()
	if err == nil {
		err = l.look()
	}
	if err == nil {
		err = l.state()
	}
	if errors.Is(err, ErrLost) {
		l.end(err)
	}
	return err
}

// Unlock gives the lock up and lets the next one have it. It waits for the file
// system; meanwhile the heartbeat has ended, so that the lock is free after its
// TTL. The error is ErrLost when the lock was lost before. Further calls return
// what the first did.
func (l *Lock) Unlock() error {
	if err := l.unlock(); err != nil {
		return fmt.Errorf("unlocking %q: %w", l.dir, err)
	}
	return nil
}

// limit is how long the lock is held without a heartbeat: less than the TTL, so
// that its holder stops before another starts.
func (l *Lock) limit() time.Duration { return l.record.TTL / 8 * 7 }

// state returns why the lock is not held, as far as this process knows. It ends
// the lock when there was no heartbeat for too long.
func (l *Lock) state() error {
	l.mu.Lock()
	since := time.Since(l.last)
	l.mu.Unlock()
	if since >= l.limit() {
		l.end(fmt.Errorf("%w: no heartbeat for %v", ErrLost, since))
	}
	err := context.Cause(l.ctx)
	if err == nil || errors.Is(err, ErrLost) || errors.Is(err, errUnlocked) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLost, err) // closed
}

// look returns why the lock is not held, as far as the file system knows.
func (l *Lock) look() error {
	top, err := highest(l.dir)
	if err != nil {
		return fmt.Errorf("looking after lock: %w", err)
	}
	if top.number != l.number || !top.regular {
		return fmt.Errorf("%w: another took generation %d of %q over", ErrLost, l.number, l.dir)
	}
	return l.lookAtFile()
}

// lookAtFile looks whether the file of the generation is our own.
func (l *Lock) lookAtFile() error {
	content, err := readFile(l.path())
	if err != nil && !vanished(err) {
		return fmt.Errorf("looking after lock: %w", err)
	}
	if r, ok := parse(content); err != nil || !ok || r.Token != l.record.Token {
		return fmt.Errorf("%w: generation %d of %q was removed or overwritten", ErrLost, l.number, l.dir)
	}
	return nil
}

func (l *Lock) path() string { return generation(l.dir, l.number) }

// beat writes the next heartbeat. When it cannot, the alarm goes off in time.
func (l *Lock) beat() {
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	begun := time.Now()
	if l.Held() != nil {
		return
	}
	l.record.Beat++
	if overwrite(l.path(), l.record) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = begun
	if l.ctx.Err() == nil {
		l.alarm.Reset(l.limit() - time.Since(begun))
	}
}

// sweep removes the generations below, and what takers left that died. One that
// stays is in nobody's way; a taker whose file goes too soon tries again.
func (l *Lock) sweep() {
	left, _ := filepath.Glob(filepath.Join(l.dir, tempPrefix+"*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > tempAge {
			_ = os.Remove(path)
		}
	}
	all, _ := generations(l.dir)
	for _, e := range all {
		if e.number < l.number {
			_ = os.Remove(generation(l.dir, e.number))
		}
	}
}

// release gives the lock up. It writes into its own file even when the lock is
// lost: if nobody has taken over, nobody need wait.
func (l *Lock) release() error {
	l.folder.forget(l)
	err := l.Held()
	l.end(errUnlocked)
	l.alarm.Stop()
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	if err == nil || l.lookAtFile() == nil {
		l.record.Free = true
		err = errors.Join(err, overwrite(l.path(), l.record))
	}
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	if l.next != nil {
		l.next()
	}
	return err
}

// discard ends a lock that nobody relies on, with its file.
func (l *Lock) discard() {
	l.end(errUnlocked)
	l.alarm.Stop()
	if l.file != nil {
		_ = l.file.Close() // nothing to lose
	}
	if l.named {
		_ = os.Remove(l.path()) // one that stays is passed
	}
}
