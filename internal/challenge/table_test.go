package challenge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTable_Memory(t *testing.T) {
	table := New(nil, "", fakeCert)
	present(t, table, httpChallenge("a.example.com", "tok1"))
	present(t, table, alpnChallenge("a.example.com", "tok2"))
	if n := table.Pending(); n != 2 {
		t.Errorf("%d pending", n)
	}
	for _, row := range []struct {
		identifier, token, want string
	}{
		{"a.example.com", "tok1", "tok1.thumb"},
		{"a.example.com", "tok2", ""}, // of another type
		{"b.example.com", "tok1", ""},
		{"", "tok1", ""},
		{"a.example.com", "", ""},
		{"a.example.com", "tok1/", ""},
		{"a.example.com", "../tok1", ""},
	} {
		got, ok := table.KeyAuthorization(t.Context(), row.identifier, row.token)
		if got != row.want || ok != (row.want != "") {
			t.Errorf("%q %q: %q %v, want %q", row.identifier, row.token, got, ok, row.want)
		}
	}
	cert, err := table.Certificate(t.Context(), "a.example.com")
	if err != nil || keyAuthOf(t, cert) != "tok2.thumb" {
		t.Errorf("certificate: %v", err)
	}
	if _, err := table.Certificate(t.Context(), "b.example.com"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("certificate of another name: %v", err)
	}
	for _, ch := range []Challenge{httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok2"), httpChallenge("c.example.com", "never")} {
		if err := table.CleanUp(t.Context(), ch); err != nil {
			t.Error(err)
		}
	}
	if _, ok := table.KeyAuthorization(t.Context(), "a.example.com", "tok1"); ok || table.Pending() != 0 {
		t.Errorf("%d pending after clean-up", table.Pending())
	}
}

func TestTable_PresentRefuses(t *testing.T) {
	table := New(&fakeStore{}, "challenges", fakeCert)
	for _, ch := range []Challenge{
		httpChallenge("a.example.com", ""),
		httpChallenge("a.example.com", "../../certs/x"),
		httpChallenge("a.example.com", strings.Repeat("a", 300)),
		{Type: "dns-01", Identifier: "a.example.com", Token: "tok"},
		alpnChallenge("", "tok"),
	} {
		err := table.Present(t.Context(), ch)
		if err == nil {
			t.Errorf("presented %+v", ch)
		} else if ch.Token != "" && strings.Contains(err.Error(), ch.Token+".") {
			t.Errorf("the key authorization is in: %v", err)
		}
	}
	if table.Pending() != 0 {
		t.Errorf("%d pending", table.Pending())
	}
}

// Two names with the same token, as a CA without much chance in its tokens has.
func TestTable_TokenOfTwoNames(t *testing.T) {
	table := New(nil, "", fakeCert)
	a, b := httpChallenge("a.example.com", "same"), httpChallenge("b.example.com", "same")
	present(t, table, a)
	present(t, table, b)
	if err := table.CleanUp(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, ok := table.KeyAuthorization(t.Context(), "b.example.com", "same"); !ok {
		t.Error("the clean-up for one name took the other's challenge")
	}
}

func TestC2_AnotherInstanceAnswersAtOnce(t *testing.T) {
	store := &fakeStore{}
	a, b := New(store, "challenges", fakeCert), New(store, "challenges", fakeCert)
	ha, la := httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok2")
	present(t, a, ha)
	present(t, a, la)
	if got, ok := b.KeyAuthorization(t.Context(), "a.example.com", "tok1"); !ok || got != ha.KeyAuthorization {
		t.Errorf("key authorization %q %v", got, ok)
	}
	cert, err := b.Certificate(t.Context(), "a.example.com")
	if err != nil || keyAuthOf(t, cert) != la.KeyAuthorization {
		t.Errorf("certificate: %v", err)
	}
	if b.Pending() != 0 {
		t.Error("another instance's challenges count as this one's")
	}
	for _, row := range [][2]string{{"b.example.com", "tok1"}, {"a.example.com", "tok3"}, {"example.com", "tok1"}} {
		if _, ok := b.KeyAuthorization(t.Context(), row[0], row[1]); ok {
			t.Errorf("answered %v", row)
		}
	}
	for _, ch := range []Challenge{ha, la} {
		if err := a.CleanUp(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	if len(store.values) != 0 {
		t.Errorf("left in the store: %v", store.values)
	}
	if _, ok := b.KeyAuthorization(t.Context(), "a.example.com", "tok1"); ok {
		t.Error("answered after the clean-up")
	}
	if _, err := b.Certificate(t.Context(), "a.example.com"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("certificate after the clean-up: %v", err)
	}
}

func TestC2_StoreIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{late: 500 * time.Millisecond}
		a, b := New(store, "challenges", fakeCert), New(store, "challenges", fakeCert)
		b.Patience = time.Second
		present(t, a, httpChallenge("a.example.com", "tok1"))
		present(t, a, alpnChallenge("a.example.com", "tok2"))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, ok := b.KeyAuthorization(t.Context(), "a.example.com", "tok1"); !ok {
				t.Error("http-01 was not answered")
			}
		})
		wg.Go(func() {
			if _, err := b.Certificate(t.Context(), "a.example.com"); err != nil {
				t.Errorf("tls-alpn-01 was not answered: %v", err)
			}
		})
		wg.Wait()
	})
}

// Patience has a bound in time and in number, and ends with the request.
func TestC2_PatienceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		table := New(store, "challenges", fakeCert)
		ask := func(ctx context.Context) time.Duration {
			start := time.Now()
			if _, ok := table.KeyAuthorization(ctx, "a.example.com", "foreign"); ok {
				t.Error("answered a foreign token")
			}
			return time.Since(start)
		}
		if took := ask(t.Context()); took != 0 || store.loads != 1 {
			t.Errorf("without patience: %v, %d loads", took, store.loads)
		}
		table.Patience = time.Second
		if took := ask(t.Context()); took != time.Second || store.loads > 10 {
			t.Errorf("with patience: %v, %d loads", took, store.loads)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if took := ask(ctx); took != 200*time.Millisecond {
			t.Errorf("with an ended request: %v", took)
		}
		var wg sync.WaitGroup
		for range maxWaiting {
			wg.Go(func() { ask(t.Context()) })
		}
		synctest.Wait()
		if took := ask(t.Context()); took != 0 {
			t.Errorf("with all slots taken: %v", took)
		}
		wg.Wait()
	})
}

func TestTable_StoreFails(t *testing.T) {
	store := &fakeStore{}
	a, b := New(store, "challenges", fakeCert), New(store, "challenges", fakeCert)
	down := errors.New("store is down")
	store.fail(down)
	for _, ch := range []Challenge{httpChallenge("a.example.com", "tok1"), alpnChallenge("a.example.com", "tok2")} {
		err := a.Present(t.Context(), ch)
		if !errors.Is(err, down) || strings.Contains(err.Error(), ch.KeyAuthorization) {
			t.Errorf("Present: %v", err)
		}
	}
	// The instance that presented answers all the same.
	if _, ok := a.KeyAuthorization(t.Context(), "a.example.com", "tok1"); !ok {
		t.Error("http-01 was not answered from memory")
	}
	if _, err := a.Certificate(t.Context(), "a.example.com"); err != nil {
		t.Errorf("tls-alpn-01 was not answered from memory: %v", err)
	}
	if _, ok := b.KeyAuthorization(t.Context(), "a.example.com", "tok1"); ok {
		t.Error("answered without a store")
	}
	if _, err := b.Certificate(t.Context(), "a.example.com"); !errors.Is(err, down) {
		t.Errorf("certificate: %v", err)
	}
	// What cannot be deleted is forgotten here, and reported.
	if err := a.CleanUp(t.Context(), httpChallenge("a.example.com", "tok1")); !errors.Is(err, down) {
		t.Errorf("CleanUp: %v", err)
	}
	if a.Pending() != 1 {
		t.Errorf("%d pending", a.Pending())
	}
}

func TestTable_StoreHoldsJunk(t *testing.T) {
	good := alpnChallenge("a.example.com", "good")
	marshal := func(change func(*Challenge)) string {
		ch := good
		change(&ch)
		b, err := json.Marshal(ch)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, junk := range map[string]string{
		"empty": "", "cut": `{"type":"tls-`, "null": "null", "list": "[]", "types": `{"type":1}`,
		"another name": marshal(func(c *Challenge) { c.Identifier = "b.example.com" }),
		"another type": marshal(func(c *Challenge) { c.Type = "dns-01" }),
		"no token":     marshal(func(c *Challenge) { c.Token = "" }),
	} {
		store := &fakeStore{}
		a, b := New(store, "challenges", fakeCert), New(store, "challenges", fakeCert)
		for _, key := range []string{"challenges/tls-alpn-01/a.example.com/junk", "challenges/http-01/a.example.com/junk"} {
			if err := store.Store(t.Context(), key, []byte(junk)); err != nil {
				t.Fatal(err)
			}
		}
		if got, ok := b.KeyAuthorization(t.Context(), "a.example.com", "junk"); ok {
			t.Errorf("%s: answered %q", name, got)
		}
		if _, err := b.Certificate(t.Context(), "a.example.com"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: certificate: %v", name, err)
		}
		present(t, a, good)
		if cert, err := b.Certificate(t.Context(), "a.example.com"); err != nil || keyAuthOf(t, cert) != good.KeyAuthorization {
			t.Errorf("%s: junk hides the challenge: %v", name, err)
		}
	}
}

func TestT4_NewestKeyAuthorizationWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		a, b := New(store, "challenges", fakeCert), New(store, "challenges", fakeCert)
		want := func(token string) {
			t.Helper()
			for name, table := range map[string]*Table{"presenter": a, "another": b} {
				cert, err := table.Certificate(t.Context(), "a.example.com")
				if err != nil || keyAuthOf(t, cert) != token+".thumb" {
					t.Errorf("%s: want %s: %v", name, token, err)
				}
			}
		}
		for i := range 5 {
			token := fmt.Sprintf("tok%d", 9-i)
			present(t, a, alpnChallenge("a.example.com", token))
			want(token)
			time.Sleep(time.Second)
		}
		if err := a.CleanUp(t.Context(), alpnChallenge("a.example.com", "tok5")); err != nil {
			t.Fatal(err)
		}
		want("tok6")
		time.Sleep(time.Second)
		present(t, a, alpnChallenge("a.example.com", "tok9")) // again
		want("tok9")
	})
}

func TestTable_Parallel(t *testing.T) {
	store := &fakeStore{}
	table := New(store, "challenges", fakeCert)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for _, ch := range []Challenge{httpChallenge("a.example.com", fmt.Sprint("h", i)), alpnChallenge("a.example.com", fmt.Sprint("t", i))} {
				if err := table.Present(t.Context(), ch); err != nil {
					t.Error(err)
				}
				if _, err := table.Certificate(t.Context(), "a.example.com"); err != nil && ch.Type == TLSALPN01 {
					t.Error(err)
				}
				if _, ok := table.KeyAuthorization(t.Context(), "a.example.com", ch.Token); ok != (ch.Type == HTTP01) {
					t.Errorf("%s %s: answered %v", ch.Type, ch.Token, ok)
				}
				if err := table.CleanUp(t.Context(), ch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if table.Pending() != 0 || len(store.values) != 0 {
		t.Errorf("%d pending, %d stored", table.Pending(), len(store.values))
	}
}

func FuzzValidToken(f *testing.F) {
	for _, s := range []string{"", "abc-_09", "a/b", "..", "a b", "ä", "%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !ValidToken(s) {
			return
		}
		if s == "" || len(s) > 256 || strings.ContainsAny(s, "./\\%<>\"'& \x00\r\n?#") {
			t.Errorf("ValidToken(%q)", s)
		}
	})
}
