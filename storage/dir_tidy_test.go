package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Files that go with no key: temporary files and locks of the dead go, the locks
// of the living stay.
func TestDirTidies(t *testing.T) {
	for _, leases := range []bool{false, true} {
		t.Run(fmt.Sprintf("leases=%v", leases), func(t *testing.T) {
			path := t.TempDir()
			open := func() *Dir {
				d, err := DirOptions{LeaseFiles: leases, LeaseTTL: 200 * time.Millisecond}.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = d.Close() })
				return d
			}
			d, other := open(), open()
			held, err := other.Lock(t.Context(), "held")
			if err != nil {
				t.Fatal(err)
			}
			locks := filepath.Join(path, locksDir)
			dead, foreign := filepath.Join(locks, "dead.lock"), filepath.Join(locks, "README")
			if leases {
				if err := os.Mkdir(filepath.Join(locks, "empty.lease"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(filepath.Join(locks, "dead.lease"), 0o700); err != nil {
					t.Fatal(err)
				}
				dead = filepath.Join(locks, "dead.lease", "7")
			}
			for _, f := range []string{dead, foreign} {
				if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
			names := namesIn(t, locks)
			want := []string{"README", "held.lock"}
			if leases {
				want = []string{"README", "held.lease", leasesMarker}
			}
			if !slices.Equal(names, want) {
				t.Errorf("left are %q, want %q", names, want)
			}
			if held.Context().Err() != nil || held.Unlock(t.Context()) != nil {
				t.Error("the holder lost its lock")
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := d.Tidy(t.Context()); err == nil {
				t.Error("a closed storage is tidied")
			}
		})
	}
}
