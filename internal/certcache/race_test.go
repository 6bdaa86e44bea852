package certcache_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/certwright/certwright/internal/certcache"
)

// during runs look in two goroutines while change runs, rounds times, or an
// eighth of that with -short.
func during(rounds int, look func() bool, change func(i int)) {
	if testing.Short() {
		rounds /= 8
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !stop.Load() && look() {
			}
		})
	}
	for i := range rounds {
		change(i)
	}
	stop.Store(true)
	readers.Wait()
}

func TestFindNeverMissesDuringChanges(t *testing.T) {
	for _, maxHot := range []int{0, 1} {
		c, stay := certcache.New(maxHot), entry("stay", "stay.example", "*.wild.example", "192.0.2.1")
		install(c, stay)
		addr := netip.MustParseAddr("192.0.2.1")
		look := func() bool {
			if lookup(c, "stay.example") == nil || lookup(c, "a.wild.example") == nil ||
				c.FindIP(addr, nil).Cert == nil || soleIP(c, nil) == nil || !known(c, "a.wild.example") {
				t.Error("a certificate that is there was not found")
				return false
			}
			return true
		}
		change := func(w, i int) {
			other := entry("other", fmt.Sprintf("%d-%d.example", w, i%20), "a.wild.example", "*.wild.example", "stay.example")
			c.Serve(&stay.Entry, serving(parsed{new(tls.Certificate)}))
			install(c, other)
			lookup(c, "stay.example")
			c.Remove(&other.Entry)
			sole(c, nil)
			c.Entries("stay.example")
			for range c.All() {
			}
		}
		var second sync.WaitGroup
		second.Go(func() {
			for i := range 300 {
				change(1, i)
			}
		})
		during(300, look, func(i int) { change(0, i) })
		second.Wait()
		if c.Len() != 1 || lookup(c, "stay.example") == stay.cert {
			t.Errorf("Len = %d, or the first certificate is still there", c.Len())
		}
	}
}

// TestFindNeverMissesWhatMoves has a name covered by one entry after another, so
// that a look-up can find each of its places empty in turn.
func TestFindNeverMissesWhatMoves(t *testing.T) {
	for _, tt := range []struct {
		name string
		to   [2][]string
	}{
		{"from the name to its wildcard", [2][]string{{"a.example"}, {"*.example"}}},
		{"from one entry to another", [2][]string{{"a.example"}, {"a.example"}}},
		{"with other names", [2][]string{{"b.example", "a.example"}, {"a.example", "*.a.example", "c.example"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, at := certcache.New(0), entry("", tt.to[1]...)
			install(c, at)
			look := func() bool {
				if lookup(c, "a.example") == nil || !known(c, "a.example") {
					t.Error("a name that is always covered was not found")
					return false
				}
				return true
			}
			during(3000, look, func(i int) {
				next := entry("", tt.to[i%2]...)
				install(c, next)
				c.Remove(&at.Entry)
				at = next
			})
		})
	}
}

// TestKnownNeverMissesWhatMoves does the same with entries that are pending.
func TestKnownNeverMissesWhatMoves(t *testing.T) {
	c, at := certcache.New(0), &certcache.Entry{Names: []string{"a.example"}}
	c.Add(at)
	look := func() bool {
		if !known(c, "a.example") {
			t.Error("a name that always has an entry is not known")
			return false
		}
		return true
	}
	to := []string{"*.example", "a.example"}
	during(15_000, look, func(i int) {
		next := &certcache.Entry{Names: to[i%2 : i%2+1]}
		c.Add(next)
		c.Remove(at)
		at = next
	})
}

// TestFindNeverMissesWhoServes leaves the entries where they are and moves what
// is served.
func TestFindNeverMissesWhoServes(t *testing.T) {
	c := certcache.New(0)
	all := []*held{entry("exact", "a.example"), entry("wild", "*.example"), entry("too", "*.example")}
	install(c, all...)
	c.Serve(&all[1].Entry, nil)
	c.Serve(&all[2].Entry, nil)
	look := func() bool {
		if lookup(c, "a.example") == nil {
			t.Error("a name that is always covered was not found")
			return false
		}
		return true
	}
	during(20_000, look, func(i int) {
		c.Serve(&all[(i+1)%3].Entry, all[(i+1)%3].served())
		c.Serve(&all[i%3].Entry, nil)
	})
}

// TestSoleNeverMissesWhoServes replaces the only certificate by another for the
// same names.
func TestSoleNeverMissesWhoServes(t *testing.T) {
	c := certcache.New(0)
	all := []*held{entry("a", "a.example", "192.0.2.1"), entry("b", "192.0.2.1", "a.example")}
	install(c, all[0])
	c.Add(&all[1].Entry)
	look := func() bool {
		if sole(c, nil) == nil || soleIP(c, nil) == nil {
			t.Error("the only certificate was not found")
			return false
		}
		return true
	}
	during(10_000, look, func(i int) {
		c.Serve(&all[(i+1)%2].Entry, all[(i+1)%2].served())
		c.Serve(&all[i%2].Entry, nil)
	})
}

// TestNothingOldStaysParsed numbers what an entry serves. No look-up may get less
// than was served before it began, whatever is parsed and forgotten meanwhile.
func TestNothingOldStaysParsed(t *testing.T) {
	const n = 4
	c := certcache.New(2)
	var entries [n]*certcache.Entry
	var least [n]atomic.Int64
	serve := func(i int, number int64) {
		cert := &tls.Certificate{Leaf: &x509.Certificate{SerialNumber: big.NewInt(number)}}
		c.Serve(entries[i], serving(parsed{cert}))
		least[i].Store(number)
	}
	for i := range entries {
		entries[i] = &certcache.Entry{Names: []string{fmt.Sprintf("host-%d.example", i), fmt.Sprintf("*.host-%d.example", i)}}
		c.Add(entries[i])
		serve(i, 0)
	}
	look := func() bool {
		i := rand.IntN(n)
		name := entries[i].Names[0]
		if rand.IntN(2) == 0 {
			name = "www." + name
		}
		want := least[i].Load()
		cert := lookup(c, name)
		if cert == nil || cert.Leaf.SerialNumber.Int64() < want {
			t.Errorf("%s: got %v; want at least %d", name, cert, want)
			return false
		}
		if hot := c.Hot(); hot > 2 {
			t.Errorf("%d are hot", hot)
			return false
		}
		return true
	}
	during(20_000, look, func(number int) { serve(rand.IntN(n), int64(number+1)) })
	for i, e := range entries {
		if cert := lookup(c, e.Names[0]); cert.Leaf.SerialNumber.Int64() != least[i].Load() {
			t.Errorf("%s: %v is served in the end; want %d", e.Names[0], cert.Leaf.SerialNumber, least[i].Load())
		}
	}
	c.Remove(entries[:]...)
	checkEmpty(t, c)
}
