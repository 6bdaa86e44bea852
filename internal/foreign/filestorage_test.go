package foreign

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/plugin"
	"github.com/certwright/certwright/storage/storagetest"
)

func opener() storagetest.Opener {
	return storagetest.Opener{Name: "filestorage", Open: func(address string) (storage.Storage, error) {
		return plugin.CertMagic(&certmagic.FileStorage{Path: address}), nil
	}}
}

func TestMain(m *testing.M) { storagetest.Main(m, opener()) }

// backend is CertMagic's own storage behind the adapter. Its locks stay for ten
// seconds after the death of the holder, and are polled once a second.
func backend() storagetest.Backend {
	dirs := map[storage.Storage]string{}
	return storagetest.Backend{
		Open: func(tb testing.TB) storage.Storage {
			dir := filepath.Join(tb.TempDir(), "store")
			s := plugin.CertMagic(&certmagic.FileStorage{Path: dir})
			dirs[s] = dir
			return s
		},
		Address: func(tb testing.TB) string { return tb.TempDir() },
		Opener:  opener(),
		Break: func(tb testing.TB, s storage.Storage) func() {
			root := dirs[s]
			aside := root + ".aside"
			err := os.Rename(root, aside)
			if err == nil {
				err = os.WriteFile(root, []byte("not a folder"), 0o600)
			}
			if err != nil {
				tb.Fatal(err)
			}
			return func() {
				if err := os.Remove(root); err != nil {
					tb.Fatal(err)
				}
				if err := os.Rename(aside, root); err != nil {
					tb.Fatal(err)
				}
			}
		},
		Residue: func(tb testing.TB, s storage.Storage) int {
			files, err := filepath.Glob(filepath.Join(dirs[s], "locks", "*"))
			if err != nil {
				tb.Fatal(err)
			}
			return len(files)
		},
		TakeOver: 20 * time.Second,
		Turns:    3,
	}
}

func TestFileStorage(t *testing.T) { storagetest.RunBackend(t, backend()) }

func TestFileStorageLocks(t *testing.T) {
	if testing.Short() {
		t.Skip("CertMagic's file locks poll once a second")
	}
	// The short kit kills one holder. To kill a second within five seconds of the
	// first one's successor is too much for FileStorage: the successor's process
	// goes on to refresh the lock file, whosever it is by then.
	if err := flag.Set("test.short", "true"); err != nil {
		t.Fatal(err)
	}
	defer flag.Set("test.short", "false")
	storagetest.RunLocker(t, backend())
}
