package certwright_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// unreadable has loads below a prefix fail from now on.
func unreadable(f *faulty, prefix string) {
	f.set(func(c call) fault {
		if c.op == "load" && strings.HasPrefix(c.key, prefix) {
			return fault{err: syscall.EIO}
		}
		return fault{}
	})
}

// TestRecordThatCannotBeReadForAnHourIsReplaced has one kind of record fail for
// good while others do not: neither a first certificate nor a renewal is kept up
// by it for more than a few hours, and no certificate is ordered twice. (F4)
func TestRecordThatCannotBeReadForAnHourIsReplaced(t *testing.T) {
	const name = "a.example.com"
	for _, kind := range []string{keyCerts, keyAccounts, keyOrders, keyHolds, keyInfos, keyStaples} {
		for _, renewal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/renewal=%v", strings.TrimPrefix(kind, "v1/"), renewal), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{OCSPURL: ocspURL})
					f := newFaulty(storage.NewMemory())
					conf.Storage = f
					m := startWith(t, conf, &ocspResponder{ca: ca})
					want := 1
					if renewal {
						manage(t, m, name)
						time.Sleep(58 * day)
						want++
					}
					unreadable(f, kind)
					_ = m.ManageAsync([]string{name})
					time.Sleep(4 * time.Hour)
					if renewal {
						time.Sleep(5 * day)
					}
					if left := time.Until(mustLeaf(t, m, name).NotAfter); left < 80*day {
						t.Errorf("served for %v more: %+v", left, statusFor(t, m, name))
					}
					if n := len(ca.Orders()); n != want {
						t.Errorf("%d orders, want %d", n, want)
					}
				})
			})
		}
	}
}

// TestStoredCertificateThatCannotBeReadIsReplaced starts on a certificate whose
// record fails for good: it is replaced after an hour, not before, and told. (F4)
func TestStoredCertificateThatCannotBeReadIsReplaced(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		conf.Storage = f
		m := start(t, conf)
		manage(t, m, name, "b.example.com")
		closeManager(t, m)
		unreadable(f, certKey(name))
		var events eventLog
		conf.OnEvent = events.add
		m = start(t, conf)
		if err := m.ManageAsync([]string{name, "b.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Minute)
		if n := len(ca.Orders()); n != 2 || leafOf(m, "b.example.com") == nil {
			t.Errorf("%d orders within an hour; want the two of before", n)
		}
		if s := statusFor(t, m, name); !strings.Contains(s.LastError, syscall.EIO.Error()) || s.State != StateMissing {
			t.Errorf("Status does not say why: %+v", s)
		}
		time.Sleep(3 * time.Hour)
		mustLeaf(t, m, name)
		if n := len(ca.Orders()); n != 3 {
			t.Errorf("%d orders, want 3", n)
		}
		if events.count(EventStorageDegraded) == 0 {
			t.Error("no event tells of the record")
		}
	})
}

// TestOutageOfTheWholeStorageIsNoDamage has the storage fail as a whole for two
// days: what is served is served on, nothing is ordered, and all is well when it
// is back. (F4)
func TestOutageOfTheWholeStorageIsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		conf.Storage = f
		m := start(t, conf)
		manage(t, m, "a.example.com", "b.example.com")
		closeManager(t, m)
		m = start(t, conf)
		manage(t, m, "a.example.com")
		f.set(func(call) fault { return fault{err: syscall.EIO} })
		if err := m.ManageAsync([]string{"b.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * day)
		mustLeaf(t, m, "a.example.com")
		f.set(nil)
		time.Sleep(20 * time.Minute)
		mustLeaf(t, m, "b.example.com")
		if n := len(ca.Orders()); n != 2 {
			t.Errorf("%d orders, want the two of before", n)
		}
	})
}

// TestFolderInThePlaceOfARecord has a folder, or a link that leads to itself, where
// the file of a record was: the name is issued again, and others are not held up.
// (F4)
func TestFolderInThePlaceOfARecord(t *testing.T) {
	folder := func(path string) error {
		return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
	}
	loop := func(path string) error { return os.Symlink(filepath.Base(path), path) }
	check := func(kind string, put func(path string) error, wait time.Duration) {
		t.Run(strings.TrimPrefix(kind, "v1/"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecordRig(t)
				dir := openDir(t, t.TempDir())
				r.conf.Storage = dir
				key, _ := r.fill(kind)
				path := filepath.Join(dir.Path(), filepath.FromSlash(strings.ReplaceAll(key, "+", "%2b"))+".rec")
				if err := errors.Join(os.Remove(path), put(path)); err != nil {
					t.Fatal(err)
				}
				m := r.start()
				_ = m.ManageAsync([]string{"a.test", "c.test"})
				time.Sleep(wait)
				mustLeaf(t, m, "a.test")
				mustLeaf(t, m, "c.test")
				if !r.said.has(key) {
					t.Errorf("no error speaks of %q: %q", key, r.said.texts())
				}
				if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
					t.Errorf("in its place is %v still", info.Mode())
				}
			})
		})
	}
	for _, kind := range allKinds {
		check(kind, folder, time.Minute) // which is no file, and never becomes one
	}
	check(keyCerts, loop, 75*time.Minute) // which may be mended within an hour
}

// TestListThatFailsForGoodHoldsUpNoName has the list of certificates, or every
// list, fail for good while all else works: no name is given up for it. (F4)
func TestListThatFailsForGoodHoldsUpNoName(t *testing.T) {
	for _, prefix := range []string{keyCerts, ""} {
		t.Run(prefix, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{})
				f := newFaulty(storage.NewMemory())
				conf.Storage, conf.CleanInterval, conf.DisableRenewalInfo = f, -1, true
				var events eventLog
				conf.OnEvent = events.add
				m := startAlone(t, conf)
				manage(t, m, "old.example.com")
				time.Sleep(20 * day)
				f.set(func(c call) fault {
					if c.op == "list" && strings.HasPrefix(c.key, prefix) {
						return fault{err: syscall.EACCES}
					}
					return fault{}
				})
				_ = m.ManageAsync([]string{"new.example.com"})
				err := m.Manage(t.Context(), Spec{Names: []string{"one.example.com", "two.example.com"}})
				if !errors.Is(err, syscall.EACCES) {
					t.Errorf("Manage: %v", err)
				}
				time.Sleep(2 * time.Hour)
				mustLeaf(t, m, "new.example.com")
				mustLeaf(t, m, "two.example.com")
				time.Sleep(45 * day)
				if left := time.Until(mustLeaf(t, m, "old.example.com").NotAfter); left < 80*day {
					t.Errorf("old.example.com is not renewed: %v", left)
				}
				if n := len(ca.Orders()); n != 4 {
					t.Errorf("%d orders, want 4", n)
				}
				if events.count(EventStorageDegraded) == 0 {
					t.Error("no event tells of the list")
				}
			})
		})
	}
}

// TestChallengeThatCannotBeStoredIsNoFaultOfAPort has challenges fail to be stored:
// the error says that, and does not send the reader to look at ports. (F4)
func TestChallengeThatCannotBeStoredIsNoFaultOfAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		conf.Storage = f
		f.set(func(c call) fault {
			if c.op == "store" && strings.HasPrefix(c.key, keyChallenges) {
				return fault{err: syscall.EACCES}
			}
			return fault{}
		})
		err := start(t, conf).ManageSync(t.Context(), []string{"a.example.com"})
		if !errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "port ") {
			t.Errorf("ManageSync: %v", err)
		}
	})
}

// TestStorageThatComesBackBeforeAShortCertificateEnds has the storage fail from when
// a certificate for an hour is due until shortly before it ends: the pause between
// two tries is a part of the life that is left. (F53)
func TestStorageThatComesBackBeforeAShortCertificateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sign := newFakeSigner(t)
		sign.set(func() {
			sign.validity = func() (from, to time.Time) { return time.Now(), time.Now().Add(time.Hour) }
		})
		f := newFaulty(storage.NewMemory())
		m := offline(t, sign, func(c *Config) { c.Storage = f })
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		time.Sleep(30 * time.Minute)
		f.set(func(call) fault { return fault{err: syscall.EIO} })
		time.Sleep(26 * time.Minute)
		f.set(nil)
		time.Sleep(3 * time.Minute)
		if mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Errorf("a minute before its end it is not renewed: %+v", statusFor(t, m, "a.example.com"))
		}
	})
}
