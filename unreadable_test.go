package certwright_test

import (
	"bytes"
	"fmt"
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

// TestSealedRecordWithOneByteWrongIsReplaced flips and cuts a byte of what a
// sealed storage keeps: under Seal damage is damage too. (F4)
func TestSealedRecordWithOneByteWrongIsReplaced(t *testing.T) {
	const name = "a.example.com"
	spoil := map[string]func([]byte) []byte{
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"missing": func(b []byte) []byte { return b[:len(b)-1] },
		"empty":   func([]byte) []byte { return nil },
	}
	for _, kind := range []string{keyCerts, keyAccounts} {
		for how, spoil := range spoil {
			t.Run(strings.TrimPrefix(kind, "v1/")+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{})
					inner := storage.NewMemory()
					key, err := storage.NewSealKey(bytes.Repeat([]byte{7}, storage.SealKeySize))
					if err != nil {
						t.Fatal(err)
					}
					if conf.Storage, err = storage.Seal(inner, storage.SealOptions{Keys: []storage.SealKey{key}}); err != nil {
						t.Fatal(err)
					}
					m := start(t, conf)
					manage(t, m, name)
					closeManager(t, m)
					keys, err := inner.List(t.Context(), kind)
					if err != nil || len(keys) != 1 {
						t.Fatalf("%v, %v", keys, err)
					}
					mustStore(t, inner, keys[0], spoil(mustLoad(t, inner, keys[0])))
					conf.Issuers = []Issuer{issuerAt(ca)}
					m = start(t, conf)
					manage(t, m, name, "b.example.com")
					mustLeaf(t, m, name)
					closeManager(t, m)
					conf.Issuers = []Issuer{issuerAt(ca)}
					m = start(t, conf)
					orders := len(ca.Orders())
					manage(t, m, name, "b.example.com")
					if n := len(ca.Orders()); n != orders || n > 3 {
						t.Errorf("%d orders, after another start %d", orders, n)
					}
				})
			})
		}
	}
}
