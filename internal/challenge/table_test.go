package challenge_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/challenge"
)

func TestAnswersWhatWasPresentedUntilItIsCleanedUp(t *testing.T) {
	for name, store := range map[string]*fakeStore{"in memory": nil, "with a store": {}} {
		t.Run(name, func(t *testing.T) {
			table := instance(t, store)
			h, a := httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok2")
			present(t, table, h)
			present(t, table, a)
			wantToken(t, table, "tok1", true)
			for _, token := range []string{"tok2", "tok3", "", "tok1/", "../tok1"} {
				wantToken(t, table, token, false)
			}
			wantCert(t, table, "tok2")
			if _, err := table.Certificate(t.Context(), "b.example.com"); err == nil {
				t.Error("a certificate for another name")
			}
			cleanUp(t, table, h)
			cleanUp(t, table, a)
			cleanUp(t, table, httpChallenge("c.example.com", "never"))
			wantToken(t, table, "tok1", false)
			wantCert(t, table, "")
		})
	}
}

func TestRefusesToPresentWhatItCannotAnswer(t *testing.T) {
	store := &fakeStore{}
	table := instance(t, store)
	for _, ch := range []challenge.Challenge{
		httpChallenge("a.example.com", ""),
		httpChallenge("a.example.com", "../../certs/x"),
		httpChallenge("a.example.com", strings.Repeat("a", 300)),
		{Type: "dns-01", Identifier: "a.example.com", Token: "tok", KeyAuthorization: "tok.thumb"},
		alpnChallenge("", "tok"),
	} {
		err := table.Present(t.Context(), ch)
		if err == nil {
			t.Errorf("presented %+v", ch)
		} else if strings.Contains(err.Error(), ch.KeyAuthorization) {
			t.Errorf("the key authorization is in: %v", err)
		}
	}
	wantToken(t, table, "tok", false)
	if keys := store.keys(prefix); len(keys) != 0 {
		t.Errorf("stored %q", keys)
	}
}

// Two names with the same token, as a CA without much chance in its tokens has.
func TestCleanUpForOneNameKeepsAnotherWithTheSameToken(t *testing.T) {
	store := &fakeStore{}
	a, b := instance(t, store), instance(t, store)
	present(t, a, httpChallenge("a.example.com", "same"))
	present(t, a, httpChallenge("b.example.com", "same"))
	cleanUp(t, a, httpChallenge("a.example.com", "same"))
	wantToken(t, a, "same", true)
	wantToken(t, b, "same", true)
	cleanUp(t, a, httpChallenge("b.example.com", "same"))
	wantToken(t, a, "same", false)
	wantToken(t, b, "same", false)
}

func TestNewestKeyAuthorizationWins(t *testing.T) { // T4
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		a, b := instance(t, store), instance(t, store)
		want := func(token string) {
			t.Helper()
			wantCert(t, a, token)
			wantCert(t, b, token)
		}
		for i := range 5 {
			token := fmt.Sprintf("tok%d", 9-i)
			present(t, a, alpnChallenge("a.example.com", token))
			want(token)
			time.Sleep(time.Second)
		}
		cleanUp(t, a, alpnChallenge("a.example.com", "tok5"))
		want("tok6")
		cleanUp(t, a, alpnChallenge("a.example.com", "tok9"))
		want("tok6")
		present(t, a, alpnChallenge("a.example.com", "tok9")) // again
		want("tok9")
	})
}

func TestPresenterAnswersWhenTheStoreFails(t *testing.T) {
	store := &fakeStore{}
	table := instance(t, store)
	down := errors.New("store is down")
	store.fail(down)
	h, a := httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok2")
	for _, ch := range []challenge.Challenge{h, a} {
		err := table.Present(t.Context(), ch)
		if !errors.Is(err, down) || strings.Contains(err.Error(), ch.KeyAuthorization) {
			t.Errorf("Present: %v", err)
		}
	}
	wantToken(t, table, "tok1", true)
	wantCert(t, table, "tok2")
	// What cannot be deleted is forgotten here, and reported.
	if err := table.CleanUp(t.Context(), h); !errors.Is(err, down) {
		t.Errorf("CleanUp: %v", err)
	}
	wantToken(t, table, "tok1", false)
}

// A key is of bounded length, flat, and says neither the token nor the name.
func TestKeysAreShortAndSayNothing(t *testing.T) {
	store := &fakeStore{}
	table := instance(t, store)
	long := strings.Repeat("a", 63)
	name, token := long+"."+long+"."+long+".example", strings.Repeat("t", 256)
	present(t, table, httpChallenge(name, token))
	present(t, table, alpnChallenge(name, token))
	present(t, table, httpChallenge("a.example.com", "short"))
	present(t, table, alpnChallenge("a.example.com", "short"))
	keys := store.keys(prefix)
	if len(keys) != 4 {
		t.Errorf("keys %q", keys)
	}
	for _, key := range keys {
		rest := strings.TrimPrefix(key, prefix+"/")
		if len(rest) > 100 || strings.ContainsAny(rest, "/.") {
			t.Errorf("key %q is long, or not flat", key)
		}
		for _, secret := range []string{"tttt", "short", "aaaa", "example"} {
			if strings.Contains(rest, secret) {
				t.Errorf("%q is in key %q", secret, key)
			}
		}
	}
}

func TestCleanRemovesOnlyWhatIsOlderThanTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		a, b := instance(t, store), instance(t, store)
		clean := func(want int) {
			t.Helper()
			if n, err := b.Clean(t.Context()); n != want || err != nil {
				t.Errorf("removed %d, want %d: %v", n, want, err)
			}
		}
		clean(0)
		present(t, a, httpChallenge("a.example.com", "ahead"))
		key := store.keys(prefix)[0]
		value, err := store.Load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		store.put(key, strings.Replace(string(value), `"presented":"20`, `"presented":"21`, 1)) // by a clock that was wrong
		clean(1)
		present(t, a, httpChallenge("a.example.com", "again"))
		present(t, a, httpChallenge("a.example.com", "old"))
		wantToken(t, b, "again", true) // it is known there from now on
		store.put(prefix+"/junk", "{")
		store.put("v1/certs/other", `{"type":"http-01","token":"x","key_authorization":"y"}`)
		time.Sleep(9 * time.Minute)
		present(t, a, httpChallenge("a.example.com", "again"))
		present(t, a, alpnChallenge("a.example.com", "new"))
		time.Sleep(time.Minute)
		clean(0) // exactly ten minutes
		time.Sleep(time.Second)
		clean(1)
		wantToken(t, b, "old", false)
		wantToken(t, b, "again", true)
		wantCert(t, b, "new")
		time.Sleep(time.Hour)
		clean(2)
		if keys := store.keys("v1"); len(keys) != 2 {
			t.Errorf("left %q: what is not a challenge stays", keys)
		}
	})
}

func TestCleanReportsWhatFailsAndGoesOn(t *testing.T) {
	if n, err := instance(t, nil).Clean(t.Context()); n != 0 || err != nil {
		t.Errorf("without a store: %d %v", n, err)
	}
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		table := instance(t, store)
		present(t, table, httpChallenge("a.example.com", "tok1"))
		present(t, table, httpChallenge("b.example.com", "tok2"))
		time.Sleep(time.Hour)
		down := errors.New("store is down")
		deletes := 0
		store.set(failOnly("delete", func() error {
			if deletes++; deletes == 1 {
				return down
			}
			return nil
		}))
		if n, err := table.Clean(t.Context()); n != 1 || !errors.Is(err, down) {
			t.Errorf("removed %d: %v", n, err)
		}
		store.fail(down)
		if n, err := table.Clean(t.Context()); n != 0 || !errors.Is(err, down) {
			t.Errorf("removed %d: %v", n, err)
		}
	})
}

func TestManyPresentAndAskAtOnce(t *testing.T) {
	store := &fakeStore{}
	table := instance(t, store)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			h, a := httpChallenge("a.example.com", fmt.Sprint("h", i)), alpnChallenge("a.example.com", fmt.Sprint("t", i))
			for _, ch := range []challenge.Challenge{h, a} {
				if err := table.Present(t.Context(), ch); err != nil {
					t.Error(err)
				}
			}
			wantToken(t, table, h.Token, true)
			wantToken(t, table, a.Token, false)
			if _, err := table.Certificate(t.Context(), "a.example.com"); err != nil {
				t.Error(err)
			}
			for _, ch := range []challenge.Challenge{h, a} {
				if err := table.CleanUp(t.Context(), ch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantCert(t, table, "")
	if keys := store.keys(prefix); len(keys) != 0 {
		t.Errorf("left in the store: %q", keys)
	}
}

func FuzzValidToken(f *testing.F) {
	for _, s := range []string{"", "abc-_09", "a/b", "..", "a b", "ä", "%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !challenge.ValidToken(s) {
			return
		}
		if s == "" || len(s) > 256 || strings.ContainsAny(s, "./\\%<>\"'& \x00\r\n?#") {
			t.Errorf("ValidToken(%q)", s)
		}
	})
}
