package certwright

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/record"
)

// countingStorage counts calls and makes each take a while.
type countingStorage struct {
	*MemStorage
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
	return s.MemStorage.Load(ctx, key)
}

func (s *countingStorage) Store(ctx context.Context, key string, value []byte) error {
	s.count("store")
	return s.MemStorage.Store(ctx, key, value)
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	s.count("delete")
	return s.MemStorage.Delete(ctx, key)
}

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.count("list")
	return s.MemStorage.List(ctx, prefix)
}

// certificateOf issues a certificate for name and returns its record.
func certificateOf(t *testing.T, conf Config, name string) (issuer string, value []byte) {
	t.Helper()
	mem := NewMemStorage()
	conf.Storage = mem
	m := start(t, conf)
	manage(t, m, name)
	issuer = statusFor(t, m, name).Issuer
	closeManager(t, m)
	value, err := mem.Load(t.Context(), storageKey(keyCerts, issuer, name))
	if err != nil {
		t.Fatal(err)
	}
	return issuer, value
}

func mustStore(t *testing.T, s Storage, key string, value []byte) {
	t.Helper()
	if err := s.Store(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func mustEncode(t *testing.T, kind string, body any) []byte {
	t.Helper()
	value, err := record.Encode(kind, body)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func keysOf(t *testing.T, s Storage) []string {
	t.Helper()
	keys, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// residue stores, for each of names, everything that can go stale, as of now.
func residue(t *testing.T, s Storage, names ...string) {
	t.Helper()
	now := time.Now().UTC().Round(0)
	for _, name := range names {
		mustStore(t, s, storageKey(keyState, name), mustEncode(t, kindState, stateRecord{Attempts: 3, Last: now, Next: now.Add(time.Hour), Error: "no"}))
		mustStore(t, s, storageKey(keyOrders, name), mustEncode(t, kindOrder, orderRecord{Names: []string{name}, Created: now}))
		mustStore(t, s, storageKey(keyStaples, name), mustEncode(t, kindStaple, stapleRecord{Serial: "1", Asked: now}))
		mustStore(t, s, storageKey(keyRenewalInfo, name), mustEncode(t, kindRenewalInfo, ariRecord{Serial: "1", Refresh: now}))
		for _, typ := range []string{challenge.HTTP01, challenge.TLSALPN01} {
			value, err := json.Marshal(challenge.Challenge{Type: typ, Identifier: name, Token: "t", KeyAuthorization: "t.k", Presented: now})
			if err != nil {
				t.Fatal(err)
			}
			mustStore(t, s, storageKey(keyChallenges, typ, name, "t"), value)
		}
	}
}

// What is stale of names that nobody manages goes after the grace period and
// not before; what is managed, unreadable or not ours stays for ever.
func TestCleanRemovesOnlyWhatIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{DefaultLifetime: 300 * day, Profiles: map[string]time.Duration{"short": 30 * day}})
		short := conf
		short.Profile = "short"
		issuer, gone := certificateOf(t, short, "gone.test")
		_, live := certificateOf(t, conf, "live.test")
		mem := conf.Storage.(*MemStorage)
		mustStore(t, mem, storageKey(keyCerts, issuer, "gone.test"), gone)
		mustStore(t, mem, storageKey(keyCerts, "other-ca", "live.test"), live) // of an issuer that is not configured any more
		mustStore(t, mem, storageKey(keyCerts, issuer, "swapped.test"), gone)
		residue(t, mem, "gone.test")
		foreign := map[string][]byte{
			"v1/unknown/gone.test":                     gone,
			"v1/certs/too/many/parts":                  gone,
			"v1/certs/short":                           gone,
			"v2/certs/x/gone.test":                     gone,
			"v1/state/damaged.test":                    []byte("<html>"),
			"v1/state/newer.test":                      []byte(`{"v":2}`),
			"v1/orders/empty.test":                     {},
			"v1/accounts/" + issuer + "/gone":          gone,
			"v1/challenges/http-01/x.test/a/b":         []byte("{}"),
			"v1/challenges/http-01/x.test/tok":         []byte("{}"),
			storageKey(keyCerts, issuer, "swapped"):    gone,
			"certificates/acme/gone.test/gone.test.id": gone,
		}
		for key, value := range foreign {
			mustStore(t, mem, key, value)
		}
		m := start(t, conf)
		manage(t, m, "live.test")
		residue(t, mem, "live.test")
		before := keysOf(t, mem)

		time.Sleep(2 * day)
		left := keysOf(t, mem)
		if slices.ContainsFunc(left, func(k string) bool {
			return strings.Contains(k, "/gone.test/t") || strings.HasSuffix(k, "/live.test/t")
		}) {
			t.Errorf("challenges of two days ago are left: %q", left)
		}
		for _, prefix := range []string{keyState, keyOrders, keyStaples, keyRenewalInfo, storageKey(keyCerts, issuer)} {
			if !slices.Contains(left, prefix+"/gone.test") {
				t.Errorf("%s/gone.test went before its time", prefix)
			}
		}
		time.Sleep(60 * day)
		left = keysOf(t, mem)
		for _, key := range before {
			stays := !strings.Contains(key, "gone.test") || foreign[key] != nil
			if strings.HasPrefix(key, keyChallenges) && foreign[key] == nil {
				stays = false
			}
			if slices.Contains(left, key) != stays {
				t.Errorf("%s: left %v, should be %v", key, !stays, stays)
			}
		}
		if n := len(ca.Orders()); n != 3 || mustLeaf(t, m, "live.test").NotAfter.Before(time.Now()) {
			t.Errorf("the managed name is not served as before: %d orders", n)
		}
	})
}

// An expired certificate, of a name that another instance still tries for, goes
// only under the lease for issuing it, and only if it is still the expired one.
func TestCleanUnderTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{DefaultLifetime: 10 * day})
		issuer, expired := certificateOf(t, conf, "a.test")
		time.Sleep(30 * day)
		_, fresh := certificateOf(t, conf, "a.test")
		mem := conf.Storage.(*MemStorage)
		key := storageKey(keyCerts, issuer, "a.test")
		mustStore(t, mem, key, expired)
		lease, err := mem.Lock(t.Context(), "issue/a.test")
		if err != nil {
			t.Fatal(err)
		}
		m := start(t, conf)
		time.Sleep(12 * time.Minute)
		if !slices.Contains(keysOf(t, mem), key) {
			t.Fatal("removed although its lease is held")
		}
		if !slices.Contains(keysOf(t, mem), keyCleaned) {
			t.Fatal("one busy name kept the round from its end")
		}
		// Another instance stores a new one between the look and the lease.
		rule := m.cleaner.rules()[0]
		done := make(chan bool, 1)
		go func() {
			gone, _, err := m.cleaner.look(t.Context(), rule, key, "a.test")
			done <- gone || err != nil
		}()
		time.Sleep(time.Second)
		mustStore(t, mem, key, fresh)
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		if <-done {
			t.Error("the new certificate was removed, or an error came")
		}
		if value, err := mem.Load(t.Context(), key); err != nil || string(value) != string(fresh) {
			t.Errorf("the new certificate is not there: %v", err)
		}
	})
}

// A name whose back-off is alive keeps its order, with its key, however old.
func TestCleanKeepsOrderWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		mem := conf.Storage.(*MemStorage)
		residue(t, mem, "a.test", "b.test")
		start(t, conf)
		for range 30 {
			time.Sleep(day)
			now := time.Now().UTC().Round(0)
			mustStore(t, mem, "v1/state/a.test", mustEncode(t, kindState, stateRecord{Attempts: 9, Last: now, Next: now.Add(6 * time.Hour)}))
		}
		keys := keysOf(t, mem)
		if !slices.Contains(keys, "v1/orders/a.test") || slices.Contains(keys, "v1/orders/b.test") {
			t.Errorf("left are %q", keys)
		}
	})
}

func TestCleanConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		conf.CleanGrace = -1
		if _, err := New(conf); err == nil || !strings.Contains(err.Error(), "Config.CleanGrace") {
			t.Errorf("a negative grace: %v", err)
		}
		conf.CleanGrace = time.Hour
		conf.CleanInterval = -1
		mem := conf.Storage.(*MemStorage)
		residue(t, mem, "a.test")
		before := keysOf(t, mem)
		off := start(t, conf)
		time.Sleep(60 * day)
		if got := keysOf(t, mem); !slices.Equal(got, before) {
			t.Errorf("cleaned although it is off: %q left", got)
		}
		closeManager(t, off)
		conf.CleanInterval = 10 * time.Minute
		start(t, conf)
		time.Sleep(11 * time.Minute)
		if got := keysOf(t, mem); !slices.Equal(got, []string{keyCleaned}) {
			t.Errorf("left are %q", got)
		}
	})
}

// A record of the last round that is damaged, or from the future, stops no
// cleaning; a newer version's does.
func TestCleanedRecord(t *testing.T) {
	tests := map[string]struct {
		value  func(t *testing.T) []byte
		cleans bool
	}{
		"none":    {func(*testing.T) []byte { return nil }, true},
		"damaged": {func(*testing.T) []byte { return []byte("{") }, true},
		"newer":   {func(*testing.T) []byte { return []byte(`{"v":7}`) }, false},
		"future": {func(t *testing.T) []byte {
			return mustEncode(t, kindCleaned, cleanedRecord{At: time.Now().Add(1000 * day)})
		}, true},
		"recent": {func(t *testing.T) []byte {
			return mustEncode(t, kindCleaned, cleanedRecord{At: time.Now().Add(-time.Hour)})
		}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conf := newFake(t, fakeca.Options{})
				mem := conf.Storage.(*MemStorage)
				residue(t, mem, "a.test")
				time.Sleep(40 * day)
				if v := tt.value(t); v != nil {
					mustStore(t, mem, keyCleaned, v)
				}
				start(t, conf)
				time.Sleep(20 * time.Minute)
				if cleaned := len(keysOf(t, mem)) == 1; cleaned != tt.cleans {
					t.Errorf("cleaned: %v, left are %q", cleaned, keysOf(t, mem))
				}
			})
		})
	}
}

// Closing the Manager or the storage in the middle of a round ends it at once,
// frees the lease and is nobody's error.
func TestS13_CloseDuringCleaning(t *testing.T) {
	for _, what := range []string{"manager", "lease"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conf := newFake(t, fakeca.Options{})
				mem := conf.Storage.(*MemStorage)
				var names []string
				for i := range 500 {
					names = append(names, fmt.Sprintf("n%d.test", i))
				}
				residue(t, mem, names...)
				time.Sleep(40 * day)
				log, logs := observed(zapcore.WarnLevel)
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
				} else if !mem.LoseLease(cleanKey) {
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

// A DirStorage that is closed before its Manager is no error of cleaning's.
func TestS13_StorageClosedDuringCleaning(t *testing.T) {
	dir, err := NewDirStorage(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log, logs := observed(zapcore.WarnLevel)
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
		s := &countingStorage{MemStorage: NewMemStorage()}
		conf.Storage = s
		var r certRecord
		if err := record.Decode(kindCertificate, value, &r); err != nil {
			t.Fatal(err)
		}
		for i := range certs {
			r.ID = fmt.Sprintf("%d.test", i)
			mustStore(t, s.MemStorage, storageKey(keyCerts, issuer, r.ID), mustEncode(t, kindCertificate, r))
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
		value, err := s.MemStorage.Load(t.Context(), keyCleaned)
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
		s := &countingStorage{MemStorage: NewMemStorage()}
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
		f := newFaulty(NewMemStorage())
		conf.Storage = f
		log, logs := observed(zapcore.WarnLevel)
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

// Files that go with no key: temporary files and locks of the dead go, the locks
// of the living stay.
func TestTidyFolder(t *testing.T) {
	for _, leases := range []bool{false, true} {
		t.Run(fmt.Sprintf("leases=%v", leases), func(t *testing.T) {
			path := t.TempDir()
			open := func() *DirStorage {
				d, err := OpenDirStorage(path, DirOptions{LeaseFiles: leases, LeaseTTL: 200 * time.Millisecond})
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
			if err := d.tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(locks)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
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
			if err := d.tidy(t.Context()); err == nil {
				t.Error("a closed storage is tidied")
			}
		})
	}
}
