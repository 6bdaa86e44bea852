package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/storage"
)

// aWhile is how long the kit watches that something does not happen.
const aWhile = 50 * time.Millisecond

// promptly is how soon a wait ends with its context.
const promptly = time.Second

// openLocker opens a storage that is a locker.
func openLocker(tb testing.TB, b Backend) (storage.Storage, storage.Locker) {
	tb.Helper()
	s := b.Open(tb)
	return s, asLocker(tb, s)
}

func asLocker(tb testing.TB, s storage.Storage) storage.Locker {
	tb.Helper()
	locker, ok := s.(storage.Locker)
	if !ok {
		tb.Fatalf("storagetest: %T is no storage.Locker", s)
	}
	return locker
}

// mustLock takes a lock that must be free, or get free.
func mustLock(tb testing.TB, locker storage.Locker, name string) storage.Lease {
	tb.Helper()
	l, err := locker.Lock(deadline(tb), name)
	if err != nil {
		tb.Fatalf("Lock(%q): %v", name, err)
	}
	if l == nil {
		tb.Fatalf("Lock(%q) returns neither a lease nor an error", name)
	}
	if err := l.Context().Err(); err != nil {
		tb.Errorf("the context of a new lease has ended: %v", err)
	}
	return l
}

func mustUnlock(tb testing.TB, l storage.Lease) {
	tb.Helper()
	if err := l.Unlock(deadline(tb)); err != nil {
		tb.Errorf("Unlock: %v", err)
	}
}

// wantHeld checks that nobody gets the lock for a while.
func wantHeld(tb testing.TB, locker storage.Locker, name string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(deadline(tb), aWhile)
	defer cancel()
	l, err := locker.Lock(ctx, name)
	if err == nil {
		tb.Errorf("Lock(%q) succeeds while another holds it", name)
		mustUnlock(tb, l)
	} else if !isEnded(err) {
		tb.Errorf("Lock(%q) of a held lock: error %v; want to wait until the context ends", name, err)
	}
}

// wantFree checks that the lock can be had, and leaves it free.
func wantFree(tb testing.TB, locker storage.Locker, name string) {
	tb.Helper()
	mustUnlock(tb, mustLock(tb, locker, name))
}

type ctxKey struct{}

func checkLeaseContext(tb testing.TB, b Backend) {
	s, locker := openLocker(tb, b)
	ctx, cancel := context.WithCancel(context.WithValue(deadline(tb), ctxKey{}, "carried"))
	defer cancel()
	l, err := locker.Lock(ctx, "a")
	if err != nil {
		tb.Fatalf("Lock: %v", err)
	}
	if v := l.Context().Value(ctxKey{}); v != "carried" {
		tb.Errorf("the lease's context has the value %v; want that of the context given to Lock", v)
	}
	if err := s.Store(l.Context(), "k", []byte("x")); err != nil {
		tb.Errorf("Store under a lease: %v", err)
	}
	if err := l.Context().Err(); err != nil {
		tb.Errorf("the context has ended while the lease is held: %v", err)
	}
	mustUnlock(tb, l)
	wantEnd(tb, l, "Unlock")

	l, err = locker.Lock(ctx, "a")
	if err != nil {
		tb.Fatalf("Lock: %v", err)
	}
	cancel()
	wantEnd(tb, l, "the end of the context given to Lock")
	wantHeld(tb, locker, "a")
	mustUnlock(tb, l)
	wantFree(tb, locker, "a")
}

// wantEnd checks that the lease's context ends.
func wantEnd(tb testing.TB, l storage.Lease, after string) {
	tb.Helper()
	timer := time.NewTimer(patienceOf(tb))
	defer timer.Stop()
	select {
	case <-l.Context().Done():
	case <-timer.C:
		tb.Errorf("the lease's context does not end after %s", after)
	}
}

// checkExclusion lets many goroutines take turns at a counter without a lock of
// its own.
func checkExclusion(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	const workers = 16
	each := short(20, 5)
	takeTurns(tb, []storage.Locker{locker}, workers, each)
}

// takeTurns spreads workers over the lockers and checks that turns do not
// overlap.
func takeTurns(tb testing.TB, lockers []storage.Locker, workers, each int) {
	tb.Helper()
	var inside, overlaps, turns atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			ctx := deadline(tb)
			for range each {
				l, err := lockers[w%len(lockers)].Lock(ctx, "counter")
				if err != nil {
					tb.Errorf("Lock: %v", err)
					return
				}
				if inside.Add(1) != 1 {
					overlaps.Add(1)
				}
				turns.Add(1)
				<-time.After(50 * time.Microsecond)
				inside.Add(-1)
				if err := l.Unlock(ctx); err != nil {
					tb.Errorf("Unlock: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if overlaps.Load() > 0 {
		tb.Errorf("%d times of %d two held the lock at once", overlaps.Load(), turns.Load())
	}
}

func checkNotReentrant(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	l := mustLock(tb, locker, "a")
	ctx, cancel := context.WithTimeout(l.Context(), aWhile)
	defer cancel()
	if _, err := locker.Lock(ctx, "a"); !isEnded(err) {
		tb.Errorf("Lock by the holder: error %v; want to wait until the context ends", err)
	}
	mustUnlock(tb, l)
	wantFree(tb, locker, "a")
}

func checkLockNames(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	keys := oddKeys()
	if testing.Short() {
		keys = keys[len(keys)/2:]
	}
	var leases []storage.Lease
	for _, name := range keys {
		leases = append(leases, mustLock(tb, locker, name))
	}
	for _, l := range leases {
		mustUnlock(tb, l)
	}
	for _, name := range badKeys() {
		l, err := locker.Lock(deadline(tb), name)
		if err == nil {
			mustUnlock(tb, l)
		}
		if !errors.Is(err, fs.ErrInvalid) {
			tb.Errorf("Lock(%q): error %v; want one that is fs.ErrInvalid", name, err)
		}
	}
}

// checkWaitEnds lets a wait end with its context, and looks for a lock that was
// left to nobody.
func checkWaitEnds(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	for range short(10, 3) {
		held := mustLock(tb, locker, "a")
		ctx, cancel := context.WithCancel(deadline(tb))
		waits := make(chan error, 1)
		go func() {
			l, err := locker.Lock(ctx, "a")
			if err == nil {
				err = errors.Join(errors.New("the lock was got while another holds it"), l.Unlock(ctx))
			}
			waits <- err
		}()
		<-time.After(time.Millisecond)
		cancel()
		timer := time.NewTimer(promptly)
		select {
		case err := <-waits:
			if !isEnded(err) {
				tb.Errorf("a wait whose context ended: error %v; want the context's", err)
			}
		case <-timer.C:
			tb.Errorf("a wait goes on %v after its context ended", promptly)
		}
		timer.Stop()
		mustUnlock(tb, held)
		wantFree(tb, locker, "a")
	}
	raceCancelWithUnlock(tb, locker)
}

// raceCancelWithUnlock ends a wait at the moment at which the lock gets free:
// either the waiter has it or nobody.
func raceCancelWithUnlock(tb testing.TB, locker storage.Locker) {
	tb.Helper()
	for range short(30, 10) {
		held := mustLock(tb, locker, "a")
		ctx, cancel := context.WithCancel(deadline(tb))
		var wg sync.WaitGroup
		wg.Go(func() {
			if l, err := locker.Lock(ctx, "a"); err == nil {
				mustUnlock(tb, l)
			}
		})
		wg.Go(cancel)
		mustUnlock(tb, held)
		wg.Wait()
		wantFree(tb, locker, "a")
	}
}

func checkLockEndedContext(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	ctx, cancel := context.WithCancel(deadline(tb))
	cancel()
	l, err := locker.Lock(ctx, "a")
	if !isEnded(err) {
		tb.Errorf("Lock with an ended context: error %v; want the context's", err)
	}
	if err == nil {
		mustUnlock(tb, l)
	}
	wantFree(tb, locker, "a")
}

func checkUnlockEndedContext(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	l := mustLock(tb, locker, "a")
	ctx, cancel := context.WithCancel(deadline(tb))
	cancel()
	if err := l.Unlock(ctx); err != nil {
		tb.Errorf("Unlock with an ended context: %v", err)
	}
	wantFree(tb, locker, "a")
}

// checkUnlockTwice looks whether a second Unlock frees what the next one holds.
func checkUnlockTwice(tb testing.TB, b Backend) {
	_, locker := openLocker(tb, b)
	first := mustLock(tb, locker, "a")
	mustUnlock(tb, first)
	if err := first.Unlock(deadline(tb)); err != nil {
		tb.Errorf("second Unlock: %v", err)
	}
	next := mustLock(tb, locker, "a")
	if err := first.Unlock(deadline(tb)); err != nil {
		tb.Errorf("third Unlock, while another holds the lock: %v", err)
	}
	wantHeld(tb, locker, "a")
	if err := next.Context().Err(); err != nil {
		tb.Errorf("the Unlock of one lease ended the context of another: %v", err)
	}
	mustUnlock(tb, next)
	wantFree(tb, locker, "a")
}

// lose has the holder of a lock lose it.
func lose(tb testing.TB, b Backend) (storage.Storage, storage.Locker, storage.Lease) {
	tb.Helper()
	if b.LoseLease == nil {
		tb.Skip("Backend.LoseLease is nil")
	}
	s, locker := openLocker(tb, b)
	l := mustLock(tb, locker, "a")
	b.LoseLease(tb, s, "a")
	return s, locker, l
}

func checkLostLease(tb testing.TB, b Backend) {
	_, locker, l := lose(tb, b)
	wantEnd(tb, l, "the loss of the lease")
	next := mustLock(tb, locker, "a")
	for range 2 {
		if err := l.Unlock(deadline(tb)); !errors.Is(err, storage.ErrLeaseLost) {
			tb.Errorf("Unlock of a lost lease: error %v; want one that is ErrLeaseLost", err)
		}
	}
	wantHeld(tb, locker, "a")
	if err := next.Context().Err(); err != nil {
		tb.Errorf("the context of the next lease has ended: %v", err)
	}
	mustUnlock(tb, next)
	wantFree(tb, locker, "a")
}

func checkLateStore(tb testing.TB, b Backend) {
	if !b.Fences {
		tb.Skip("Backend.Fences is false")
	}
	s, locker, l := lose(tb, b)
	next := mustLock(tb, locker, "a")
	if err := s.Store(next.Context(), "k", []byte("next")); err != nil {
		tb.Errorf("Store by the next holder: %v", err)
	}
	for what, ctx := range map[string]context.Context{
		"context": l.Context(), "detached context": context.WithoutCancel(l.Context()),
	} {
		if err := s.Store(ctx, "k", []byte("late")); !errors.Is(err, storage.ErrLeaseLost) {
			tb.Errorf("Store on the %s of a lost lease: error %v; want one that is ErrLeaseLost", what, err)
		}
		if err := s.Delete(ctx, "k"); !errors.Is(err, storage.ErrLeaseLost) {
			tb.Errorf("Delete on the %s of a lost lease: error %v; want one that is ErrLeaseLost", what, err)
		}
	}
	wantValue(tb, s, "k", []byte("next"))
	mustUnlock(tb, next)
}

// checkHidden looks for locks among the values, and for a lock and a value of
// the same name in each other's way.
func checkHidden(tb testing.TB, b Backend) {
	s, locker := openLocker(tb, b)
	mustStore(tb, s, "v1/a", []byte("x"))
	l := mustLock(tb, locker, "v1/a")
	wantKeys(tb, s, "", "v1/a")
	wantValue(tb, s, "v1/a", []byte("x"))
	mustStore(tb, s, "v1/a", []byte("y"))
	mustUnlock(tb, l)
	wantKeys(tb, s, "", "v1/a")
	wantValue(tb, s, "v1/a", []byte("y"))
	l = mustLock(tb, locker, "v1/b")
	wantMissing(tb, s, "v1/b")
	mustUnlock(tb, l)
}

func checkResidue(tb testing.TB, b Backend) {
	if b.Residue == nil {
		tb.Skip("Backend.Residue is nil")
	}
	s, locker := openLocker(tb, b)
	wantFree(tb, locker, "first")
	before := b.Residue(tb, s)
	names := short(1000, 100)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			ctx := deadline(tb)
			for i := range names / 4 {
				l, err := locker.Lock(ctx, fmt.Sprintf("names/%d/%s%d", w, strings.Repeat("n", i%100), i))
				if err == nil {
					err = l.Unlock(ctx)
				}
				if err != nil {
					tb.Errorf("Lock and Unlock: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if after := b.Residue(tb, s); after > before {
		tb.Errorf("%d locks have left %d things behind", names, after-before)
	}
}
