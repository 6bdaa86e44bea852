package certcache_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certcache"
)

// A counting Source makes a new certificate each time.
type counting struct {
	runs    *atomic.Int32
	started chan struct{} // nil, or closed by the first run
	wait    chan struct{} // nil, or what it waits for
}

func newCounting() counting {
	return counting{new(atomic.Int32), make(chan struct{}), make(chan struct{})}
}

func (s counting) Certificate() (*tls.Certificate, error) {
	if s.runs.Add(1) == 1 && s.started != nil {
		close(s.started)
	}
	if s.wait != nil {
		<-s.wait
	}
	return new(tls.Certificate), nil
}

func TestParsedOnceWhileHot(t *testing.T) {
	c, e, runs := certcache.New(0), &certcache.Entry{Names: []string{"a.example", "*.b.example"}}, new(atomic.Int32)
	c.Add(e)
	c.Serve(e, serving(counting{runs: runs}))
	if runs.Load() != 0 || c.Hot() != 0 {
		t.Errorf("Serve parses: %d runs, Hot = %d", runs.Load(), c.Hot())
	}
	cert := lookup(c, "a.example")
	for range 3 {
		if lookup(c, "a.example") != cert || lookup(c, "x.b.example") != cert {
			t.Error("two look-ups get two certificates")
		}
	}
	if runs.Load() != 1 || c.Hot() != 1 {
		t.Errorf("%d runs, Hot = %d; want one of each", runs.Load(), c.Hot())
	}
	c.Serve(e, serving(counting{runs: runs}))
	if c.Hot() != 0 {
		t.Errorf("Hot = %d after Serve", c.Hot())
	}
	if again := lookup(c, "a.example"); again == cert || runs.Load() != 2 {
		t.Error("what was served before is still there")
	}
}

func TestManyAskForOnePackedCertificate(t *testing.T) {
	c, e, s := certcache.New(0), &certcache.Entry{Names: []string{"a.example"}}, newCounting()
	c.Add(e)
	c.Serve(e, serving(s))
	var all sync.WaitGroup
	certs := make([]*tls.Certificate, 1000)
	for i := range certs {
		all.Go(func() { certs[i] = lookup(c, "a.example") })
	}
	<-s.started
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

func TestReplacedWhileItIsParsed(t *testing.T) {
	another := new(tls.Certificate)
	for what, tt := range map[string]struct {
		do   func(c *certcache.Cache, e *certcache.Entry)
		want *tls.Certificate
	}{
		"serve another": {func(c *certcache.Cache, e *certcache.Entry) { c.Serve(e, serving(parsed{another})) }, another},
		"serve nothing": {func(c *certcache.Cache, e *certcache.Entry) { c.Serve(e, nil) }, nil},
		"remove":        {func(c *certcache.Cache, e *certcache.Entry) { c.Remove(e) }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			c, e, s := certcache.New(0), &certcache.Entry{Names: []string{"a.example"}}, newCounting()
			c.Add(e)
			c.Serve(e, serving(s))
			var old sync.WaitGroup
			old.Go(func() { lookup(c, "a.example") })
			<-s.started
			tt.do(c, e)
			if tt.want == nil && lookup(c, "a.example") != nil { // else it would wait for the parsing
				t.Error("what is not served any more is found while it is parsed")
			}
			close(s.wait)
			old.Wait()
			if got := lookup(c, "a.example"); got != tt.want {
				t.Errorf("Find = %p; want %p", got, tt.want)
			}
			if hot := c.Hot(); (hot == 1) != (tt.want != nil) || hot > 1 {
				t.Errorf("Hot = %d", hot)
			}
		})
	}
}

func TestBoundOfParsedCertificates(t *testing.T) {
	const maxHot, n = 10, 50
	c := certcache.New(maxHot)
	var entries []*certcache.Entry
	for i := range n {
		e := &certcache.Entry{Names: []string{fmt.Sprintf("host-%d.example", i)}}
		c.Add(e)
		c.Serve(e, serving(parsed{new(tls.Certificate)}))
		entries = append(entries, e)
	}
	for i := range 5 * n {
		if lookup(c, entries[i*7%n].Names[0]) == nil {
			t.Fatal("not found")
		}
		if want := min(i+1, maxHot); c.Hot() != want {
			t.Fatalf("Hot = %d after %d look-ups; want %d", c.Hot(), i+1, want)
		}
	}
	c.Remove(entries...)
	checkEmpty(t, c)
}

func TestWhatIsUsedStaysParsed(t *testing.T) {
	c, runs := certcache.New(10), new(atomic.Int32)
	inUse := &certcache.Entry{Names: []string{"used.example"}}
	c.Add(inUse)
	c.Serve(inUse, serving(counting{runs: runs}))
	for i := range 500 {
		lookup(c, "used.example")
		lookup(c, "used.example")
		e := entry("", fmt.Sprintf("host-%d.example", i))
		install(c, e)
		lookup(c, e.Names[0])
	}
	if got := runs.Load(); got != 1 {
		t.Errorf("the one in use was parsed %d times", got)
	}
}

var errBroken = errors.New("broken")

// failing is a Source that fails, with errBroken or, when that is nil, with
// nothing.
type failing struct{ err error }

func (s failing) Certificate() (*tls.Certificate, error) { return nil, s.err }

func TestWhatCannotBeParsedIsPassedOver(t *testing.T) {
	c, bad, worse := certcache.New(0), entry("bad", "a.example"), entry("worse", "a.example").ranked(1)
	good := entry("good", "*.example").during(-2*time.Hour, -time.Hour)
	alone := entry("alone", "b.example")
	bad.source, worse.source, alone.source = failing{errBroken}, failing{}, failing{errBroken}
	var told []string
	c.OnError = func(e *certcache.Entry, _ certcache.Source, err error) {
		c.Len() // no lock is held
		c.Hot()
		told = append(told, fmt.Sprintf("%s %v %v", e.Names[0], e == &bad.Entry, errors.Is(err, errBroken)))
	}
	install(c, bad, worse, good, alone)
	for range 3 {
		for _, name := range []string{"a.example", "b.example"} {
			if got := idOf(lookup(c, name), []*held{good}); got != "good" {
				t.Errorf("Find(%q) = %q; want good", name, got)
			}
		}
	}
	if got := strings.Join(told, ", "); got != "a.example true true, a.example false false, b.example false true" {
		t.Errorf("told %s, each of which once is wanted", got)
	}
	if c.Hot() != 1 {
		t.Errorf("Hot = %d", c.Hot())
	}
	c.Serve(&worse.Entry, serving(parsed{worse.cert}))
	if lookup(c, "a.example") != worse.cert {
		t.Error("the one that can be parsed is not served")
	}
}

// panicking is a Source that panics.
type panicking struct{}

func (panicking) Certificate() (*tls.Certificate, error) { panic("cannot") }

func TestSourcePanics(t *testing.T) {
	c, h := certcache.New(0), entry("one", "a.example")
	c.Add(&h.Entry)
	c.Serve(&h.Entry, serving(panicking{}))
	for range 2 { // the second does not wait for the first
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			lookup(c, "a.example")
		}()
	}
	c.Serve(&h.Entry, h.served())
	if lookup(c, "a.example") != h.cert {
		t.Error("not found after a panic")
	}
}
