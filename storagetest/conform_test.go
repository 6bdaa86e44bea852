package storagetest_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/storagetest"
)

// testTTL is a short LeaseTTL that a busy machine can keep.
const testTTL = 2 * time.Second

func TestMain(m *testing.M) {
	storagetest.Main(m, dirOpener("dir", certwright.DirOptions{}), dirOpener("lease", leaseOptions()),
		storagetest.Opener{Name: "sealed", Open: openSealed}, storagetest.Opener{Name: "apart", Open: openApart})
}

// openApart opens a storage that no other process shares, whatever the address.
func openApart(string) (certwright.Storage, error) { return certwright.NewMemStorage(), nil }

func leaseOptions() certwright.DirOptions {
	return certwright.DirOptions{LeaseFiles: true, LeaseTTL: testTTL}
}

func dirOpener(name string, o certwright.DirOptions) storagetest.Opener {
	return storagetest.Opener{Name: name, Open: func(address string) (certwright.Storage, error) {
		return certwright.OpenDirStorage(address, o)
	}}
}

func TestMemStorage(t *testing.T) {
	b := storagetest.Backend{
		Open:      func(testing.TB) certwright.Storage { return certwright.NewMemStorage() },
		LoseLease: func(_ testing.TB, s certwright.Storage, name string) { s.(*certwright.MemStorage).LoseLease(name) },
		Fences:    true,
		Residue:   func(testing.TB, certwright.Storage) int { return 0 },
	}
	storagetest.Run(t, b.Open)
	storagetest.RunLocker(t, b)
}

// dirBackend is a DirStorage with kernel locks.
func dirBackend(name string, o certwright.DirOptions) storagetest.Backend {
	return storagetest.Backend{
		Open: func(tb testing.TB) certwright.Storage {
			d, err := certwright.OpenDirStorage(filepath.Join(tb.TempDir(), "store"), o)
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
		TakeOver:  50 * time.Millisecond,
		Residue:   countFiles,
	}
}

// moveAway hides the folder, as an unmount does.
func moveAway(tb testing.TB, s certwright.Storage) func() {
	dir := s.(*certwright.DirStorage).Path()
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
func removeLocks(tb testing.TB, s certwright.Storage, _ string) {
	locks := filepath.Join(s.(*certwright.DirStorage).Path(), "locks")
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

// countFiles counts the files that stay: those of locks that are free go within
// a second or so.
func countFiles(tb testing.TB, s certwright.Storage) int {
	n := 0
	path := s.(*certwright.DirStorage).Path()
	for range 1000 {
		free, err := filepath.Glob(filepath.Join(path, "locks", "*.lock"))
		if err != nil {
			tb.Fatal(err)
		}
		if len(free) == 0 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	err := filepath.WalkDir(path, func(string, fs.DirEntry, error) error {
		n++
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestDirStorage(t *testing.T) {
	t.Parallel()
	b := dirBackend("dir", certwright.DirOptions{})
	storagetest.RunBackend(t, b)
	storagetest.RunLocker(t, b)
}

func TestDirStorageLeaseFiles(t *testing.T) {
	t.Parallel()
	b := dirBackend("lease", leaseOptions())
	b.LeaseTTL = testTTL
	b.TakeOver = 0
	b.Turns = 50
	storagetest.RunLocker(t, b)
}

func TestSealed(t *testing.T) {
	t.Parallel()
	inner := dirBackend("dir", certwright.DirOptions{})
	b := storagetest.Backend{
		Open:    func(tb testing.TB) certwright.Storage { return seal(tb, inner.Open(tb)) },
		Address: inner.Address,
		Opener:  storagetest.Opener{Name: "sealed", Open: openSealed},
	}
	storagetest.RunBackend(t, b)
	b.Turns = 20
	storagetest.RunLocker(t, b)
}

func sealOptions() (certwright.SealOptions, error) {
	k, err := certwright.NewSealKey(make([]byte, certwright.SealKeySize))
	return certwright.SealOptions{Keys: []certwright.SealKey{k}}, err
}

func seal(tb testing.TB, s certwright.Storage) certwright.Storage {
	o, err := sealOptions()
	if err != nil {
		tb.Fatal(err)
	}
	sealed, err := certwright.Sealed(s, o)
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

// sealedDir is a sealed DirStorage that can be closed.
type sealedDir struct {
	certwright.Storage
	certwright.Locker
	io.Closer
}

func openSealed(dir string) (certwright.Storage, error) {
	d, err := certwright.NewDirStorage(dir)
	if err != nil {
		return nil, err
	}
	o, err := sealOptions()
	if err != nil {
		return nil, err
	}
	s, err := certwright.Sealed(d, o)
	return sealedDir{s, d, d}, err
}
