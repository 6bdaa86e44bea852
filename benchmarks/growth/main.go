//go:build unix

// Command growth measures how hits, starts, single certificates, memory and
// upkeep go with the number of names, from a thousand to a million. A hundred
// names share a certificate, and storage is in memory. Each number of names has
// a process of its own.
package main

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

const (
	perCertificate = 100
	extras         = 100 // certificates that are added one by one
	window         = 5 * time.Second
	magicMost      = 100_000 // names with which CertMagic's pass is measured
	lookupRounds   = 9
	lookupTime     = 25 * time.Millisecond
)

func main() { harness.Main(parent, child) }

func parent(quick bool) error {
	sizes := []int{1_000, 10_000, 100_000, 1_000_000}
	if quick {
		sizes = sizes[:2]
	}
	var errs []error
	for _, n := range sizes {
		errs = append(errs, harness.Child(harness.Certwright, strconv.Itoa(n)))
		if n <= magicMost {
			errs = append(errs, harness.Child(harness.CertMagic, strconv.Itoa(n)))
		}
	}
	return errors.Join(errs...)
}

func child(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if args[0] == harness.CertMagic {
		return pass(n)
	}
	shared, err := corpus.NewShared(n, perCertificate, extras)
	if err != nil {
		return err
	}
	storage, err := shared.Storage(context.Background())
	if err != nil {
		return err
	}
	peer, err := start(shared, storage, n)
	if err != nil {
		return err
	}
	if err := singles(peer, shared, n); err != nil {
		return err
	}
	if err := hits(peer, shared, n); err != nil {
		return err
	}
	peer.Settle()
	return watch(harness.Certwright, n, func() error { time.Sleep(window); return nil })
}

func row(what string, n int) string { return "growth-" + what + "-" + harness.Short(n) }

// start measures the start and what the heap grows by with it.
func start(shared *corpus.Shared, storage certwright.Storage, n int) (*peers.Certwright, error) {
	heap := harness.Heap()
	begin := time.Now()
	peer, err := peers.NewCertwright(storage)
	if err != nil {
		return nil, err
	}
	if err := peer.Manage(context.Background(), shared.Specs()...); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	harness.Row(row("start", n), harness.Certwright, float64(took)/1e3/float64(n), "us")
	peer.Settle()
	harness.Row(row("heap", n), harness.Certwright, float64(harness.Heap()-heap)/float64(n), "B")
	return peer, nil
}

// singles adds certificates one by one, and has each looked at again.
func singles(peer *peers.Certwright, shared *corpus.Shared, n int) error {
	for _, what := range []string{"install", "tick"} {
		for _, pair := range shared.Extra {
			begin := time.Now()
			if err := peer.ManageSync(context.Background(), []string{pair.Name}); err != nil {
				return err
			}
			harness.Row(row(what, n), harness.Certwright, float64(time.Since(begin))/1e3, "us")
			peer.Settle()
		}
	}
	return nil
}

// hits measures look-ups beside the limit.
func hits(peer *peers.Certwright, shared *corpus.Shared, n int) error {
	bare, names, err := peers.NewSharedMap(shared)
	if err != nil {
		return err
	}
	harness.Shuffle(names)
	ours, err := harness.NewProbe(peer.GetCertificate, names, 1, lookupTime)
	if err != nil {
		return err
	}
	defer ours.Close()
	limit, err := harness.NewProbe(bare.Exact, names, 1, lookupTime)
	if err != nil {
		return err
	}
	defer limit.Close()
	for range lookupRounds {
		runtime.GC()
		for column, probe := range map[string]*harness.Probe{harness.Certwright: ours, harness.Limit: limit} {
			r, err := probe.Run()
			if err != nil {
				return err
			}
			harness.Row(row("hit", n), column, r.Nanoseconds, "ns")
		}
	}
	return nil
}

// pass measures one of CertMagic's, with a name to a certificate.
func pass(n int) error {
	c, err := corpus.Open(n)
	if err != nil {
		return err
	}
	peer := peers.NewCertMagic(corpus.CertMagicStorage{Corpus: c})
	defer peer.Close()
	if err := peer.Load(context.Background(), c.Names()); err != nil {
		return err
	}
	return watch(harness.CertMagic, n, func() error {
		return peer.Cache.RenewManagedCertificates(context.Background())
	})
}

func watch(column string, n int, wait func() error) error {
	cpu, objects, err := harness.Watch(wait)
	if err != nil {
		return err
	}
	harness.Row(row("idle-cpu", n), column, harness.Milliseconds(cpu), "ms")
	harness.Row(row("idle-allocs", n), column, float64(objects), "allocs")
	return nil
}
