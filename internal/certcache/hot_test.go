package certcache

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A counting Source makes a new certificate each time.
type counting struct {
	runs *atomic.Int32
	wait chan struct{} // nil, or what it waits for
}

func (s counting) Certificate() (*tls.Certificate, error) {
	s.runs.Add(1)
	if s.wait != nil {
		<-s.wait
	}
	return new(tls.Certificate), nil
}

// served is what is valid now.
func served(s Source) Served {
	return Served{Source: s, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
}

func TestParsedOnceWhileHot(t *testing.T) {
	c, e, runs := New(0), &Entry{Names: []string{"a.example", "*.b.example"}}, new(atomic.Int32)
	c.Add(e)
	c.Serve(now, e, served(counting{runs: runs}))
	if runs.Load() != 0 || c.Hot() != 0 {
		t.Errorf("Serve parses: %d runs, Hot = %d", runs.Load(), c.Hot())
	}
	cert := c.Lookup("a.example", nil)
	for range 3 {
		if c.Lookup("a.example", nil) != cert || c.Lookup("x.b.example", nil) != cert {
			t.Error("two look-ups get two certificates")
		}
	}
	c.Refresh(now.Add(2*time.Hour), e)
	if c.Lookup("a.example", nil) != cert || runs.Load() != 1 || c.Hot() != 1 {
		t.Errorf("%d runs, Hot = %d; want one of each", runs.Load(), c.Hot())
	}
	c.Serve(now, e, served(counting{runs: runs}))
	if c.Hot() != 0 {
		t.Errorf("Hot = %d after Serve", c.Hot())
	}
	if again := c.Lookup("a.example", nil); again == cert || runs.Load() != 2 {
		t.Error("what was served before is still there")
	}
}

func TestManyAskForOneColdEntry(t *testing.T) { synctest.Test(t, testManyAskForOneColdEntry) }

func testManyAskForOneColdEntry(t *testing.T) {
	c, e := New(0), &Entry{Names: []string{"a.example"}}
	s := counting{runs: new(atomic.Int32), wait: make(chan struct{})}
	c.Add(e)
	c.Serve(now, e, served(s))
	var all sync.WaitGroup
	certs := make([]*tls.Certificate, 1000)
	for i := range certs {
		all.Go(func() { certs[i] = c.Lookup("a.example", nil) })
	}
	synctest.Wait() // until all of them wait
	close(s.wait)
	all.Wait()
	for _, cert := range certs {
		if cert == nil || cert != certs[0] {
			t.Fatal("not all get the same certificate")
		}
	}
	if got := s.runs.Load(); got != 1 {
		t.Errorf("parsed %d times", got)
	}
}

func TestServeDuringThaw(t *testing.T) {
	another := new(tls.Certificate)
	for what, do := range map[string]func(c *Cache, e *Entry) *tls.Certificate{
		"serve another": func(c *Cache, e *Entry) *tls.Certificate {
			c.Serve(now, e, served(fakeSource{another}))
			return another
		},
		"serve nothing": func(c *Cache, e *Entry) *tls.Certificate {
			c.Serve(now, e, Served{})
			return nil
		},
		"remove": func(c *Cache, e *Entry) *tls.Certificate {
			c.Remove(now, e)
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testDuringThaw(t, do) })
		})
	}
}

func testDuringThaw(t *testing.T, do func(c *Cache, e *Entry) *tls.Certificate) {
	c, e := New(0), &Entry{Names: []string{"a.example"}}
	s := counting{runs: new(atomic.Int32), wait: make(chan struct{})}
	c.Add(e)
	c.Serve(now, e, served(s))
	var old sync.WaitGroup
	old.Go(func() { c.Lookup("a.example", nil) })
	synctest.Wait()
	want := do(c, e)
	check := func(step string) {
		t.Helper()
		if got := c.Lookup("a.example", nil); got != want {
			t.Errorf("%s: Lookup = %p; want %p", step, got, want)
		}
	}
	check("while what was served before is parsed")
	close(s.wait)
	old.Wait()
	check("after that")
	if hot := c.Hot(); hot > 1 || (hot == 1) != (want != nil) || e.front.Load().hot.Load() != want {
		t.Errorf("Hot = %d, and what is hot is what was served before: %v", hot, e.front.Load().hot.Load() != want)
	}
}

// checkRing checks that what is hot is in the ring, and nothing else.
func checkRing(t *testing.T, c *Cache, entries []*Entry) {
	t.Helper()
	c.hotMu.Lock()
	defer c.hotMu.Unlock()
	hot := 0
	for _, e := range entries {
		if (e.front.Load().hot.Load() != nil) != (e.ring != 0) || e.ring != 0 && c.ring[e.ring-1] != e {
			t.Fatalf("%s: its place in the ring is %d", e.Names[0], e.ring)
		}
		if e.ring != 0 {
			hot++
		}
	}
	if hot != len(c.ring) || c.maxHot > 0 && hot > c.maxHot || c.hand > 0 && c.hand >= hot {
		t.Fatalf("%d are hot, %d in the ring, the hand is at %d", hot, len(c.ring), c.hand)
	}
}

func TestBoundIsExact(t *testing.T) {
	const maxHot, n = 10, 50
	c := New(maxHot)
	var entries []*Entry
	for i := range n {
		e := &Entry{Names: []string{fmt.Sprintf("host-%d.example", i)}}
		c.Add(e)
		c.Serve(now, e, served(fakeSource{new(tls.Certificate)}))
		entries = append(entries, e)
	}
	for i := range 5 * n {
		e := entries[i*7%n]
		if c.Lookup(e.Names[0], nil) == nil {
			t.Fatal("not found")
		}
		if want := min(i+1, maxHot); c.Hot() != want {
			t.Fatalf("Hot = %d after %d look-ups; want %d", c.Hot(), i+1, want)
		}
		checkRing(t, c, entries)
	}
	for _, e := range entries {
		c.Remove(now, e)
		checkRing(t, c, entries)
	}
	checkEmpty(t, c)
}

func TestWhatIsUsedStaysHot(t *testing.T) {
	c, runs := New(10), new(atomic.Int32)
	inUse := &Entry{Names: []string{"used.example"}}
	c.Add(inUse)
	c.Serve(now, inUse, served(counting{runs: runs}))
	for i := range 500 {
		e := &Entry{Names: []string{fmt.Sprintf("host-%d.example", i)}}
		c.Add(e)
		c.Serve(now, e, served(fakeSource{new(tls.Certificate)}))
		c.Lookup(e.Names[0], nil)
		c.Lookup("used.example", nil)
	}
	if got := runs.Load(); got != 1 {
		t.Errorf("the one in use was parsed %d times", got)
	}
}

func TestSourceFails(t *testing.T) {
	c, bad, worse := New(0), entry("bad", "a.example"), entry("worse", "a.example").ranked(1)
	good := entry("good", "*.example").during(-2*time.Hour, -time.Hour)
	bad.served.Source, worse.served.Source = fakeSource{}, nothing{}
	var told []string
	c.OnError = func(e *Entry, _ Source, err error) {
		c.Refresh(now, e) // no lock is held
		told = append(told, fmt.Sprint(e == &bad.Entry, errors.Is(err, errBroken)))
	}
	install(c, bad, worse, good)
	if got := idOf(c.Lookup("a.example", nil), []*held{good}); got != "good" {
		t.Errorf("Lookup = %q; want good", got)
	}
	if got := idOf(c.Lookup("a.example", nil), []*held{good}); got != "good" {
		t.Errorf("Lookup again = %q; want good", got)
	}
	if got := fmt.Sprint(told); got != "[true true false false true true false false]" {
		t.Errorf("told %s", got)
	}
	if c.Hot() != 1 || len(c.thaws) != 0 {
		t.Errorf("Hot = %d, %d thaws", c.Hot(), len(c.thaws))
	}
	c.Serve(now, &worse.Entry, served(fakeSource{worse.cert}))
	if c.Lookup("a.example", nil) != worse.cert {
		t.Error("the one that can be parsed is not served")
	}
}

// nothing is a Source that gives neither a certificate nor an error.
type nothing struct{}

func (nothing) Certificate() (*tls.Certificate, error) { return nil, nil }

// panicking is a Source that panics.
type panicking struct{}

func (panicking) Certificate() (*tls.Certificate, error) { panic("cannot") }

func TestSourcePanics(t *testing.T) {
	c, h := New(0), entry("one", "a.example")
	c.Add(&h.Entry)
	c.Serve(now, &h.Entry, served(panicking{}))
	for range 2 { // the second does not wait for the first
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			c.Lookup("a.example", nil)
		}()
	}
	c.Serve(now, &h.Entry, h.served)
	if c.Lookup("a.example", nil) != h.cert {
		t.Error("not found after a panic")
	}
}
