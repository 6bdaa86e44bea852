//go:build unix

package main

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

const (
	loadGoroutines = 2
	loadLookups    = 300_000  // of each goroutine
	loadGarbage    = 16 << 10 // bytes at each, as a handshake leaves
	loadKept       = 4_000    // of them live on for a while, as connections do
)

// underLoad measures garbage collection while certificates are looked up. The
// load is the same for each column, however often it makes garbage be collected.
func underLoad(column string, peer peers.Peer, c *corpus.Corpus, hello *tls.ClientHelloInfo) error {
	before := read()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for g := range loadGoroutines {
		wg.Go(func() {
			if err := visit(peer, c, *hello, uint64(g)); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	after := read()
	cycles := after.cycles - before.cycles
	if cycles == 0 {
		return fmt.Errorf("%s: no garbage was collected", column)
	}
	cpu := (after.cpu - before.cpu) * 1e3
	harness.Row("gc-cpu", column, cpu, "ms")
	harness.Row("gc-cycle", column, cpu/float64(cycles), "ms")
	pauses := after.pauses.since(before.pauses)
	harness.Row("gc-pause-p50", column, pauses.quantile(0.5)*1e6, "us")
	harness.Row("gc-pause-p99", column, pauses.quantile(0.99)*1e6, "us")
	harness.Row("gc-pause-max", column, pauses.quantile(1)*1e6, "us")
	return nil
}

// visit makes look-ups, most of them for few of the names.
func visit(peer peers.Peer, c *corpus.Corpus, hello tls.ClientHelloInfo, seed uint64) error {
	zipf := rand.NewZipf(rand.New(rand.NewPCG(seed, 7)), 1.2, 10, uint64(c.N-1))
	kept := make([][]byte, loadKept)
	for i := range loadLookups {
		hello.ServerName = c.Name(int(zipf.Uint64()))
		if _, err := peer.GetCertificate(&hello); err != nil {
			return err
		}
		kept[i%loadKept] = make([]byte, loadGarbage)
	}
	return nil
}

// counters are what the runtime counts of garbage collection.
type counters struct {
	cpu    float64 // seconds
	cycles uint64
	pauses histogram
}

func read() counters {
	s := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/gc/cycles/total:gc-cycles"}, {Name: "/sched/pauses/total/gc:seconds"},
	}
	runtime.GC() // at the end of which the runtime sums its CPU time up
	metrics.Read(s)
	return counters{s[0].Value.Float64(), s[1].Value.Uint64(), newHistogram(s[2].Value.Float64Histogram())}
}

// histogram is a copy of one of the runtime's.
type histogram struct {
	counts []uint64
	upper  []float64 // bounds of the buckets
}

func newHistogram(h *metrics.Float64Histogram) histogram {
	return histogram{append([]uint64(nil), h.Counts...), append([]float64(nil), h.Buckets[1:]...)}
}

func (h histogram) since(before histogram) histogram {
	for i := range before.counts {
		h.counts[i] -= before.counts[i]
	}
	return h
}

// quantile returns the upper bound of the bucket in which the part q of all is
// reached.
func (h histogram) quantile(q float64) float64 {
	var total, sum uint64
	for _, n := range h.counts {
		total += n
	}
	want := uint64(q * float64(total))
	for i, n := range h.counts {
		if sum += n; n > 0 && sum >= want {
			return h.upper[i]
		}
	}
	return 0
}
