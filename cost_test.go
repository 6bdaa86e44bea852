package certwright_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// These tests are the gate that keeps certwright as cheap as it is. They count
// and measure no time; see benchmarks for that.

// It is about certificates that are hot, and about names that there is nothing for.
// Which of two key types a handshake can be made with is for crypto/tls to say,
// which allocates twice.
func TestHandshakeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := offline(t, newFakeSigner(t), func(c *Config) { c.DefaultName = "n1.example.com" })
	fallback := offline(t, newFakeSigner(t), static(selfSigned(t, "else.example.com")), func(c *Config) { c.FallbackName = "else.example.com" })
	names := append(numbered(100, "example.com"), "*.wild.example.com", "203.0.113.1", "2001:db8::1", "two.example.com")
	if err := m.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	if err := m.Manage(t.Context(), Spec{Names: []string{"two.example.com"}, KeyTypes: []KeyType{RSA2048}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		m     *Manager
		hello *tls.ClientHelloInfo
		found bool
		most  float64
	}{
		{"two key types", m, helloFor("two.example.com", ""), true, 2},
		{"its own name", m, helloFor("n50.example.com", ""), true, 0},
		{"a wildcard", m, helloFor("a.wild.example.com", ""), true, 0},
		{"upper case", m, helloFor("N50.Example.COM", ""), true, 0},
		{"upper case below a wildcard", m, helloFor("A.Wild.example.com", ""), true, 0},
		{"a trailing dot", m, helloFor("n50.example.com.", ""), true, 0},
		{"an address", m, helloFor("", "203.0.113.1"), true, 0},
		{"an IPv6 address", m, helloFor("", "2001:db8::1"), true, 0},
		{"an address as a name", m, helloFor("203.0.113.1", "10.0.0.1"), true, 0},
		{"the default name", m, helloFor("", "10.0.0.1"), true, 0},
		{"the fallback name", fallback, helloFor("unknown.example.org", ""), true, 0},
		{"an unknown name", m, helloFor("unknown.example.org", ""), false, 0},
		{"no name at all", m, helloFor("not a name", ""), false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(100, func() {
				cert, err := tt.m.GetCertificate(tt.hello)
				if (cert != nil) != tt.found || (err == nil) != tt.found {
					t.Fatalf("certificate %v, error %v", cert != nil, err)
				}
			})
			if allocs > tt.most {
				t.Errorf("%v allocations, want at most %v", allocs, tt.most)
			}
		})
	}
}

// It says which name and why although it costs nothing.
func TestErrorOfAnUnknownName(t *testing.T) {
	f := newFakeSigner(t)
	f.err = errors.New("not today")
	m := offline(t, f)
	_ = m.ManageSync(t.Context(), []string{"pending.example.com", "*.pending.example.com"})
	for _, tt := range []struct {
		sni, want  string
		notManaged bool
	}{
		{"other.example.com", `no certificate for "other.example.com": the name is not managed`, true},
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
// bytes, beside its leaf.
const bytesIdle = 660

// It is measured for certificates that no handshake has asked for.
func TestBytesACertificate(t *testing.T) {
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
	if most := int64(leaf + bytesIdle); each > most {
		t.Errorf("%d bytes a certificate; want at most %d", each, most)
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

// What is kept parsed is the same the next time.
func TestHotCertificatesAreBounded(t *testing.T) {
	for _, tt := range []struct{ option, want int }{{10, 10}, {-1, 50}, {0, 50}} {
		m := offline(t, newFakeSigner(t), func(c *Config) { c.HotCertificates = tt.option })
		names := numbered(50, "example.com")
		if err := m.ManageSync(t.Context(), names); err != nil {
			t.Fatal(err)
		}
		last, same := map[string]*x509.Certificate{}, 0
		for range 3 {
			same = 0
			for _, name := range names {
				leaf := mustLeaf(t, m, name)
				if leaf.DNSNames[0] != name {
					t.Errorf("%s is served the certificate of %s", name, leaf.DNSNames[0])
				}
				if leaf == last[name] {
					same++
				}
				last[name] = leaf
			}
		}
		if same > tt.want || tt.want == len(names) && same != tt.want {
			t.Errorf("HotCertificates %d: %d were parsed already; want %d", tt.option, same, tt.want)
		}
	}
}

// A start reads each certificate once, and nothing else before all are served.
func TestStartReadsEachCertificateOnce(t *testing.T) {
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
	loads := 0
	for _, c := range calls {
		switch {
		case strings.HasPrefix(c.key, keyChanges): // what other instances told of last
		case c.op == "load" && strings.HasPrefix(c.key, keyCerts+"/"):
			loads++
		default:
			t.Errorf("%s %s", c.op, c.key)
		}
	}
	if loads != len(names) {
		t.Errorf("%d loads from the storage for %d names", loads, len(names))
	}
}

// In an hour in which nothing is due, the storage is asked for nothing but what
// others have changed.
func TestNothingDueNothingDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty(storage.NewMemory())
		m := offline(t, newFakeSigner(t), func(c *Config) { c.Storage, c.CleanInterval = store, -1 })
		manage(t, m, numbered(100, "example.com")...)
		time.Sleep(time.Minute) // others are told of what was stored
		store.set(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, c := range store.seen() {
			if c.op != "list" || c.key != keyChanges {
				t.Errorf("%s %s", c.op, c.key)
			}
		}
	})
}

// Not for a name that storage had nothing for, and not for one that is not
// managed.
func TestHandshakesReadNoStorage(t *testing.T) {
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

// Lists that grow by one name hold no memory but for that one.
func TestNamesGivenOnceMoreCostNoMemory(t *testing.T) {
	const n, rounds = 2000, 50
	f := newFakeSigner(t)
	list := func(extra int) (names []string) {
		for i := range n + extra {
			names = append(names, fmt.Sprintf("customer-%06d.shops.example.com", i))
		}
		return names
	}
	mem := storedBy(t, f, list(rounds)...)
	m := offline(t, f, func(c *Config) { c.Storage = mem })
	give := func(extra int) {
		if err := m.ManageSync(t.Context(), list(extra)); err != nil {
			t.Fatal(err)
		}
	}
	give(0)
	before := heapInUse()
	for k := range rounds {
		give(k + 1)
	}
	if each := (heapInUse() - before) / rounds; each > 4<<10 {
		t.Errorf("%d bytes for each new name", each)
	}
	runtime.KeepAlive(m)
}
