package certwright_test

import (
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/storagetest"
)

// TestCloseDuringCleaning closes the Manager, or takes its lease, in the middle of
// a round: that ends at once, frees the lease and is nobody's error. (S13)
func TestCloseDuringCleaning(t *testing.T) {
	for _, what := range []string{"manager", "lease"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conf := newFake(t, fakeca.Options{})
				mem := conf.Storage.(*storage.Memory)
				locks := &storagetest.LosableLocker{Locker: mem}
				conf.Locker = locks
				var names []string
				for i := range 500 {
					names = append(names, fmt.Sprintf("n%d.test", i))
				}
				residue(t, mem, names...)
				time.Sleep(40 * day)
				log, logs := observed(slog.LevelWarn)
				conf.Logger = log
				m := start(t, conf)
				for len(keysOf(t, mem)) > 2900 {
					time.Sleep(time.Second)
				}
				if what == "manager" {
					began := time.Now()
					closeManager(t, m)
					if took := time.Since(began); took > 100*time.Millisecond {
						t.Errorf("Close took %v", took)
					}
				} else if !locks.Lose(cleanLease) {
					t.Error("no lease was held")
				}
				lease, err := mem.Lock(t.Context(), cleanLease)
				if err != nil {
					t.Fatal(err)
				}
				_ = lease.Unlock(t.Context())
				n := len(keysOf(t, mem))
				time.Sleep(time.Minute)
				if got := len(keysOf(t, mem)); got != n || n < 1000 {
					t.Errorf("went on after its end: %d keys, then %d", n, got)
				}
				if logs.Len() != 0 {
					t.Errorf("logged: %v", logs.All())
				}
			})
		})
	}
}

// cleanLease is the name of the lease for cleaning.
const cleanLease = "clean"

// storeBundles stores a certificate for each of names, as another instance would.
func storeBundles(t *testing.T, ca *fakeca.CA, s Storage, names []string) {
	t.Helper()
	r := recordsOn(s)
	for _, name := range names {
		pair := tlsPair(t, ca, name)
		b, _, err := r.Make(records.NewBundle{
			Names: []string{name}, Key: pair.PrivateKey.(crypto.Signer),
			Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		})
		if err == nil {
			err = r.StoreBundle(t.Context(), records.Stored{Bundle: b})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ownLists returns how many lists there were but of what other instances changed.
func ownLists(calls map[string]int) int {
	n := 0
	for call, times := range calls {
		if strings.HasPrefix(call, "list ") && call != "list "+keyChanges {
			n += times
		}
	}
	return n
}

// kindsThatGo is how many kinds of records a round lists, beside the changes: of
// certificates, orders, holds, staples, renewal info, challenges and the journal of
// those that Solvers presented.
const kindsThatGo = 7

// TestCleaningOfALargeStorage has 25,000 certificates of names that other
// instances manage, four instances, 5 ms a call: one of them reads each
// certificate once, with pauses, and none reads any of it again before it can be
// stale. (S14)
func TestCleaningOfALargeStorage(t *testing.T) {
	certs := 25_000
	if testing.Short() || raceEnabled {
		certs = 1_000
	}
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		s := &countingStorage{Memory: storage.NewMemory()}
		conf.Storage = s
		storeBundles(t, ca, s.Memory, numbered(certs, "test"))
		s.latency = 5 * time.Millisecond
		for range 4 {
			start(t, conf)
		}
		began := time.Now()
		s.take()
		time.Sleep(6 * time.Hour)
		calls := s.take()
		if got := calls["load v1/certs"]; got != certs {
			t.Errorf("the first day: %d certificates were read, want each of %d once", got, certs)
		}
		if calls["store"] != 1 || calls["delete"] != 0 || ownLists(calls) != kindsThatGo {
			t.Errorf("the first day: %v", calls)
		}
		done, err := recordsOn(s.Memory).LoadCleaned(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if took := done.At.Sub(began); took < time.Duration(certs)*20*time.Millisecond || took > time.Hour {
			t.Errorf("the round took %v: the rate is not bounded, or it is too slow", took)
		}
		for d := range 3 {
			time.Sleep(day)
			calls := s.take()
			if ownLists(calls) != kindsThatGo || calls["store"] != 1 || calls["load v1/certs"] != 0 || calls["load v1/cleaned"] > 12 {
				t.Errorf("day %d: %v", d+2, calls)
			}
		}
	})
}

// TestCleaningReadsAGoodCertificateOnce has certificates that are good be read
// once by whoever cleans, not once a day. (S14)
func TestCleaningReadsAGoodCertificateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		s := &countingStorage{Memory: storage.NewMemory()}
		storeBundles(t, ca, s, numbered(20, "test"))
		conf.Storage = s
		for range 3 {
			start(t, conf)
		}
		s.take()
		time.Sleep(60 * day)
		calls := s.take()
		if got := calls["load v1/certs"]; got != 20 {
			t.Errorf("%d certificates were read in 60 days, want 20", got)
		}
		if got := calls["store"]; got < 57 || got > 61 {
			t.Errorf("%d rounds in 60 days, want one a day: %v", got, calls)
		}
		time.Sleep(60 * day)
		if got := s.take()["delete"]; got != 20 {
			t.Errorf("%d of 20 expired certificates were removed", got)
		}
	})
}

// TestCleanGoesOnAfterAnError has a storage fail for one kind of record: that does
// not keep the others from being cleaned; the failure is a warning that names it,
// and heals.
func TestCleanGoesOnAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		conf.Storage = f
		log, logs := observed(slog.LevelWarn)
		conf.Logger = log
		residue(t, f, "a.test")
		time.Sleep(40 * day)
		f.set(func(c call) fault {
			if c.op == "list" && c.key == keyHolds || c.op == "load" && strings.HasPrefix(c.key, keyOrders) || c.op == "delete" && strings.HasPrefix(c.key, keyStaples) {
				return fault{err: errors.New("input/output error")}
			}
			return fault{}
		})
		start(t, conf)
		time.Sleep(30 * time.Minute)
		left := keysOf(t, f)
		for _, kind := range []string{keyOrders, keyHolds, keyStaples} {
			left = slices.DeleteFunc(left, func(k string) bool { return strings.HasPrefix(k, kind+"/a.test") })
		}
		if len(left) != 0 || len(keysOf(t, f)) != 3 {
			t.Errorf("left are %q", keysOf(t, f))
		}
		text := fmt.Sprint(logs.TakeAll())
		for _, part := range []string{`listing keys below "v1/holds"`, `loading "v1/orders/a.test`, `deleting "v1/staples/a.test`} {
			if !strings.Contains(text, part) {
				t.Errorf("the log does not say %s: %s", part, text)
			}
		}
		f.set(func(c call) fault {
			if c.op == "list" && c.key == keyHolds {
				return fault{list: func([]string) []string { runtime.Goexit(); return nil }}
			}
			return fault{}
		})
		time.Sleep(2 * time.Hour)
		f.set(nil)
		time.Sleep(2 * time.Hour)
		if got := keysOf(t, f); !slices.Equal(got, []string{keyCleaned}) {
			t.Errorf("after the failure left are %q", got)
		}
	})
}
