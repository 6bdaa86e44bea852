package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"
)

// hold is a lock held among processes, by whichever means.
type hold interface {
	// keep looks after the lock, and is called at a fixed beat. It returns an
	// error that is ErrLeaseLost when the lock is lost for certain, and another
	// when it could not be told.
	keep() error

	// verify is keep without writing anything. It is safe beside keep.
	verify() error

	// release gives the lock up if it is still ours. It is the last call, but for
	// keep and verify beside it when the hold is instant.
	release() error

	// instant reports whether release asks nothing of the file system.
	instant() bool
}

// dirLease is a Lease of a Dir.
type dirLease struct {
	*HeldLease
	storage *Dir
	hold    hold
	every   time.Duration // between two calls of keep
	limit   time.Duration // the longest time without a good keep; zero: no limit

	settle  func()        // what is left to do once the lock is had; may be nil
	late    *time.Timer   // starts the watcher; nil: it runs from the start
	stop    chan struct{} // closed by Unlock
	once    sync.Once     // closes stop
	stopped chan struct{} // closed when the watcher has ended and the lock is free
	freeing sync.Once     // frees the lock
	err     error         // of the release; written by freeing
}

// Lock implements Locker. Within this Dir waiters get the lock in the
// order in which they came; among processes there is no order.
func (d *Dir) Lock(ctx context.Context, name string) (Lease, error) {
	if err := d.checkCall(ctx, "locking", name); err != nil {
		return nil, err
	}
	l, err := d.lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	return l, nil
}

func (d *Dir) lock(ctx context.Context, name string) (*dirLease, error) {
	if !d.enter() {
		return nil, d.closedError()
	}
	watched := false
	defer func() {
		if !watched {
			d.running.Done()
		}
	}()
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.closing, func() { cancel(fs.ErrClosed) })()

	if err := d.turns.take(waiting, name); err != nil {
		return nil, err
	}
	l := &dirLease{storage: d, stop: make(chan struct{}), stopped: make(chan struct{})}
	if err := d.acquire(waiting, name, l); err != nil {
		d.turns.give(name)
		return nil, err
	}
	l.HeldLease = NewLease(ctx, name, LeaseOptions{Verify: l.hold.verify})
	watched = true
	if l.hold.instant() {
		// Most locks are held for less than a beat, and then need no watcher.
		l.late = time.AfterFunc(l.every, l.watchLate)
	}
	tracked := d.keepTrack(l)
	if l.late == nil {
		go l.watch()
	}
	if !tracked {
		l.lose()
		l.unwatch()
		return nil, d.closedError()
	}
	return l, nil
}

// enter counts a call in that Close waits for. It reports false once closed.
func (d *Dir) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.running.Add(1)
	return true
}

// keepTrack notes the lease for Close to end. It reports false once closed.
func (d *Dir) keepTrack(l *dirLease) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.leases[l] = struct{}{}
	return true
}

// acquire waits for the lock among processes and puts it into l.
func (d *Dir) acquire(ctx context.Context, name string, l *dirLease) error {
	base := d.base + locksDir + string(filepath.Separator) + lockFileName(name)
	use, err := d.usesLeaseFiles()
	if err != nil {
		return err
	}
	if !use {
		t := &kernelTaker{path: base + ".lock", watches: &d.watches}
		h, err := t.wait(ctx)
		if err == nil {
			h.left = d.leave
			l.hold, l.every, l.settle = h, kernelCheckEvery, t.settle
			return nil
		}
		t.settle()
		if !errors.Is(err, errNoKernelLock) {
			return d.lockError(err)
		}
		if err := d.useLeaseFiles(); err != nil {
			return err
		}
	}
	h, err := lockLeaseFile(ctx, base+".lease", d.ttl)
	if err != nil {
		return d.lockError(err)
	}
	l.hold, l.every, l.limit = h, h.every(), h.limit()
	return nil
}

// lockError puts a folder that is gone before the error that came of it.
func (d *Dir) lockError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if gone := d.checkRoot(); gone != nil {
			return gone
		}
	}
	return err
}

// usesLeaseFiles reports whether locks are lease files, as this instance or
// another one has settled.
func (d *Dir) usesLeaseFiles() (bool, error) {
	if d.leaseFiles.Load() {
		return true, nil
	}
	var marker fileID
	err := readID(d.marker, &marker)
	if errors.Is(err, fs.ErrNotExist) {
		return false, d.checkRoot()
	}
	if err != nil {
		return false, err
	}
	d.leaseFiles.Store(true)
	return true, nil
}

// watch looks after the lock until the lease ends, then frees it.
func (l *dirLease) watch() {
	defer l.storage.running.Done()
	defer close(l.stopped)
	if l.settle != nil {
		l.settle()
	}
	ticks := time.NewTicker(l.every)
	defer ticks.Stop()
	// A timer of its own, since a call of keep can hang with the file system.
	var expiry *time.Timer
	if l.limit > 0 {
		expiry = time.AfterFunc(l.limit, func() { l.lose() })
		defer expiry.Stop()
	}
	for l.now() == leaseHeld {
		select {
		case <-l.stop:
			continue
		case <-l.storage.closing.Done():
			l.lose()
			continue
		case <-ticks.C:
		}
		begun := time.Now()
		if l.keep() == nil && expiry != nil {
			expiry.Reset(l.limit - time.Since(begun))
		}
	}
	l.free()
}

// watchLate is watch one beat after the lock was had.
func (l *dirLease) watchLate() {
	_ = l.keep() // looked at again by watch
	l.watch()
}

// unwatch does the watcher's part when that has not started and need not.
func (l *dirLease) unwatch() {
	if l.late == nil || !l.late.Stop() {
		return
	}
	defer l.storage.running.Done()
	defer close(l.stopped)
	l.free()
	if l.settle != nil {
		l.settle()
	}
}

// keep looks after the lock once.
func (l *dirLease) keep() error {
	err := l.hold.keep()
	if errors.Is(err, ErrLeaseLost) {
		l.lose()
	}
	return err
}

// free gives the lock up and hands it on within this process.
func (l *dirLease) free() {
	l.freeing.Do(func() {
		l.err = l.hold.release()
		l.storage.forget(l)
	})
}

// lose ends the lease as lost and lets the watcher know.
func (l *dirLease) lose() {
	l.end(leaseLost)
	l.once.Do(func() { close(l.stop) })
}

// forget hands the lock on within this process.
func (d *Dir) forget(l *dirLease) {
	d.mu.Lock()
	delete(d.leases, l)
	d.mu.Unlock()
	d.turns.give(l.name)
}

// unlockPatience is how long Unlock waits for a file system that hangs.
const unlockPatience = 10 * time.Second

// Unlock implements Lease. It waits for the lock file to be given up, for at
// most ten seconds, whatever becomes of ctx.
func (l *dirLease) Unlock(context.Context) error {
	state := leaseUnlocked
	if l.now() == leaseHeld && errors.Is(l.hold.verify(), ErrLeaseLost) {
		state = leaseLost
	}
	first := l.end(state)
	if first && l.hold.instant() {
		l.free()
	}
	l.once.Do(func() { close(l.stop) })
	l.unwatch()
	if !first || !l.hold.instant() {
		patience := time.NewTimer(unlockPatience)
		defer patience.Stop()
		select {
		case <-l.stopped:
		case <-patience.C:
			return fmt.Errorf("unlocking name %q: no answer from the file system for %v", l.name, unlockPatience)
		}
	}
	if !first || state == leaseLost {
		return l.ended()
	}
	if l.err != nil {
		return fmt.Errorf("unlocking name %q: %w", l.name, l.err)
	}
	return nil
}

// pause is the growing delay between two tries for a lock. It doubles until it
// reaches soon, and then grows by a 200th of the time waited until it reaches
// longest: who has waited long can wait a little longer, and costs less.
type pause struct {
	next, soon, longest time.Duration
}

// take returns how long to wait: a little longer than the time before, give or
// take a quarter so that waiters do not march in step.
func (p *pause) take() time.Duration {
	d := p.next*3/4 + rand.N(p.next/2)
	if p.next < p.soon {
		p.next = min(2*p.next, p.soon)
	} else {
		p.next = min(p.next+p.next/200, p.longest)
	}
	return d
}

// wait waits as long as take says, or until ctx ends.
func (p *pause) wait(ctx context.Context) error {
	t := time.NewTimer(p.take())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return endOf(ctx)
	}
}
