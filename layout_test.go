package certwright_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/tools/txtar"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// layoutIssuer is the one that the records of the layout are from.
type layoutIssuer struct{ *fakeSigner }

func (layoutIssuer) ID() string { return "ca.example-directory" }

func (layoutIssuer) CA() string { return "https://ca.example/directory" }

// TestStoredLayoutIsGoneOnWith starts on what package records says is the layout,
// with one of a later version beside it: no order for what is there, and nothing
// is changed that need not be.
func TestStoredLayoutIsGoneOnWith(t *testing.T) {
	tree, err := txtar.ParseFile("internal/records/testdata/layout.txtar")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f, mem := newFakeSigner(t), storage.NewMemory()
		time.Sleep(time.Until(time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC))) // the certificates are a day old
		before := map[string][]byte{"v2/certs/a.example": []byte("nobody knows yet"), "v2/index": []byte("nor this")}
		for _, file := range tree.Files {
			before[file.Name] = file.Data
		}
		storeAll(t, mem, before)
		m := offline(t, f, func(c *Config) { c.Storage, c.Issuers, c.CleanInterval = mem, []Issuer{layoutIssuer{f}}, -1 })
		err := m.Manage(t.Context(),
			Spec{Names: []string{"a.example"}},
			Spec{Names: []string{"*.a.example"}, KeyTypes: []KeyType{P384}},
			Spec{Names: []string{"a.example", "b.example"}},
			Spec{Names: []string{"rsa.example"}, KeyTypes: []KeyType{RSA2048}},
		)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(day)
		closeManager(t, m)
		if n := f.count(); n != 0 {
			t.Errorf("%d orders were made", n)
		}
		for key, value := range before {
			if got := mustLoad(t, mem, key); string(got) != string(value) {
				t.Errorf("%s has changed to\n%s", key, got)
			}
		}
		if keys := keysOf(t, mem); len(keys) != len(before) {
			t.Errorf("%q are stored, want no more than %d", keys, len(before))
		}
	})
}

// TestNewWithStorageDown has the storage be down for a while when New looks.
func TestNewWithStorageDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		f := newFaulty(storage.NewMemory())
		f.set(func(call) fault { return fault{err: errors.New("connection refused")} })
		conf.Storage = f
		m := start(t, conf)
		f.set(nil)
		manage(t, m, "a.test")
	})
}
