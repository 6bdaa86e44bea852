package certwright_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// recordRig is a store with a record of every kind for a.test, and what a
// Manager said about it.
type recordRig struct {
	t    *testing.T
	ca   *fakeca.CA
	conf Config
	mem  *storage.Memory // what conf.Storage is, or has inside
	said *said
}

func newRecordRig(t *testing.T) *recordRig {
	r := &recordRig{t: t, said: new(said)}
	r.ca, r.conf = newFake(t, fakeca.Options{OCSPURL: ocspURL})
	r.mem = r.conf.Storage.(*storage.Memory)
	r.conf.CleanInterval = -1
	return r
}

// start is a Manager that asks the CA's responder.
func (r *recordRig) start() *Manager {
	r.t.Helper()
	r.conf.Logger, r.said.logs = observed(slog.LevelDebug)
	r.conf.OnEvent = r.said.event
	return startWith(r.t, r.conf, &ocspResponder{ca: r.ca})
}

// fill brings a.test and b.test to where they have the record of that kind, and
// returns its key for either.
func (r *recordRig) fill(kind string) (a, b string) {
	r.t.Helper()
	m := r.start()
	names := []string{"a.test", "b.test"}
	if kind == keyOrders || kind == keyHolds {
		defer r.ca.On(fakeca.Rule{Endpoint: "finalize", Problem: fakeca.NewProblem("serverInternal", http.StatusInternalServerError, "not now")})()
		if m.ManageSync(r.t.Context(), names) == nil {
			r.t.Fatal("issued although the CA refuses")
		}
	} else {
		manage(r.t, m, names...)
	}
	synctest.Wait()
	closeManager(r.t, m)
	keys := slices.DeleteFunc(keysOf(r.t, r.conf.Storage), func(k string) bool { return !strings.HasPrefix(k, kind+"/") })
	if kind == keyAccounts {
		return keys[0], keys[0]
	}
	if len(keys) != 2 || !strings.HasPrefix(keys[0], kind+"/a.test+") {
		r.t.Fatalf("stored are %q", keys)
	}
	return keys[0], keys[1]
}

// damage is what becomes of a record's value. other is the value of another
// name's record of the same kind.
type damage struct {
	name string
	do   func(value, other []byte) []byte
	want outcome
}

type outcome int

const (
	reported outcome = iota // an error names the key, and the record is made anew
	leftHere                // an error names the key, and the record stays as it is
)

var damages = []damage{
	{"truncated", func(v, _ []byte) []byte { return v[:len(v)/2] }, reported},
	{"one byte short", func(v, _ []byte) []byte { return v[:len(v)-2] }, reported},
	{"empty", func(_, _ []byte) []byte { return nil }, reported},
	{"bit", func(v, _ []byte) []byte { w := bytes.Clone(v); w[len(w)-9] ^= 1; return w }, reported},
	{"HTML", func(_, _ []byte) []byte { return []byte("<html><h1>502 Bad Gateway</h1></html>") }, reported},
	{"other kind", func(v, _ []byte) []byte {
		_, rest, _ := bytes.Cut(v[len("certwright "):], []byte(" "))
		return append([]byte("certwright probe "), rest...)
	}, reported},
	{"giant", func(v, _ []byte) []byte { return append(bytes.Clone(v), bytes.Repeat([]byte(" "), 1<<20)...) }, reported},
	{"swapped", func(_, other []byte) []byte { return other }, reported},
	{"CRLF", func(v, _ []byte) []byte { return bytes.ReplaceAll(v, []byte("\n"), []byte("\r\n")) }, reported},
	{"newer", func(v, _ []byte) []byte { return bytes.Replace(v, []byte(" 1 sha256 "), []byte(" 2 sha256 "), 1) }, leftHere},
}

// flipped is the damage of one bit, at a byte counted from the front or, below 0,
// from the end.
func flipped(name string, at int) damage {
	return damage{name, func(v, _ []byte) []byte {
		w := bytes.Clone(v)
		w[(at+len(w))%len(w)] ^= 1
		return w
	}, reported}
}

// sealedDamages are of what a sealed storage has stored: its mark, the ID of the
// key (a key that nobody has may be given yet, for an hour), the nonce, the value,
// the tag.
var sealedDamages = []damage{
	flipped("mark", 0), flipped("key's ID", 20), flipped("nonce", 30), flipped("value", 100), flipped("tag", -1),
	{"first byte missing", func(v, _ []byte) []byte { return v[1:] }, reported},
	{"one byte short", func(v, _ []byte) []byte { return v[:len(v)-1] }, reported},
	{"empty", func(_, _ []byte) []byte { return nil }, reported},
	{"one byte more", func(v, _ []byte) []byte { return append(bytes.Clone(v), 0) }, reported},
	{"swapped", func(_, other []byte) []byte { return other }, reported},
}

var allKinds = []string{keyCerts, keyAccounts, keyOrders, keyHolds, keyStaples, keyInfos}

// TestDamageHealsAndHoldsUpNoOther damages a record of each kind: whatever it
// holds, the other names go on, an error names its key, and the name is healed;
// what a newer version wrote stays.
func TestDamageHealsAndHoldsUpNoOther(t *testing.T) {
	for _, kind := range allKinds {
		for _, d := range damages {
			if kind == keyAccounts && d.name == "swapped" {
				continue // there is one; see TestAccountOfAnotherCA
			}
			t.Run(strings.TrimPrefix(kind, "v1/")+"/"+d.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					quiet := d.name == "swapped" && kind != keyCerts // what is another name's is seen to be of no use, without a word
					damageRecord(t, newRecordRig(t), kind, d, quiet)
				})
			})
		}
	}
}

// TestDamageUnderSealHealsAndHoldsUpNoOther is the same for what a sealed storage
// keeps: damage is damage there too. (F4)
func TestDamageUnderSealHealsAndHoldsUpNoOther(t *testing.T) {
	for _, kind := range allKinds {
		list := sealedDamages
		if kind != keyCerts && kind != keyAccounts {
			list = []damage{flipped("value", 100), list[len(list)-1]}
		}
		for _, d := range list {
			if kind == keyAccounts && d.name == "swapped" {
				continue // there is one
			}
			t.Run(strings.TrimPrefix(kind, "v1/")+"/"+d.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRecordRig(t)
					r.conf.Storage = sealedWith(t, r.mem, 1)
					damageRecord(t, r, kind, d, false)
				})
			})
		}
	}
}

func damageRecord(t *testing.T, r *recordRig, kind string, d damage, quiet bool) {
	key, otherKey := r.fill(kind)
	bad := d.do(mustLoad(t, r.mem, key), mustLoad(t, r.mem, otherKey))
	mustStore(t, r.mem, key, bad)
	m := r.start()
	r.said.add(m.ManageSync(t.Context(), []string{"b.test", "c.test", "a.test"}))
	time.Sleep(2 * time.Hour)
	// Without its account no name without a certificate gets one.
	for _, name := range []string{"a.test", "b.test", "c.test"} {
		missing := kind == keyAccounts && d.want == leftHere && name == "c.test"
		if (leafOf(m, name) == nil) != missing {
			t.Errorf("%s: served %v; %+v", name, !missing, statusFor(t, m, name))
		}
	}
	if !quiet && !r.said.has(key) {
		t.Errorf("no error speaks of %q: %q", key, r.said.texts())
	}
	after, err := r.mem.Load(t.Context(), key)
	isDone := kind == keyOrders || kind == keyHolds
	switch {
	case d.want == leftHere && !bytes.Equal(after, bad):
		t.Errorf("%q was overwritten", key)
	case d.want == reported && isDone && err == nil && !quiet:
		t.Errorf("%q is still there", key)
	case d.want == reported && !isDone && bytes.Equal(after, bad):
		t.Errorf("%q is as bad as before", key)
	}
}

// TestAccountOfAnotherCA has a key be of another CA's account: it is not sent there
// with that URL.
func TestAccountOfAnotherCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecordRig(t)
		r.fill(keyAccounts)
		id := r.conf.Issuers[0].ID()
		a := accountIn(t, r.mem, id)
		a.Directory, a.Location = "https://other.test/directory", "https://other.test/account/1"
		if err := recordsOn(r.mem).StoreAccount(t.Context(), id, a); err != nil {
			t.Fatal(err)
		}
		manage(t, r.start(), "c.test")
		for _, req := range r.ca.Requests("") {
			if strings.Contains(req.Kid, "other.test") {
				t.Errorf("%s was signed as %s", req.URL, req.Kid)
			}
		}
		if a := accountIn(t, r.mem, id); a.Directory != r.ca.Directory() || r.ca.Accounts() != 1 {
			t.Errorf("%v; %d accounts", a, r.ca.Accounts())
		}
	})
}

// TestAccountThatLacksSomething has an account record lack what it should have, or
// have what it should not: it is one that is not registered. (S23)
func TestAccountThatLacksSomething(t *testing.T) {
	tests := map[string]func(*records.Account){
		"no URL": func(a *records.Account) { a.Location = "" },
		"no key": func(a *records.Account) { a.KeyPEM = "" },
		"wrong key": func(a *records.Account) {
			a.KeyPEM = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"
		},
		"no directory":  func(a *records.Account) { a.Directory = "" },
		"URL elsewhere": func(a *records.Account) { a.Location = "https://elsewhere.test/1" },
		"nothing":       func(a *records.Account) { *a = records.Account{} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecordRig(t)
				r.fill(keyAccounts)
				id := r.conf.Issuers[0].ID()
				a := accountIn(t, r.mem, id)
				sameKey := name == "no URL" || name == "no directory" || name == "URL elsewhere"
				spoil(a)
				if err := recordsOn(r.mem).StoreAccount(t.Context(), id, a); err != nil {
					t.Fatal(err)
				}
				manage(t, r.start(), "c.test", "d.test")
				want := 2
				if sameKey {
					want = 1
				}
				if got := r.ca.Accounts(); got != want {
					t.Errorf("%d accounts, want %d", got, want)
				}
			})
		})
	}
}
