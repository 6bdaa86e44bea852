//go:build unix

// Command lookup measures GetCertificate for certificates that are in memory:
// exact names, wildcards, upper case, unknown names, on one goroutine and on
// two. The limit is a plain map and one reading of the clock.
package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

// plan is how much is measured.
type plan struct {
	names  int           // certificates
	rounds int           // of each measurement, with the columns in turn
	each   time.Duration // of one measurement
}

func main() {
	harness.Main(func(quick bool) error {
		if quick {
			return measure(plan{names: 1_000, rounds: 1, each: 10 * time.Millisecond})
		}
		return measure(plan{names: 10_000, rounds: 15, each: 25 * time.Millisecond})
	}, nil)
}

// column is what is measured.
type column struct {
	name string
	get  harness.Get
}

// measure measures all columns over the same certificates, one name each.
func measure(p plan) error {
	c, err := corpus.Open(p.names)
	if err != nil {
		return err
	}
	var columns []column
	for _, name := range []string{harness.Certwright, harness.CertMagic, harness.Autocert} {
		peer, err := open(name, c)
		if err != nil {
			return err
		}
		names := c.Names()
		if name != harness.Autocert { // which has no wildcards
			names = append(names, c.Wildcards()...)
		}
		if err := peer.Load(context.Background(), names); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if ours, ok := peer.(*peers.Certwright); ok {
			ours.Settle()
		}
		columns = append(columns, column{name, peer.GetCertificate})
	}
	bare, err := peers.NewMap(c)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what the loading has left is not to be cleared away meanwhile
	time.Sleep(time.Second)
	for _, k := range kinds(c, bare) {
		if err := k.measure(columns, p); err != nil {
			return err
		}
	}
	return nil
}

// open returns a peer that keeps as many certificates parsed as there are.
func open(column string, c *corpus.Corpus) (peers.Peer, error) {
	if column != harness.Certwright {
		return peers.InFile(column, c)
	}
	return peers.NewCertwright(corpus.NewCertwrightStorage(c), func(conf *certwright.Config) { conf.HotCertificates = -1 })
}

// kind is a kind of look-up.
type kind struct {
	id     string
	names  []string // what clients ask for, in any order
	wild   bool
	misses bool // there is no certificate
	cores  int
	counts bool // allocations too
	limit  harness.Get
}

func kinds(c *corpus.Corpus, bare *peers.Map) []kind {
	exact := harness.Shuffle(c.Names())
	return []kind{
		{id: "hit", names: exact, cores: 1, counts: true, limit: bare.Exact},
		{id: "hit-2cores", names: exact, cores: 2, limit: bare.Exact},
		{id: "wildcard", names: harness.Shuffle(underWildcards(c)), wild: true, cores: 1, counts: true, limit: bare.Wildcard},
		{id: "upper", names: upper(exact), cores: 1, counts: true, limit: bare.Upper},
		{id: "unknown", names: harness.Shuffle(unknown(c.N)), misses: true, cores: 1, counts: true, limit: bare.Wildcard},
	}
}

// measure prints the time of a look-up and what it allocates, for the columns in
// turn.
func (k kind) measure(columns []column, p plan) error {
	var probes []*harness.Probe
	columns = append(slices.Clone(columns), column{harness.Limit, k.limit})
	columns = slices.DeleteFunc(columns, func(c column) bool { return k.wild && c.name == harness.Autocert })
	for _, col := range columns {
		if k.misses {
			col.get = expectMiss(col.get)
		}
		probe, err := harness.NewProbe(col.get, k.names, k.cores, p.each)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", k.id, col.name, err)
		}
		defer probe.Close()
		probes = append(probes, probe)
	}
	for round := range p.rounds + 1 {
		runtime.GC()
		for i, probe := range probes {
			r, err := probe.Run()
			if err != nil {
				return fmt.Errorf("%s of %s: %w", k.id, columns[i].name, err)
			}
			if round == 0 { // to warm up
				continue
			}
			harness.Row(k.id, columns[i].name, r.Nanoseconds, "ns")
			if k.counts {
				harness.Row(k.id+"-allocs", columns[i].name, r.Allocs, "allocs")
			}
		}
	}
	return nil
}
