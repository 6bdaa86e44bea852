//go:build unix

// Command idle measures what upkeep costs while no certificate is due: for
// CertMagic a pass over all, which it makes every ten minutes; for certwright,
// which waits for the first that is due, some seconds of waiting. The limit is a
// process that waits for nothing.
package main

import (
	"context"
	"strconv"
	"time"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

// window is for how long a process is watched that has nothing to do.
const window = 5 * time.Second

func main() { harness.Main(parent, child) }

func parent(quick bool) error {
	n, rounds := 10_000, 3
	if quick {
		n, rounds = 1_000, 1
	}
	for range rounds {
		for _, column := range []string{harness.Certwright, harness.CertMagic, harness.Limit} {
			if err := harness.Child(column, strconv.Itoa(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func child(args []string) error {
	column := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	wait := func() error { time.Sleep(window); return nil }
	if column != harness.Limit {
		c, err := corpus.Open(n)
		if err != nil {
			return err
		}
		peer, err := peers.InFile(column, c)
		if err != nil {
			return err
		}
		defer peer.Close()
		if err := peer.Load(context.Background(), c.Names()); err != nil {
			return err
		}
		switch p := peer.(type) {
		case *peers.Certwright:
			p.Settle()
		case *peers.CertMagic:
			wait = func() error { return p.Cache.RenewManagedCertificates(context.Background()) }
		}
	}
	return watch(column, n, wait)
}

// watch prints what happens while wait runs.
func watch(column string, n int, wait func() error) error {
	cpu, objects, err := harness.Watch(wait)
	if err != nil {
		return err
	}
	harness.Row("idle-cpu-"+harness.Short(n), column, harness.Milliseconds(cpu), "ms")
	harness.Row("idle-allocs-"+harness.Short(n), column, float64(objects), "allocs")
	return nil
}
