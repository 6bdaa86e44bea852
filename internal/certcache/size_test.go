package certcache

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"
)

func TestEntryIsSmall(t *testing.T) {
	if got := unsafe.Sizeof(Entry{}); got > 112 {
		t.Errorf("an Entry has %d bytes", got)
	}
	if got := unsafe.Sizeof(cell{}); 64%got != 0 {
		t.Errorf("a cell has %d bytes, and some cross the end of a cache line", got)
	}
	if got := unsafe.Sizeof(front{}); 64%got != 0 {
		t.Errorf("a front has %d bytes, and some cross the end of a cache line", got)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first leaves what finalizers and pools hold
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestBytesPerName weighs what a Cache adds to entries that exist. Other parts of
// the program allocate and free meanwhile, which comes to less than a byte a
// name; the bounds leave room for two.
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
		{"one name", func(i int) []string { return []string{fmt.Sprintf("host-%d.example.com", i)} }, 62},
		{"two names", func(i int) []string {
			return []string{fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("www.host-%d.example.com", i)}
		}, 62},
		{"a name and its wildcard", func(i int) []string {
			return []string{fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("*.host-%d.example.com", i)}
		}, 70},
	} {
		entries, names := make([]*Entry, n), 0
		source := fakeSource{}
		for i := range entries {
			entries[i] = &Entry{Names: tt.names(i)}
			names += len(entries[i].Names)
		}
		before := heapInUse()
		c := New(0)
		c.Add(entries...)
		for _, e := range entries {
			c.Serve(now, e, served(source))
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
		runtime.KeepAlive(c)
	}
}

func TestH16_NothingIsForgotten(t *testing.T) {
	const n = 5000
	c := New(100)
	var entries []*held
	for i := range n {
		entries = append(entries, entry(fmt.Sprint(i), fmt.Sprintf("host-%d.example.com", i), fmt.Sprintf("*.host-%d.example.com", i)))
	}
	var batch []*Entry
	for _, h := range entries[:n/2] {
		batch = append(batch, &h.Entry)
	}
	c.Add(batch...)
	for _, h := range entries[:n/2] {
		c.Serve(now, &h.Entry, h.served)
	}
	install(c, entries[n/2:]...)
	for i, h := range entries {
		if c.Lookup(h.Names[0], nil) != h.cert || c.Lookup("www."+h.Names[0], nil) != h.cert {
			t.Fatalf("entry %d is not found", i)
		}
	}
	batch = nil
	for i, h := range entries {
		if i%2 == 0 {
			batch = append(batch, &h.Entry)
		}
	}
	c.Remove(now, batch...)
	for i, h := range entries {
		if got := c.Lookup(h.Names[0], nil); (got == nil) != (i%2 == 0) {
			t.Fatalf("entry %d: found %v", i, got != nil)
		}
	}
	if c.Len() != n/2 {
		t.Errorf("Len = %d", c.Len())
	}
}
