package certwright_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// certificateOf issues a certificate for name and returns its record.
func certificateOf(t *testing.T, conf Config, name string) []byte {
	t.Helper()
	conf.Storage = storage.NewMemory()
	m := start(t, conf)
	manage(t, m, name)
	closeManager(t, m)
	return mustLoad(t, conf.Storage, certKey(name))
}

// residue stores, for each of names, everything that can go stale, as of now.
func residue(t *testing.T, s Storage, names ...string) {
	t.Helper()
	now := time.Now().UTC().Round(0)
	r := recordsOn(s)
	table := challenge.New(challenge.Options{Store: s, Prefix: keyChallenges, Cert: func(string, string) (*tls.Certificate, error) { return new(tls.Certificate), nil }})
	for _, name := range names {
		id := records.ID([]string{name}, P256)
		errs := []error{
			r.StoreHold(t.Context(), &records.Hold{Account: "ca", Subject: name, Noted: now.Unix(), Last: now.Unix(), Until: now.Add(time.Hour).Unix(), Attempts: 3, Error: "no"}),
			r.StoreOrder(t.Context(), id, &records.Order{Names: []string{name}, Created: now, Issuer: "ca"}),
			r.StoreStaple(t.Context(), id, &records.Staple{Serial: "1", Asked: now}),
			r.StoreRenewalInfo(t.Context(), id, &records.RenewalInfo{Serial: "1", Refresh: now}),
		}
		for _, typ := range []string{challenge.HTTP01, challenge.TLSALPN01} {
			errs = append(errs, table.Present(t.Context(), challenge.Challenge{
				Type: typ, Identifier: name, Token: tokenOf(typ, name), KeyAuthorization: "t.k",
			}))
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
}

// tokenOf is the token of a residual challenge.
func tokenOf(typ, name string) string { return "t-" + strings.ReplaceAll(typ+"-"+name, ".", "_") }

// stillThere returns the keys that speak of a name.
func stillThere(t *testing.T, s Storage, name string) []string {
	t.Helper()
	return slices.DeleteFunc(keysOf(t, s), func(k string) bool { return !strings.Contains(k, name) })
}

// TestCleanRemovesOnlyWhatIsStale has what is stale of names that nobody manages
// go after the grace period and not before; what is managed, unreadable or not
// ours stays for ever.
func TestCleanRemovesOnlyWhatIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{DefaultLifetime: 300 * day, Profiles: map[string]time.Duration{"short": 30 * day}})
		short := conf
		short.Profile = "short"
		gone := certificateOf(t, short, "gone.test")
		mem := conf.Storage.(*storage.Memory)
		mustStore(t, mem, certKey("gone.test"), gone)
		residue(t, mem, "gone.test")
		foreign := map[string][]byte{
			"v1/unknown/gone.test":                     gone,
			"v1/certs/too/many/parts":                  gone,
			"v1/certs/short":                           gone,
			"v2/certs/gone.test+p256.pem":              gone,
			"v1/holds/damaged.test+0badc0de":           []byte("<html>"),
			"v1/holds/newer.test+0badc0de":             []byte("certwright hold 2 what nobody knows yet\n"),
			"v1/orders/empty.test+p256+0badc0de":       {},
			"v1/accounts/gone.test":                    gone,
			"v1/challenges/junk":                       []byte("{}"),
			"v1/challenges/more/junk":                  []byte("<html>"),
			certKey("swapped.test"):                    gone,
			"certificates/acme/gone.test/gone.test.id": gone,
		}
		storeAll(t, mem, foreign)
		m := start(t, conf)
		manage(t, m, "live.test")
		residue(t, mem, "live.test")
		before := keysOf(t, mem)
		mine := stillThere(t, mem, "gone.test")

		time.Sleep(2 * day)
		left := keysOf(t, mem)
		for _, name := range []string{"gone.test", "live.test"} {
			if slices.ContainsFunc(left, func(k string) bool { return strings.HasPrefix(k, keyChallenges) && strings.Contains(k, name) }) {
				t.Errorf("challenges for %s of two days ago are left: %q", name, left)
			}
		}
		for _, key := range mine {
			if !slices.Contains(left, key) && !strings.HasPrefix(key, keyChallenges) {
				t.Errorf("%s went before its time", key)
			}
		}
		time.Sleep(60 * day)
		left = keysOf(t, mem)
		for _, key := range before {
			stays := foreign[key] != nil || !strings.Contains(key, "gone.test") && !strings.HasPrefix(key, keyChallenges)
			if stays && strings.HasPrefix(key, keyHolds+"/live.test") {
				continue // a back-off of the managed name goes too
			}
			if slices.Contains(left, key) != stays {
				t.Errorf("%s: left %v, should be %v", key, !stays, stays)
			}
		}
		if n := len(ca.Orders()); n != 2 || mustLeaf(t, m, "live.test").NotAfter.Before(time.Now()) {
			t.Errorf("the managed name is not served as before: %d orders", n)
		}
		if r, err := recordsOn(mem).LoadCleaned(t.Context()); err != nil || time.Since(r.At) > 30*time.Hour {
			t.Errorf("the last round was at %v, %v: what cannot be read keeps rounds from their end", r.At, err)
		}
	})
}

// TestCleanUnderTheLease has an expired certificate, of a name that another
// instance still tries for, go only under the lease for issuing it, and only if it
// is still the expired one.
func TestCleanUnderTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{DefaultLifetime: 10 * day})
		expired := certificateOf(t, conf, "a.test")
		time.Sleep(30 * day)
		fresh := certificateOf(t, conf, "a.test")
		mem := conf.Storage.(*storage.Memory)
		key := certKey("a.test")
		mustStore(t, mem, key, expired)
		lease, err := mem.Lock(t.Context(), records.IssueLock(records.ID([]string{"a.test"}, P256)))
		if err != nil {
			t.Fatal(err)
		}
		f := newFaulty(mem)
		conf.Storage, conf.Locker, conf.CleanInterval = f, mem, time.Hour
		start(t, conf)
		time.Sleep(12 * time.Minute)
		if !slices.Contains(keysOf(t, mem), key) {
			t.Fatal("removed although its lease is held")
		}
		if !slices.Contains(keysOf(t, mem), keyCleaned) {
			t.Fatal("one busy name kept the round from its end")
		}
		// Another instance stores a new one between the look and the lease, which it
		// gives back a second later.
		var loads atomic.Int32
		f.set(func(c call) fault {
			if c.op == "load" && c.key == key {
				if loads.Add(1) == 1 {
					go func() {
						time.Sleep(time.Second)
						_ = mem.Store(context.Background(), key, fresh)
						_ = lease.Unlock(context.Background())
					}()
				}
			}
			return fault{}
		})
		time.Sleep(2 * time.Hour)
		if n := loads.Load(); n < 2 {
			t.Errorf("read %d times: not once more under the lease", n)
		}
		if value := mustLoad(t, mem, key); string(value) != string(fresh) {
			t.Error("the new certificate is not there")
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

// TestCleanedRecord has a record of the last round that is damaged, or from the future, stops no
// cleaning; a newer version's does.
func TestCleanedRecord(t *testing.T) {
	tests := map[string]struct {
		value  func(t *testing.T) []byte
		cleans bool
	}{
		"none":    {func(*testing.T) []byte { return nil }, true},
		"damaged": {func(*testing.T) []byte { return []byte("{") }, true},
		"newer":   {func(*testing.T) []byte { return []byte("certwright cleaned 7 what nobody knows yet\n") }, false},
		"future":  {func(t *testing.T) []byte { return cleanedAt(t, time.Now().Add(1000*day)) }, true},
		"recent":  {func(t *testing.T) []byte { return cleanedAt(t, time.Now().Add(-time.Hour)) }, false},
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

// What others have left is removed beside an issue, which is not held up.
func TestOldChallengesHoldUpNoIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		conf.Storage, conf.CleanInterval = f, -1
		for i := range 10 {
			residue(t, f, fmt.Sprintf("n%d.test", i))
		}
		old := len(challengesOf(t, f))
		time.Sleep(20 * time.Minute)
		f.set(func(c call) fault {
			if c.op == "load" && strings.HasPrefix(c.key, keyChallenges) {
				return fault{delay: 2 * time.Second}
			}
			return fault{}
		})
		m := start(t, conf)
		began := time.Now()
		manage(t, m, "a.example.com")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("an issue beside %d old challenges took %v", old, took)
		}
		time.Sleep(time.Minute)
		if left := challengesOf(t, f); len(left) > 0 {
			t.Errorf("left are %q", left)
		}
	})
}

func challengesOf(t *testing.T, s Storage) []string {
	t.Helper()
	keys, err := s.List(t.Context(), keyChallenges)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// cleanedAt is the record of a round at a time.
func cleanedAt(t *testing.T, at time.Time) []byte {
	t.Helper()
	mem := storage.NewMemory()
	if err := recordsOn(mem).StoreCleaned(t.Context(), records.Cleaned{At: at}); err != nil {
		t.Fatal(err)
	}
	return mustLoad(t, mem, keyCleaned)
}
