package certcache

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
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

func benchEntries(names []string) []Entry {
	entries := make([]Entry, len(names))
	for i, name := range names {
		entries[i] = entry(name, name)
	}
	return entries
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
	i := 0
	for b.Loop() {
		if (*p.Load())[q[i%queries]] == nil {
			b.Fatal("not found")
		}
		i++
	}
}

func BenchmarkLookup(b *testing.B) {
	names := benchNames(10_000)
	c := New()
	c.Install(now, benchEntries(names)...)
	c.Install(now, entry("wild", "*.wild.example.com"))
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

func BenchmarkInstall(b *testing.B) {
	names := benchNames(100_000)
	entries := benchEntries(names)
	b.Run("one at 100k", func(b *testing.B) {
		c := New()
		c.Install(now, entries...)
		i := 0
		for b.Loop() {
			c.Install(now, entries[i%len(entries)])
			i++
		}
	})
	b.Run("100k at once", func(b *testing.B) {
		for b.Loop() {
			New().Install(now, entries...)
		}
	})
}
