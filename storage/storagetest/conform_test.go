package storagetest_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/storagetest"
)

// testTTL is a short LeaseTTL that a busy machine can keep.
const testTTL = 2 * time.Second

func TestMain(m *testing.M) {
	storagetest.Main(m, dirOpener("dir", storage.DirOptions{}), dirOpener("short", shortOptions()),
		storagetest.Opener{Name: "sealed", Open: openSealed}, storagetest.Opener{Name: "apart", Open: openApart})
}

// openApart opens a storage that no other process shares, whatever the address.
func openApart(string) (storage.Storage, error) { return storage.NewMemory(), nil }

func shortOptions() storage.DirOptions { return storage.DirOptions{LeaseTTL: testTTL} }

func dirOpener(name string, o storage.DirOptions) storagetest.Opener {
	return storagetest.Opener{Name: name, Open: func(address string) (storage.Storage, error) {
		return o.Open(address)
	}}
}

// lossyMemory is a Memory whose leases can be lost.
type lossyMemory struct {
	storage.Storage
	storagetest.LosableLocker
}

func newLossyMemory(testing.TB) storage.Storage {
	mem := storage.NewMemory()
	return &lossyMemory{Storage: mem, LosableLocker: storagetest.LosableLocker{Locker: mem}}
}

func TestMemory(t *testing.T) {
	b := storagetest.Backend{
		Open:      newLossyMemory,
		LoseLease: func(_ testing.TB, s storage.Storage, name string) { s.(*lossyMemory).Lose(name) },
		Fences:    true,
		Residue:   func(testing.TB, storage.Storage) int { return 0 },

		OneProcess: true,
	}
	storagetest.Run(t, b.Open)
	storagetest.RunLocker(t, b)
	b.Open, b.LoseLease, b.Fences = func(testing.TB) storage.Storage { return storage.NewMemory() }, nil, false
	storagetest.RunLocker(t, b)
}

// dirBackend is a Dir.
func dirBackend(name string, o storage.DirOptions) storagetest.Backend {
	return storagetest.Backend{
		Open: func(tb testing.TB) storage.Storage {
			d, err := o.Open(filepath.Join(tb.TempDir(), "store"))
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() {
				if err := d.Close(); err != nil {
					tb.Error(err)
				}
			})
			return d
		},
		Address:   func(tb testing.TB) string { return filepath.Join(tb.TempDir(), "store") },
		Opener:    dirOpener(name, o),
		Break:     moveAway,
		LoseLease: removeLocks,
		Fences:    true,
		TakeOver:  10 * time.Second, // a third of the TTL
		Residue:   countFiles,
	}
}

// moveAway hides the folder, as an unmount does.
func moveAway(tb testing.TB, s storage.Storage) func() {
	dir := s.(*storage.Dir).Path()
	if err := os.Rename(dir, dir+".away"); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := os.Rename(dir+".away", dir); err != nil {
			tb.Fatal(err)
		}
	}
}

// removeLocks removes every lock file, so that others can take the locks.
func removeLocks(tb testing.TB, s storage.Storage, _ string) {
	locks := filepath.Join(s.(*storage.Dir).Path(), "locks")
	entries, err := os.ReadDir(locks)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(locks, e.Name())); err != nil {
			tb.Fatal(err)
		}
	}
}

// countFiles counts the files of locks that a tidying leaves, an hour later.
func countFiles(tb testing.TB, s storage.Storage) int {
	n := 0
	d := s.(*storage.Dir)
	old := time.Now().Add(-2 * time.Hour)
	walk := func(do func(path string) error) {
		tb.Helper()
		err := filepath.WalkDir(filepath.Join(d.Path(), "locks"), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, do(path))
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	walk(func(path string) error { return os.Chtimes(path, old, old) })
	if err := d.Tidy(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	walk(func(string) error { n++; return nil })
	return n
}

func TestDir(t *testing.T) {
	t.Parallel()
	b := dirBackend("dir", storage.DirOptions{})
	storagetest.RunBackend(t, b)
	storagetest.RunLocker(t, b)
}

// A holder that is stopped is replaced after its TTL (F50).
func TestDirWithShortLeases(t *testing.T) {
	t.Parallel()
	b := dirBackend("short", shortOptions())
	b.LeaseTTL = testTTL
	b.TakeOver = 0
	b.Turns = 50
	storagetest.RunLocker(t, b)
}

func TestSeal(t *testing.T) {
	t.Parallel()
	inner := dirBackend("dir", storage.DirOptions{})
	b := storagetest.Backend{
		Open:    func(tb testing.TB) storage.Storage { return seal(tb, inner.Open(tb)) },
		Address: inner.Address,
		Opener:  storagetest.Opener{Name: "sealed", Open: openSealed},
	}
	storagetest.RunBackend(t, b)
	b.Turns = 20
	storagetest.RunLocker(t, b)
}

func sealOptions() (storage.SealOptions, error) {
	k, err := storage.NewSealKey(make([]byte, storage.SealKeySize))
	return storage.SealOptions{Keys: []storage.SealKey{k}}, err
}

func seal(tb testing.TB, s storage.Storage) storage.Storage {
	o, err := sealOptions()
	if err != nil {
		tb.Fatal(err)
	}
	sealed, err := storage.Seal(s, o)
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

// sealedDir is a sealed Dir that can be closed.
type sealedDir struct {
	storage.Storage
	storage.Locker
	io.Closer
}

func openSealed(dir string) (storage.Storage, error) {
	d, err := storage.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	o, err := sealOptions()
	if err != nil {
		return nil, err
	}
	s, err := storage.Seal(d, o)
	return sealedDir{s, d, d}, err
}
