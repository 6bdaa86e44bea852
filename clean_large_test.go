package certwright

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/storagetest"
)

// countingStorage counts calls and makes each take a while.
type countingStorage struct {
	*storage.Memory
	latency time.Duration

	mu    sync.Mutex // guards calls
	calls map[string]int
}

func (s *countingStorage) count(call string) {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[call]++
	s.mu.Unlock()
	time.Sleep(s.latency) // fake time: it is used in bubbles only
}

// firstTwo returns the first two components of key.
func firstTwo(key string) string {
	parts := strings.SplitN(key, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// take returns the calls so far and counts anew.
func (s *countingStorage) take() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *countingStorage) Load(ctx context.Context, key string) ([]byte, error) {
	s.count("load " + firstTwo(key))
	return s.Memory.Load(ctx, key)
}

func (s *countingStorage) Store(ctx context.Context, key string, value []byte) error {
	s.count("store")
	return s.Memory.Store(ctx, key, value)
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	s.count("delete")
	return s.Memory.Delete(ctx, key)
}

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.count("list")
	return s.Memory.List(ctx, prefix)
}

// Closing the Manager or the storage in the middle of a round ends it at once,
// frees the lease and is nobody's error.
func TestS13_CloseDuringCleaning(t *testing.T) {
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
				} else if !locks.Lose(cleanKey) {
					t.Error("no lease was held")
				}
				lease, err := mem.Lock(t.Context(), cleanKey)
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

// A storage.Dir that is closed before its Manager is no error of cleaning's.
func TestS13_StorageClosedDuringCleaning(t *testing.T) {
	dir, err := storage.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log, logs := observed(slog.LevelWarn)
	_, conf := newFake(t, fakeca.Options{})
	conf.Logger, conf.Storage = log, dir
	residue(t, dir, "a.test", "b.test", "c.test")
	m := start(t, conf)
	logs.TakeAll() // that the folder is new
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.cleaner.run(t.Context())
	}()
	if err := dir.Close(); err != nil {
		t.Error(err)
	}
	<-done
	if logs.Len() != 0 {
		t.Errorf("logged: %v", logs.All())
	}
}

// 25,000 certificates of names that other instances manage, four instances, 5 ms
// a call: one of them reads each certificate once, with pauses, and none reads
// any of it again before it can be stale.
func TestS14_CleaningLargeStorage(t *testing.T) {
	certs := 25_000
	if testing.Short() {
		certs = 1_000
	}
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		issuer, value := certificateOf(t, conf, "a.test")
		s := &countingStorage{Memory: storage.NewMemory()}
		conf.Storage = s
		var r certRecord
		if err := record.Decode(kindCertificate, value, &r); err != nil {
			t.Fatal(err)
		}
		for i := range certs {
			r.ID = fmt.Sprintf("%d.test", i)
			mustStore(t, s.Memory, storageKey(keyCerts, issuer, r.ID), mustEncode(t, kindCertificate, r))
		}
		kinds := len((&cleaner{}).rules())
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
		if calls["store"] != 1 || calls["delete"] != 0 || calls["list"] != kinds {
			t.Errorf("the first day: %v", calls)
		}
		value, err := s.Memory.Load(t.Context(), keyCleaned)
		var done cleanedRecord
		if err := errors.Join(err, record.Decode(kindCleaned, value, &done)); err != nil {
			t.Fatal(err)
		}
		if took := done.At.Sub(began); took < time.Duration(certs)*cleanPause || took > time.Hour {
			t.Errorf("the round took %v: the rate is not bounded, or it is too slow", took)
		}
		for d := range 3 {
			time.Sleep(day)
			calls := s.take()
			if calls["list"] != kinds || calls["store"] != 1 || calls["load v1/certs"] != 0 || calls["load v1/cleaned"] > 12 {
				t.Errorf("day %d: %v", d+2, calls)
			}
		}
	})
}

// Certificates that are good are read once by whoever cleans, not once a day.
func TestS14_CertificatesAreReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		s := &countingStorage{Memory: storage.NewMemory()}
		for i := range 20 {
			issuer, value := certificateOf(t, conf, fmt.Sprintf("n%d.test", i))
			mustStore(t, s, storageKey(keyCerts, issuer, fmt.Sprintf("n%d.test", i)), value)
		}
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

// A storage that fails for one kind of record does not keep the others from
// being cleaned; the failure is a warning that names it, and heals.
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
			if c.op == "list" && c.key == keyState || c.op == "load" && strings.HasPrefix(c.key, keyOrders) || c.op == "delete" && strings.HasPrefix(c.key, keyStaples) {
				return fault{err: errors.New("input/output error")}
			}
			return fault{}
		})
		start(t, conf)
		time.Sleep(30 * time.Minute)
		want := []string{"v1/orders/a.test", "v1/staples/a.test", "v1/state/a.test"}
		if got := keysOf(t, f); !slices.Equal(got, want) {
			t.Errorf("left are %q", got)
		}
		text := fmt.Sprint(logs.TakeAll())
		for _, part := range []string{`listing keys below "v1/state"`, `loading "v1/orders/a.test"`, `deleting "v1/staples/a.test"`} {
			if !strings.Contains(text, part) {
				t.Errorf("the log does not say %s: %s", part, text)
			}
		}
		f.set(nil)
		time.Sleep(2 * time.Hour)
		if got := keysOf(t, f); !slices.Equal(got, []string{keyCleaned}) {
			t.Errorf("after the failure left are %q", got)
		}
	})
}
