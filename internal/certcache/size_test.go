package certcache_test

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/certwright/certwright/internal/certcache"
)

func TestEntryIsSmall(t *testing.T) {
	if got := unsafe.Sizeof(certcache.Entry{}); got > 56 {
		t.Errorf("an Entry has %d bytes", got)
	}
	if got := unsafe.Sizeof(certcache.Served{}); got > 48 {
		t.Errorf("a Served has %d bytes", got)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first leaves what finalizers and pools hold
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestBytesPerName weighs what a Cache adds to entries, and to what they serve,
// that exist. Other parts of the program allocate and free meanwhile, which comes
// to less than a byte a name.
func TestBytesPerName(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	const n = 100_000
	for _, tt := range []struct {
		what  string
		names func(i int) []string
		most  float64 // bytes a name
	}{
		{"one name", func(i int) []string { return []string{fmt.Sprintf("host-%d.example.com", i)} }, 75},
		{"two names", func(i int) []string {
			return []string{fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("www.host-%d.example.com", i)}
		}, 60},
		{"a name and its wildcard", func(i int) []string {
			return []string{fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("*.host-%d.example.com", i)}
		}, 60},
	} {
		entries, served, names := make([]*certcache.Entry, n), make([]*certcache.Served, n), 0
		for i := range entries {
			entries[i], served[i] = &certcache.Entry{Names: tt.names(i)}, serving(failing{})
			names += len(entries[i].Names)
		}
		before := heapInUse()
		c := certcache.New(0)
		c.Add(entries...)
		for i, e := range entries {
			c.Serve(e, served[i])
		}
		got := (float64(heapInUse()) - float64(before)) / float64(names)
		t.Logf("%s: %.1f bytes a name", tt.what, got)
		if got > tt.most {
			t.Errorf("%s: %.1f bytes a name; at most %v are wanted", tt.what, got, tt.most)
		}
		if got < 20 {
			t.Errorf("%s: %.1f bytes a name cannot be", tt.what, got)
		}
		runtime.KeepAlive(entries)
		runtime.KeepAlive(served)
		runtime.KeepAlive(c)
	}
}

func TestNothingIsForgotten(t *testing.T) { // H16
	const n = 5000
	c := certcache.New(100)
	var entries []*held
	for i := range n {
		entries = append(entries, entry(fmt.Sprint(i), fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("*.host-%d.example.com", i)))
	}
	var batch []*certcache.Entry
	for _, h := range entries[:n/2] {
		batch = append(batch, &h.Entry)
	}
	c.Add(batch...)
	for _, h := range entries[:n/2] {
		c.Serve(&h.Entry, h.served())
	}
	install(c, entries[n/2:]...)
	for i, h := range entries {
		if lookup(c, h.Names[0]) != h.cert || lookup(c, "www."+h.Names[0]) != h.cert {
			t.Fatalf("entry %d is not found", i)
		}
	}
	batch = nil
	for i, h := range entries {
		if i%2 == 0 {
			batch = append(batch, &h.Entry)
		}
	}
	c.Remove(batch...)
	for i, h := range entries {
		if got := lookup(c, h.Names[0]); (got == nil) != (i%2 == 0) {
			t.Fatalf("entry %d: found %v", i, got != nil)
		}
	}
	if c.Len() != n/2 {
		t.Errorf("Len = %d", c.Len())
	}
}
