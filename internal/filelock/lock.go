package filelock

import (
	"errors"
	"fmt"
	"os"
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
	lost   chan struct{}
	unlock func() error // once
	leave  func()       // lets the next one of this process have its turn; may be nil

	writing chan struct{} // full while somebody writes to the generation's file
	record  record        // guarded by writing, but for the token

	mu    sync.Mutex // guards what follows
	last  time.Time  // begin of the last good heartbeat
	ended error      // why the lock is no longer held; nil: it is
	alarm *time.Timer
}

// newLock is the lock of the generation that t has made.
func newLock(t *taker, number uint64) *Lock {
	l := &Lock{
		folder: t.folder, dir: t.dir, number: number, file: t.file, record: t.record,
		lost: make(chan struct{}), writing: make(chan struct{}, 1), last: t.linked,
	}
	l.unlock = sync.OnceValue(func() error { return l.folder.within(l.release) })
	l.mu.Lock() // the alarm may go off at once
	defer l.mu.Unlock()
	l.alarm = time.AfterFunc(l.limit()-time.Since(l.last), l.overdue)
	return l
}

// Token returns a text that no other lock ever has, for fencing and for logs.
func (l *Lock) Token() string { return l.record.Token }

// Lost returns a channel that is closed when the lock is found lost. That takes
// up to a third of its TTL: before a write ask Held. It stays open after Unlock.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Held looks whether the lock is held now. It returns nil, an error that is
// ErrLost when the lock is lost, or another one when the file system did not
// say, or after Unlock. Call it before each write that the lock protects and
// once more after it.
func (l *Lock) Held() error {
	err := l.check()
	if errors.Is(err, ErrLost) {
		l.end(err)
	}
	return err
}

// Unlock gives the lock up and lets the next one have it. It waits for the file
// system for at most ten seconds. When the file system does not answer in that
// time the error says so and the heartbeat has ended, so that the lock is free
// after its TTL. The error is ErrLost when the lock was lost before. Further
// calls return what the first did.
func (l *Lock) Unlock() error {
	if err := l.unlock(); err != nil {
		return fmt.Errorf("unlocking %q: %w", l.dir, err)
	}
	return nil
}

// limit is how long the lock is held without a heartbeat: less than the TTL, so
// that its holder stops before another starts.
func (l *Lock) limit() time.Duration { return l.record.TTL / 8 * 7 }

// check is Held without drawing the conclusion.
func (l *Lock) check() error {
	if err := l.state(); err != nil {
		return err
	}
	top, err := highest(l.dir)
	if err != nil {
		return fmt.Errorf("looking after lock: %w", err)
	}
	if top.number != l.number || !top.regular {
		return fmt.Errorf("%w: another took generation %d of %q over", ErrLost, l.number, l.dir)
	}
	if err := l.checkFile(); err != nil {
		return err
	}
	return l.state()
}

// checkFile looks whether the file of the generation is our own.
func (l *Lock) checkFile() error {
	content, err := readFile(generation(l.dir, l.number))
	if err != nil && !vanished(err) {
		return fmt.Errorf("looking after lock: %w", err)
	}
	r, ok := parse(content)
	if err != nil || !ok || r.Token != l.record.Token {
		return fmt.Errorf("%w: generation %d of %q was removed or overwritten", ErrLost, l.number, l.dir)
	}
	return nil
}

// state returns why the lock is not held, as far as this process knows.
func (l *Lock) state() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return l.ended
	}
	if since := time.Since(l.last); since >= l.limit() {
		return fmt.Errorf("%w: no heartbeat for %v", ErrLost, since)
	}
	return nil
}

// end ends the lock for that reason, unless it has ended.
func (l *Lock) end(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return
	}
	l.ended = reason
	l.alarm.Stop()
	if errors.Is(reason, ErrLost) {
		close(l.lost)
	}
}

// overdue is called when there was no heartbeat for too long.
func (l *Lock) overdue() {
	if err := l.state(); errors.Is(err, ErrLost) {
		l.end(err)
	}
}

// beat writes the next heartbeat. When it cannot, the alarm goes off in time.
func (l *Lock) beat() {
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	begun := time.Now()
	if l.Held() != nil {
		return
	}
	l.record.Beat++
	if overwrite(generation(l.dir, l.number), l.record) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.last = begun
		l.alarm.Reset(l.limit() - time.Since(begun))
	}
}

// sweep removes the generations below. One that stays is in nobody's way.
func (l *Lock) sweep() {
	all, err := generations(l.dir)
	if err != nil {
		return
	}
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
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	if err == nil || l.checkFile() == nil {
		l.record.Free = true
		err = errors.Join(err, overwrite(generation(l.dir, l.number), l.record))
	}
	err = errors.Join(err, dropKernelLock(l.file))
	if l.leave != nil {
		l.leave()
	}
	return err
}
