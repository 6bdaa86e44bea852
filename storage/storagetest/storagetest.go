// Package storagetest tests that a storage keeps the contract of
// storage.Storage, and a locker that of storage.Locker, in the way that
// testing/fstest does for file systems. One line tests a backend's values:
//
//	func TestStorage(t *testing.T) {
//		storagetest.Run(t, func(tb testing.TB) storage.Storage { return newStorage(tb) })
//	}
//
// A [Backend] says more about it, so that more can be tested: that values
// outlive a reopen, that an error does not pass for a missing value, that locks
// hold between processes and are free when a process is killed. For what takes
// several processes the test binary starts itself again, and so calls [Main]
// from its TestMain:
//
//	func opener() storagetest.Opener {
//		return storagetest.Opener{Name: "mine", Open: openStorage}
//	}
//
//	func TestMain(m *testing.M) { storagetest.Main(m, opener()) }
//
//	func TestLocker(t *testing.T) {
//		storagetest.RunLocker(t, storagetest.Backend{
//			Open:    newStorage,
//			Opener:  opener(),
//			Address: func(tb testing.TB) string { return tb.TempDir() },
//		})
//	}
//
// With -short the tests are the same and do less.
package storagetest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/certwright/certwright/storage"
)

// Backend is what is to be tested. Open is required; for each other field at its
// zero value the tests that need it are skipped, and say so.
type Backend struct {
	// Open returns an empty storage of its own for each call, and closes it with
	// tb.Cleanup. For RunLocker the storage is a storage.Locker too.
	Open func(tb testing.TB) storage.Storage

	// OneProcess says that the storage is of one process only, as a storage in
	// memory is. Otherwise RunLocker fails without an Address: what excludes
	// goroutines may exclude nobody else.
	OneProcess bool

	// Address returns the address of an empty place of its own for each call,
	// which Opener can open any number of times, from several processes.
	Address func(tb testing.TB) string

	// Opener opens an address, in this process and, when it was given to Main
	// too, in others.
	Opener Opener

	// Break makes a storage from Open fail, as if its disk or its server were
	// gone, until mend is called.
	Break func(tb testing.TB, s storage.Storage) (mend func())

	// LoseLease makes the holder of the named lock of a storage from Open lose
	// its lease, and returns when another can take it.
	LoseLease func(tb testing.TB, s storage.Storage, name string)

	// Fences says that the storage refuses a store and a delete on the context of
	// a lease that was lost, detached or not, with storage.ErrLeaseLost.
	Fences bool

	// LeaseTTL is how long a lease lives when its holder is stopped. Zero says
	// that it lives as long as the process.
	LeaseTTL time.Duration

	// TakeOver is how soon after a holder's death another must have the lock.
	// Zero means a second more than twice the LeaseTTL.
	TakeOver time.Duration

	// Residue counts what locks have left in a storage from Open: files, rows.
	Residue func(tb testing.TB, s storage.Storage) int

	// Turns is how many times each of eight processes takes one lock. Zero means
	// 1,000, and with -short 50.
	Turns int
}

// Opener opens the storage at an address.
type Opener struct {
	// Name tells the openers given to Main apart.
	Name string

	// Open opens the address. When the result has a method Close() error the kit
	// calls it.
	Open func(address string) (storage.Storage, error)
}

// check is one test of the kit.
type check struct {
	name string
	run  func(tb testing.TB, b Backend)
}

// Run tests the storages that open returns. Each call must return an empty one.
func Run(t *testing.T, open func(tb testing.TB) storage.Storage) {
	t.Helper()
	RunBackend(t, Backend{Open: open})
}

// RunBackend is Run for a backend that says more about itself.
func RunBackend(t *testing.T, b Backend) {
	t.Helper()
	runChecks(t, b, storageChecks())
}

// RunLocker tests the backend's locks.
func RunLocker(t *testing.T, b Backend) {
	t.Helper()
	runChecks(t, b, lockerChecks())
}

func runChecks(t *testing.T, b Backend, checks []check) {
	t.Helper()
	if b.Open == nil {
		t.Fatal("storagetest: Backend.Open is nil")
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, b) })
	}
}

func storageChecks() []check {
	return []check{
		{"Missing", checkMissing},
		{"Replace", checkReplace},
		{"Values", checkValues},
		{"OwnSlices", checkOwnSlices},
		{"Prefixes", checkPrefixes},
		{"Delete", checkDelete},
		{"OddKeys", checkOddKeys},
		{"BadKeys", checkBadKeys},
		{"ManyKeys", checkManyKeys},
		{"EndedContext", checkEndedContext},
		{"Broken", checkBroken},
		{"WholeValues", checkWholeValues},
		{"Neighbours", checkNeighbours},
		{"Reopen", checkReopen},
		{"Processes", checkProcesses},
	}
}

func lockerChecks() []check {
	return []check{
		{"LeaseContext", checkLeaseContext},
		{"Exclusion", checkExclusion},
		{"NotReentrant", checkNotReentrant},
		{"Names", checkLockNames},
		{"WaitEnds", checkWaitEnds},
		{"EndedContext", checkLockEndedContext},
		{"UnlockEndedContext", checkUnlockEndedContext},
		{"UnlockTwice", checkUnlockTwice},
		{"LostLease", checkLostLease},
		{"LateStore", checkLateStore},
		{"Hidden", checkHidden},
		{"Residue", checkResidue},
		{"Held", checkStaysHeld},
		{"Instances", checkInstances},
		{"ExclusionOfProcesses", checkProcessTurns},
		{"Killed", checkKilled},
		{"Stopped", checkStopped},
	}
}

// patience is how long the kit waits for what must happen.
const patience = 30 * time.Second

// patienceOf returns patience, or what the kit's own tests have of it.
func patienceOf(tb testing.TB) time.Duration {
	if p, ok := tb.(interface{ patience() time.Duration }); ok {
		return p.patience()
	}
	return patience
}

// deadline returns a context that ends later than what a check waits for with
// patience.
func deadline(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 2*patienceOf(tb))
	tb.Cleanup(cancel)
	return ctx
}

// short returns few with -short and many without.
func short(many, few int) int {
	if testing.Short() {
		return few
	}
	return many
}

// closeStorage closes what has a Close.
func closeStorage(s storage.Storage) error {
	if c, ok := s.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// isEnded reports whether err says that a context ended.
func isEnded(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
