package certwright

import (
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/storage"
)

// These tests are the gate that keeps certwright as cheap as it is. They count
// and measure no time; see benchmarks for that.

// TestCost_HandshakeAllocatesNothing is about certificates that are hot, and
// about names that there is nothing for.
func TestCost_HandshakeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := offline(t, newFakeSigner(t))
	names := append(numbered(100, "example.com"), "*.wild.example.com", "203.0.113.1", "two.example.com")
	if err := m.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	if err := m.Manage(t.Context(), Spec{Names: []string{"two.example.com"}, KeyTypes: []KeyType{RSA2048}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		hello *tls.ClientHelloInfo
		found bool
	}{
		{"its own name", helloFor("n50.example.com", ""), true},
		{"a wildcard", helloFor("a.wild.example.com", ""), true},
		{"upper case", helloFor("N50.Example.COM", ""), true},
		{"upper case below a wildcard", helloFor("A.Wild.example.com", ""), true},
		{"a trailing dot", helloFor("n50.example.com.", ""), true},
		{"two key types", helloFor("two.example.com", ""), true},
		{"an address", helloFor("", "203.0.113.1"), true},
		{"an unknown name", helloFor("unknown.example.org", ""), false},
		{"no name at all", helloFor("not a name", ""), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(100, func() {
				cert, err := m.GetCertificate(tt.hello)
				if (cert != nil) != tt.found || (err == nil) != tt.found {
					t.Fatalf("certificate %v, error %v", cert != nil, err)
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

// TestUnknownNameError has the error of a handshake say which name and why
// although it costs nothing.
func TestUnknownNameError(t *testing.T) {
	f := newFakeSigner(t)
	f.err = errors.New("not today")
	m := offline(t, f)
	_ = m.ManageSync(t.Context(), []string{"pending.example.com", "*.pending.example.com"})
	for _, tt := range []struct {
		sni, want  string
		notManaged bool
	}{
		{"other.example.com", `no certificate for "other.example.com": certwright: name is not managed`, true},
		{"pending.example.com", `no certificate for "pending.example.com" yet; see Status`, false},
		{"a.pending.example.com", `no certificate for "a.pending.example.com" yet; see Status`, false},
		{"not a name", `no certificate: the server name is not a DNS name`, false},
	} {
		_, err := m.GetCertificate(helloFor(tt.sni, ""))
		if !errors.Is(err, ErrNoCertificate) || errors.Is(err, ErrNotManaged) != tt.notManaged {
			t.Errorf("%s: %v", tt.sni, err)
		}
		if err == nil || !strings.HasSuffix(err.Error(), strings.TrimPrefix(tt.want, "no certificate")) {
			t.Errorf("%s: %v; want %s", tt.sni, err, tt.want)
		}
	}
}

// bytesIdle is how much memory a certificate that is not in use may cost, in
// bytes: the leaf is kept as its difference to another of the same CA. With as few
// certificates as here, the shards of the cache are a good part of it.
const bytesIdle = 740

// TestCost_BytesACertificate measures what a managed certificate costs that no
// handshake has asked for.
func TestCost_BytesACertificate(t *testing.T) {
	const n = 2000
	f := newFakeSigner(t)
	f.addIntermediate(t)
	mem := storage.NewMemory()
	names := numbered(n, "customers.example.com")
	inStorage := func(c *Config) { c.Storage = mem }
	first := offline(t, f, inStorage)
	if err := first.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	leaf := len(mustLeaf(t, first, names[0]).Raw)
	closeManager(t, first)
	f.set(func() { f.byName = nil })
	first = nil

	before := heapInUse()
	m := offline(t, f, inStorage)
	if err := m.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	each := (heapInUse() - before) / n
	t.Logf("%d bytes a certificate, whose leaf has %d", each, leaf)
	if each > bytesIdle {
		t.Errorf("%d bytes a certificate; want at most %d", each, bytesIdle)
	}
	if f.count() != n {
		t.Errorf("%d certificates were issued; want %d", f.count(), n)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(names)
}

func heapInUse() int64 {
	var s runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// TestCost_HotCertificatesAreBounded asks for more names than are kept parsed.
func TestCost_HotCertificatesAreBounded(t *testing.T) {
	for _, tt := range []struct{ option, want int }{{10, 10}, {-1, 50}, {0, 50}} {
		m := offline(t, newFakeSigner(t), func(c *Config) { c.HotCertificates = tt.option })
		names := numbered(50, "example.com")
		if err := m.ManageSync(t.Context(), names); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, name := range names {
				if leaf := mustLeaf(t, m, name); leaf.DNSNames[0] != name {
					t.Errorf("%s is served the certificate of %s", name, leaf.DNSNames[0])
				}
			}
		}
		if got := m.cache.Hot(); got != tt.want {
			t.Errorf("HotCertificates %d: %d are parsed; want %d", tt.option, got, tt.want)
		}
	}
}

// TestCost_StartReads has a start read each certificate once, and nothing else
// before all are served.
func TestCost_StartReads(t *testing.T) {
	f := newFakeSigner(t)
	store := newFaulty(storage.NewMemory())
	in := func(c *Config) { c.Storage = store }
	names := numbered(100, "example.com")
	first := offline(t, f, in)
	if err := first.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	closeManager(t, first)
	m := offline(t, f, in)
	store.set(nil)
	if err := m.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	calls := store.seen()
	for _, c := range calls {
		if c.op != "load" || !strings.HasPrefix(c.key, keyCerts+"/") {
			t.Errorf("%s %s", c.op, c.key)
		}
	}
	if len(calls) != len(names) {
		t.Errorf("%d calls of the storage for %d names", len(calls), len(names))
	}
}

// TestCost_NothingDueNothingDone lets an hour pass in which nothing is due.
func TestCost_NothingDueNothingDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty(storage.NewMemory())
		m := offline(t, newFakeSigner(t), func(c *Config) { c.Storage, c.CleanInterval = store, -1 })
		if err := m.ManageSync(t.Context(), numbered(100, "example.com")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		store.set(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if calls := store.seen(); len(calls) != 0 {
			t.Errorf("%d calls of the storage, the first %v", len(calls), calls[0])
		}
	})
}

// TestHandshakeBeforeItsTurn asks for the last name of a start whose workers
// have not come to it.
func TestHandshakeBeforeItsTurn(t *testing.T) {
	f := newFakeSigner(t)
	names := numbered(100, "example.com")
	last := names[len(names)-1]
	mem := storedBy(t, f, names...)
	load, open := blocked(last)
	m := offline(t, f, over(mem, load))
	if err := m.ManageAsync(names); err != nil {
		t.Fatal(err)
	}
	if leaf := mustLeaf(t, m, last); leaf.DNSNames[0] != last {
		t.Errorf("served is the certificate of %s", leaf.DNSNames[0])
	}
	if s := statusFor(t, m, last); s.NextAction != ActionLoad {
		t.Errorf("the next action is %q; want that the schedule has not come to it", s.NextAction)
	}
	close(open)
	for _, name := range names {
		if err := m.Wait(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		mustLeaf(t, m, name)
	}
	if n := f.count(); n != len(names) {
		t.Errorf("%d certificates were issued; want %d", n, len(names))
	}
}

// TestHandshakeBeforeItsTurnIsBounded has no handshake read storage for a name
// again that the schedule found nothing for, or for one that is not managed.
func TestHandshakeBeforeItsTurnIsBounded(t *testing.T) {
	f := newFakeSigner(t)
	f.err = errors.New("not today")
	store := newFaulty(storage.NewMemory())
	m := offline(t, f, func(c *Config) { c.Storage = store })
	_ = m.ManageSync(t.Context(), []string{"a.example.com", "*.example.com"})
	store.set(nil)
	for i := range 100 {
		for _, name := range []string{"a.example.com", fmt.Sprintf("b%d.example.com", i), fmt.Sprintf("c%d.example.org", i)} {
			if leafOf(m, name) != nil {
				t.Errorf("%s is served", name)
			}
		}
	}
	if calls := store.seen(); len(calls) != 0 {
		t.Errorf("%d calls of the storage, the first %v", len(calls), calls[0])
	}
}

// TestManageAsyncOfMany has the names of one call answered and managed although
// they are added in the background.
func TestManageAsyncOfMany(t *testing.T) {
	f := newFakeSigner(t)
	names := append(numbered(3*atOnce, "example.com"), "*.wild.example.com", "last.example.com")
	mem := storedBy(t, f, names[len(names)-2:]...)
	m := offline(t, f, func(c *Config) { c.Storage = mem })
	m.mu.Lock() // nothing is added meanwhile
	added := make(chan error, 1)
	go func() { added <- m.ManageAsync(names) }()
	asked := make(chan bool)
	go func() {
		for m.later.Load() == nil {
			runtime.Gosched()
		}
		asked <- leafOf(m, "last.example.com") != nil && leafOf(m, "a.wild.example.com") != nil && leafOf(m, "unknown.example.org") == nil
	}()
	m.mu.Unlock()
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	if !<-asked {
		t.Error("a name that was not added yet is not served from storage")
	}
	if n := len(m.Status()); n != len(names) {
		t.Errorf("Status has %d names; want %d", n, len(names))
	}
	if err := m.Unmanage(names...); err != nil {
		t.Error(err)
	}
	if n := len(m.Status()); n != 0 {
		t.Errorf("Status has %d names after Unmanage", n)
	}
	closeManager(t, m)
	if err := m.ManageAsync(names); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
