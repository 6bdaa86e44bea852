package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
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

	// release gives the lock up if it is still ours. It is the last call.
	release() error
}

// dirLease is a Lease of a DirStorage.
type dirLease struct {
	*leaseCore
	storage *DirStorage
	hold    hold
	every   time.Duration // between two calls of keep
	limit   time.Duration // the longest time without a good keep; zero: no limit

	stop    chan struct{} // closed by Unlock
	once    sync.Once     // closes stop
	stopped chan struct{} // closed when the watcher has ended and the lock is free
	err     error         // of the release; written before stopped is closed
}

// Lock implements Locker. Within this DirStorage waiters get the lock in the
// order in which they came; among processes there is no order.
func (d *DirStorage) Lock(ctx context.Context, name string) (Lease, error) {
	if err := d.checkCall(ctx, "locking", name); err != nil {
		return nil, err
	}
	l, err := d.lock(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("locking name %q: %w", name, err)
	}
	return l, nil
}

func (d *DirStorage) lock(ctx context.Context, name string) (*dirLease, error) {
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
	l.leaseCore = newLeaseCore(ctx, name, l.hold.verify)
	if !d.keepTrack(l) {
		l.end(leaseLost)
		d.turns.give(name)
		return nil, errors.Join(d.closedError(), l.hold.release())
	}
	watched = true
	go l.watch()
	return l, nil
}

// enter counts a call in that Close waits for. It reports false once closed.
func (d *DirStorage) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.running.Add(1)
	return true
}

// keepTrack notes the lease for Close to end. It reports false once closed.
func (d *DirStorage) keepTrack(l *dirLease) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.leases[l] = struct{}{}
	return true
}

// acquire waits for the lock among processes and puts it into l.
func (d *DirStorage) acquire(ctx context.Context, name string, l *dirLease) error {
	base := filepath.Join(d.locksFolder(), lockFileName(name))
	use, err := d.usesLeaseFiles()
	if err != nil {
		return err
	}
	if !use {
		h, err := lockKernel(ctx, base+".lock")
		if err == nil {
			l.hold, l.every = h, kernelCheckEvery
			return nil
		}
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
func (d *DirStorage) lockError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if gone := d.checkRoot(); gone != nil {
			return gone
		}
	}
	return err
}

// usesLeaseFiles reports whether locks are lease files, as this instance or
// another one has settled.
func (d *DirStorage) usesLeaseFiles() (bool, error) {
	if d.leaseFiles.Load() {
		return true, nil
	}
	_, err := os.Stat(filepath.Join(d.locksFolder(), leasesMarker))
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
		err := l.hold.keep()
		switch {
		case errors.Is(err, ErrLeaseLost):
			l.lose()
		case err == nil && expiry != nil:
			expiry.Reset(l.limit - time.Since(begun))
		}
	}
	l.err = l.hold.release()
	l.storage.forget(l)
}

// lose ends the lease as lost and lets the watcher know.
func (l *dirLease) lose() {
	l.end(leaseLost)
	l.once.Do(func() { close(l.stop) })
}

// forget hands the lock on within this process.
func (d *DirStorage) forget(l *dirLease) {
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
	l.once.Do(func() { close(l.stop) })
	patience := time.NewTimer(unlockPatience)
	defer patience.Stop()
	select {
	case <-l.stopped:
	case <-patience.C:
		return fmt.Errorf("unlocking name %q: no answer from the file system for %v", l.name, unlockPatience)
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

// wait waits a little longer than the time before, give or take a quarter so
// that waiters do not march in step, or until ctx ends.
func (p *pause) wait(ctx context.Context) error {
	d := p.next*3/4 + rand.N(p.next/2)
	if p.next < p.soon {
		p.next = min(2*p.next, p.soon)
	} else {
		p.next = min(p.next+p.next/200, p.longest)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return endOf(ctx)
	}
}
