package certwright_test

import (
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// TestRenewOnOneInstanceIsServedByTheOthersWithinAMinute replaces a certificate
// whose key is compromised on one of three instances: the others serve the new
// one within a minute, without an order. (F52)
func TestRenewOnOneInstanceIsServedByTheOthersWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		var events [3]eventLog
		var all []*Manager
		specs := []Spec{{Names: []string{"a.example.com"}}, {Names: []string{"b.example.com", "c.example.com"}}, {Names: []string{"d.example.com"}}}
		for i := range events {
			conf.OnEvent = events[i].add
			m := start(t, conf)
			if err := m.Manage(t.Context(), specs...); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		time.Sleep(10 * day)
		other := mustLeaf(t, all[1], "d.example.com")
		for round, name := range []string{"a.example.com", "b.example.com", "a.example.com"} {
			by := all[round]
			old := mustLeaf(t, by, name)
			if err := by.Renew(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			leaf := mustLeaf(t, by, name)
			if leaf.Equal(old) {
				t.Fatal("Renew has changed nothing")
			}
			time.Sleep(time.Minute)
			for i, m := range all {
				if !mustLeaf(t, m, name).Equal(leaf) {
					t.Errorf("round %d: after a minute instance %d serves another certificate for %s", round, i, name)
				}
			}
		}
		if n := len(ca.Orders()); n != 6 {
			t.Errorf("%d orders, want 6", n)
		}
		for i := range events {
			if n := events[i].count(EventAdopted); n != 2 { // of three renewals, one was its own
				t.Errorf("instance %d told of %d certificates of others, want 2: %v", i, n, events[i].kinds(""))
			}
		}
		if !mustLeaf(t, all[1], "d.example.com").Equal(other) {
			t.Error("a certificate that nobody renewed has changed")
		}
	})
}

// TestCostOfLookingForChangesIsThatOfTheInstances counts what two instances with
// many names ask of their storage in an hour in which nothing happens. (F52)
func TestCostOfLookingForChangesIsThatOfTheInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		s := &countingStorage{Memory: storage.NewMemory()}
		on := func(c *Config) { c.Storage, c.CleanInterval = s, -1 }
		names := numbered(500, "example.com")
		for range 2 {
			manage(t, offline(t, f, on), names...)
		}
		time.Sleep(10 * time.Minute) // the first reads all, since there were more changes than a record holds
		s.take()
		time.Sleep(time.Hour)
		calls := s.take()
		// Every half a minute one list, and one load of the one that has told.
		if calls["list v1/changes"] > 242 || calls["load v1/changes"] > 242 || len(calls) > 2 {
			t.Errorf("in an hour: %v", calls)
		}
	})
}

// TestMoreChangesThanARecordHoldsReachTheOthers renews more certificates on one
// instance than its record of changes has room for: the other reads all anew,
// within minutes. (F52)
func TestMoreChangesThanARecordHoldsReachTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storage.NewMemory()
		on := func(c *Config) { c.Storage, c.CleanInterval = mem, -1 }
		names := numbered(300, "example.com")
		a, b := offline(t, f, on), offline(t, f, on)
		manage(t, a, names...)
		manage(t, b, names...)
		time.Sleep(time.Minute)
		done := make(chan error)
		for _, name := range names {
			go func() { done <- a.Renew(t.Context(), name) }()
		}
		for range names {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(7 * time.Minute)
		for _, name := range names {
			if !mustLeaf(t, b, name).Equal(mustLeaf(t, a, name)) {
				t.Fatalf("the other serves another certificate for %s", name)
			}
		}
		if n := f.count(); n != 2*len(names) {
			t.Errorf("%d orders, want %d", n, 2*len(names))
		}
	})
}

// TestOlderCertificateThatComesBackIsReplaced has a holder that lost its lease
// store an older certificate over a newer one: who has the newer one stores it
// once more. (F51)
func TestOlderCertificateThatComesBackIsReplaced(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		m, other := start(t, conf), start(t, conf)
		manage(t, m, name)
		old := mustLoad(t, conf.Storage, certKey(name))
		time.Sleep(day)
		if err := m.Renew(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		leaf := mustLeaf(t, m, name)
		mustStore(t, conf.Storage, certKey(name), old)
		changes := recordsOn(conf.Storage).NewChanges("the one that was stopped")
		manage(t, other, name)
		time.Sleep(time.Minute)
		changes.Note(storedFor(t, conf.Storage, name).ID())
		if err := changes.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		stored, err := storedFor(t, conf.Storage, name).Leaf()
		if err != nil || !stored.Equal(leaf) {
			t.Errorf("the older certificate is stored still: %v", err)
		}
		for i, m := range []*Manager{m, other} {
			if !mustLeaf(t, m, name).Equal(leaf) {
				t.Errorf("instance %d serves the older certificate", i)
			}
		}
	})
}
