package storagetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/certwright/certwright/storage"
)

// checkStaysHeld holds a lock much longer than a lease lives without care, and
// lets the next holder, who waited for it, do the same.
func checkStaysHeld(tb testing.TB, b Backend) {
	if b.LeaseTTL == 0 {
		tb.Skip("Backend.LeaseTTL is zero")
	}
	address := needAddress(tb, b)
	lockers := openLockers(tb, b, address, 2)
	l := mustLock(tb, lockers[0], "a")
	for i := range 2 {
		other := lockers[1-i]
		ctx, cancel := context.WithTimeout(deadline(tb), b.LeaseTTL*time.Duration(short(6, 3))/2)
		if _, err := other.Lock(ctx, "a"); !isEnded(err) {
			tb.Errorf("Lock of a lock that is held for longer than the TTL: error %v", err)
		}
		cancel()
		if err := l.Context().Err(); err != nil {
			tb.Errorf("a lease that is cared for has ended: %v", err)
		}
		got := make(chan storage.Lease, 1)
		go func() {
			next, err := other.Lock(deadline(tb), "a")
			if err != nil {
				tb.Errorf("Lock: %v", err)
			}
			got <- next
		}()
		mustUnlock(tb, l)
		if l = <-got; l == nil {
			return
		}
	}
	mustUnlock(tb, l)
}

// openLockers opens an address several times in this process.
func openLockers(tb testing.TB, b Backend, address string, n int) []storage.Locker {
	tb.Helper()
	lockers := make([]storage.Locker, n)
	for i := range lockers {
		s := openAt(tb, b, address)
		tb.Cleanup(func() {
			if err := closeStorage(s); err != nil {
				tb.Errorf("Close: %v", err)
			}
		})
		lockers[i] = asLocker(tb, s)
	}
	return lockers
}

// checkInstances takes turns through several instances in one process.
func checkInstances(tb testing.TB, b Backend) {
	if b.Address == nil && !b.OneProcess {
		tb.Fatal("storagetest: nothing is known of locks between instances: set Backend.Address and Opener, or OneProcess")
	}
	address := needAddress(tb, b)
	takeTurns(tb, openLockers(tb, b, address, 3), 6, short(20, 5))
}

// checkProcessTurns has eight processes take turns.
func checkProcessTurns(tb testing.TB, b Backend) {
	address := needAddress(tb, b)
	const processes = 8
	turns := b.Turns
	if turns == 0 {
		turns = short(1000, 50)
	}
	folder := tb.TempDir()
	children := make([]*child, processes)
	for i := range children {
		children[i] = startChild(tb, b, task{Role: "turns", Address: address, Key: "turns", Count: turns, Folder: folder})
	}
	for _, c := range children {
		c.say("go")
	}
	for _, c := range children {
		c.want("done")
	}
	if got, err := readCounter(folder); err != nil || got != processes*turns {
		tb.Errorf("%d processes took %d turns each: the counter is at %d, %v", processes, turns, got, err)
	}
}

// takeOver is how soon another must have a dead holder's lock.
func (b Backend) takeOver() time.Duration {
	if b.TakeOver > 0 {
		return b.TakeOver
	}
	return 2*b.LeaseTTL + time.Second
}

// startHolder starts a process that holds the lock "a".
func startHolder(tb testing.TB, b Backend, address string) *child {
	tb.Helper()
	c := startChild(tb, b, task{Role: "hold", Address: address, Key: "a"})
	c.want("held")
	return c
}

// checkKilled takes the lock of a process that is killed, while waiting for it.
func checkKilled(tb testing.TB, b Backend) {
	address := needAddress(tb, b)
	locker := openLockers(tb, b, address, 1)[0]
	for range short(3, 1) {
		holder := startHolder(tb, b, address)
		wantHeld(tb, locker, "a")
		got := make(chan error, 1)
		go func() {
			l, err := locker.Lock(deadline(tb), "a")
			if err == nil {
				err = l.Unlock(deadline(tb))
			}
			got <- err
		}()
		<-time.After(aWhile) // so that it waits, as others do when a holder dies
		killed := time.Now()
		holder.kill()
		if err := <-got; err != nil {
			tb.Errorf("taking the lock of a killed process: %v", err)
		}
		took := time.Since(killed)
		tb.Logf("the lock of a killed process was taken after %v", took)
		if took > b.takeOver() {
			tb.Errorf("the lock of a killed process was taken after %v, want at most %v", took, b.takeOver())
		}
	}
}

// checkStopped takes the lock of a process that is stopped, and lets it go on.
func checkStopped(tb testing.TB, b Backend) {
	if b.LeaseTTL == 0 {
		tb.Skip("Backend.LeaseTTL is zero")
	}
	address := needAddress(tb, b)
	s := openAt(tb, b, address)
	defer closeStorage(s) //nolint:errcheck // tested by checkReopen
	locker := asLocker(tb, s)
	holder := startHolder(tb, b, address)
	if err := holder.stop(); errors.Is(err, errors.ErrUnsupported) {
		tb.Skip("a process cannot be stopped here")
	} else if err != nil {
		tb.Fatal(err)
	}
	stopped := time.Now()
	next := mustLock(tb, locker, "a")
	if took := time.Since(stopped); took > b.takeOver() {
		tb.Errorf("the lock of a stopped process was taken after %v, want at most %v", took, b.takeOver())
	}
	if err := s.Store(next.Context(), "a", []byte("next")); err != nil {
		tb.Errorf("Store by the next holder: %v", err)
	}
	if err := holder.cont(); err != nil {
		tb.Fatal(err)
	}
	if b.Fences {
		if got := holder.ask("store"); got != "lost" {
			tb.Errorf("the store of a holder that was stopped: %s; want ErrLeaseLost", got)
		}
	}
	if got := holder.ask("wait"); got != "ended" {
		tb.Errorf("the lease of a holder that was stopped: %s", got)
	}
	if got := holder.ask("unlock"); got != "lost" {
		tb.Errorf("the Unlock of a holder that was stopped: %s; want ErrLeaseLost", got)
	}
	wantHeld(tb, locker, "a")
	if err := next.Context().Err(); err != nil {
		tb.Errorf("the lease of the next holder has ended: %v", err)
	}
	if b.Fences {
		wantValue(tb, s, "a", []byte("next"))
	}
	mustUnlock(tb, next)
	wantFree(tb, locker, "a")
}
