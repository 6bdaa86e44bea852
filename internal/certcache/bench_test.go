package certcache_test

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/hostname"
)

func benchNames(n int, format string) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(format, i)
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

func benchEntries(names []string) []*certcache.Entry {
	entries := make([]*certcache.Entry, len(names))
	for i, name := range names {
		entries[i] = &certcache.Entry{Names: []string{name}}
	}
	return entries
}

// benchCache returns a cache that serves something for all names.
func benchCache(names []string, maxHot int) (*certcache.Cache, []*certcache.Entry) {
	c, entries := certcache.New(maxHot), benchEntries(names)
	c.Add(entries...)
	for _, e := range entries {
		c.Serve(e, benchServed())
	}
	return c, entries
}

func benchServed() *certcache.Served {
	now := time.Now().Unix()
	return &certcache.Served{Source: parsed{new(tls.Certificate)}, NotBefore: now - 3600, End: now + 1e6}
}

// A bare is what look-ups are measured by: a plain map and the clock.
type bare struct {
	p atomic.Pointer[map[string]*tls.Certificate]
}

func newBare(names []string) *bare {
	m := make(map[string]*tls.Certificate, len(names))
	for _, name := range names {
		m[strings.Clone(name)] = new(tls.Certificate)
	}
	b := new(bare)
	b.p.Store(&m)
	return b
}

func (b *bare) find(name string) bool {
	cert, now := (*b.p.Load())[name], time.Now().Unix()
	return cert != nil && now > 0
}

// BenchmarkLookup has, for each kind of look-up, a plain map with one reading of
// the clock and the Cache in turn.
func BenchmarkLookup(b *testing.B) {
	const n = 10_000
	exact, zones := benchNames(n, "host-%d.customers.example.com"), benchNames(n, "zone-%d.wild.example.com")
	wild := benchNames(n, "*.zone-%d.wild.example.com")
	c, _ := benchCache(append(wild, exact...), 0)
	ownMap, zoneMap := newBare(exact), newBare(zones)
	find := func(name string) bool {
		return c.Find(name, nil).Cert != nil
	}
	respell := func(name string) bool {
		var buf [hostname.MaxSNI]byte
		key, _ := hostname.AppendSNI(buf[:0], name)
		return c.FindBytes(key, nil).Cert != nil
	}
	hits, upper := benchQueries(exact, ""), benchQueries(exact, "")
	under, bareUnder := benchQueries(zones, "www."), benchQueries(zones, "")
	for i := range upper {
		upper[i] = strings.ToUpper(upper[i]) + "."
		bareUnder[i] = under[i][len("www."):]
	}
	for _, k := range []struct {
		name        string
		bare, cache func(string) bool
		bareQueries []string
		queries     []string
		found       bool
	}{
		{"exact", ownMap.find, find, hits, hits, true},
		{"normalised", ownMap.find, respell, hits, hits, true},
		{"upper", ownMap.find, respell, hits, upper, true},
		{"wildcards", zoneMap.find, find, bareUnder, under, true},
		{"wildcards-normalised", zoneMap.find, respell, bareUnder, under, true},
		{"miss", ownMap.find, find, benchQueries(exact, "un."), benchQueries(exact, "un."), false},
	} {
		for _, cores := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/cores=%d", k.name, cores), func(b *testing.B) {
				var inMap, inCache []time.Duration
				for i := 0; b.Loop(); i += part {
					from, to := i%queries, i%queries+part
					inMap = append(inMap, round(b, cores, k.bareQueries[from:to], k.bare, k.found))
					inCache = append(inCache, round(b, cores, k.queries[from:to], k.cache, k.found))
				}
				m, c := low(inMap), low(inCache)
				b.ReportMetric(m, "map-ns")
				b.ReportMetric(c, "cache-ns")
				b.ReportMetric(c/m, "ratio")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// part is how many names are asked for in a row of the map and of the Cache. It
// takes less time than what else runs on a machine gets in a row.
const part = 1 << 11

// round returns how long it takes to ask for names on so many goroutines.
func round(b *testing.B, cores int, q []string, find func(string) bool, found bool) time.Duration {
	start := time.Now()
	var all sync.WaitGroup
	for range cores {
		all.Go(func() {
			for _, name := range q {
				if find(name) != found {
					b.Error("wrong answer")
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// low returns the nanoseconds of one look-up in a round of which a tenth was
// faster.
func low(rounds []time.Duration) float64 {
	slices.Sort(rounds)
	return float64(rounds[len(rounds)/10].Nanoseconds()) / part
}

func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		c, _ := benchCache(benchNames(n, "host-%d.example.com"), 0)
		b.Run(fmt.Sprintf("one-at-%d", n), func(b *testing.B) {
			b.ReportAllocs()
			entries := benchEntries(benchNames(100, "new-%d.example.com"))
			for i := 0; b.Loop(); i++ {
				if i%len(entries) == 0 {
					b.StopTimer()
					c.Remove(entries...)
					b.StartTimer()
				}
				c.Add(entries[i%len(entries)])
			}
			c.Remove(entries...)
		})
	}
	names := benchNames(100_000, "host-%d.example.com")
	b.Run("100k-at-once", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			entries := benchEntries(names)
			b.StartTimer()
			certcache.New(0).Add(entries...)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(names)), "ns/name")
	})
}

func BenchmarkServe(b *testing.B) {
	c, entries := benchCache(benchNames(100_000, "host-%d.example.com"), 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Serve(entries[i%len(entries)], benchServed())
	}
}

// BenchmarkChurn looks up names of which one in ten can be hot.
func BenchmarkChurn(b *testing.B) {
	names := benchNames(10_000, "host-%d.example.com")
	c, _ := benchCache(names, 1000)
	q := benchQueries(names, "")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if c.Find(q[i%queries], nil).Cert == nil {
			b.Fatal("not found")
		}
	}
}
