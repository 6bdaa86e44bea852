package certwright

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/storage"
)

// certificateOf issues a certificate for name and returns its record.
func certificateOf(t *testing.T, conf Config, name string) (issuer string, value []byte) {
	t.Helper()
	mem := storage.NewMemory()
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

func storeAll(t *testing.T, s Storage, values map[string][]byte) {
	t.Helper()
	for key, value := range values {
		mustStore(t, s, key, value)
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
		mem := conf.Storage.(*storage.Memory)
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
		storeAll(t, mem, foreign)
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
		mem := conf.Storage.(*storage.Memory)
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
		mem := conf.Storage.(*storage.Memory)
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
		mem := conf.Storage.(*storage.Memory)
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
				mem := conf.Storage.(*storage.Memory)
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
