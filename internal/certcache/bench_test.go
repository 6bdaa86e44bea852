package certcache

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

func benchNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("host-%d.customers.example.com", i)
	}
	return names
}

const queries = 1 << 14

// benchQueries draws names in random order, as fresh strings like those of
// handshakes.
func benchQueries(names []string, prefix string) []string {
	out := make([]string, queries)
	for i := range out {
		out[i] = strings.Clone(prefix + names[rand.IntN(len(names))])
	}
	return out
}

func benchServed() Served {
	return Served{
		Source: parsed{new(tls.Certificate)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), Kind: certpem.KindP256,
	}
}

func benchEntries(names []string) []*Entry {
	entries := make([]*Entry, len(names))
	for i, name := range names {
		entries[i] = &Entry{Names: []string{name}}
	}
	return entries
}

// benchCache returns a cache that serves something for all names.
func benchCache(names []string, maxHot int) (*Cache, []*Entry) {
	c, entries := New(maxHot), benchEntries(names)
	c.Add(entries...)
	for _, e := range entries {
		c.Serve(now, e, benchServed())
	}
	return c, entries
}

// BenchmarkBareMap is what Lookup is measured by.
func BenchmarkBareMap(b *testing.B) {
	names := benchNames(10_000)
	m := make(map[string]*tls.Certificate)
	for _, name := range names {
		m[name] = new(tls.Certificate)
	}
	var p atomic.Pointer[map[string]*tls.Certificate]
	p.Store(&m)
	q := benchQueries(names, "")
	b.Run("hit", func(b *testing.B) {
		i := 0
		for b.Loop() {
			if (*p.Load())[q[i%queries]] == nil {
				b.Fatal("not found")
			}
			i++
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(queries); pb.Next(); i++ {
				if (*p.Load())[q[i%queries]] == nil {
					b.Error("not found")
				}
			}
		})
	})
}

func BenchmarkLookup(b *testing.B) {
	names := benchNames(10_000)
	c, _ := benchCache(append(names, "*.wild.example.com"), 0)
	run := func(name string, q []string, found bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if (c.Lookup(q[i%queries], nil) != nil) != found {
					b.Fatal("wrong answer")
				}
				i++
			}
		})
	}
	wild := make([]string, queries)
	for i := range wild {
		wild[i] = fmt.Sprintf("a%d.wild.example.com", i)
	}
	hits := benchQueries(names, "")
	run("hit", hits, true)
	run("wildcard", wild, true)
	run("unknown", benchQueries(names, "un.known"), false)
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(queries); pb.Next(); i++ {
				if c.Lookup(hits[i%queries], nil) == nil {
					b.Error("not found")
				}
			}
		})
	})
}

func BenchmarkAdd(b *testing.B) {
	names := benchNames(100_000)
	b.Run("one at 100k", func(b *testing.B) {
		c, _ := benchCache(names, 0)
		e := &Entry{Names: []string{"new.example.com"}}
		for b.Loop() {
			c.Add(e)
			c.Remove(now, e)
		}
	})
	b.Run("100k at once", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			entries := benchEntries(names)
			b.StartTimer()
			New(0).Add(entries...)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(names)), "ns/name")
	})
}

func BenchmarkServe(b *testing.B) {
	c, entries := benchCache(benchNames(100_000), 0)
	s := benchServed()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Serve(now, entries[i%len(entries)], s)
		i++
	}
}

// BenchmarkChurn looks up names of which one in ten can be hot.
func BenchmarkChurn(b *testing.B) {
	names := benchNames(10_000)
	c, _ := benchCache(names, 1000)
	q := benchQueries(names, "")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if c.Lookup(q[i%queries], nil) == nil {
			b.Fatal("not found")
		}
		i++
	}
}
