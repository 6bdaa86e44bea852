//go:build unix

// Command memory measures what certificates take: on the heap, in allocations,
// in the process, and in garbage collection under load. Each is measured in a
// process of its own.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

// size is a number of certificates, and how often they are loaded.
type size struct{ n, rounds int }

func sizes(quick bool) []size {
	if quick {
		return []size{{1_000, 1}}
	}
	return []size{{10_000, 3}, {100_000, 1}}
}

func main() { harness.Main(parent, child) }

func parent(quick bool) error {
	var errs []error
	all := sizes(quick)
	for i, size := range all {
		c, err := corpus.Open(size.n)
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
		under := "idle"
		if i == len(all)-1 {
			under = "load"
		}
		for range size.rounds {
			for _, column := range []string{harness.Certwright, harness.CertMagic, harness.Autocert, harness.Limit, harness.LimitParsed} {
				errs = append(errs, harness.Child(column, strconv.Itoa(size.n), under))
			}
		}
	}
	return errors.Join(errs...)
}

func child(args []string) error {
	column := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := corpus.Open(n)
	if err != nil {
		return err
	}
	hello, release, err := harness.Hello()
	if err != nil {
		return err
	}
	defer release()
	peer, err := load(column, c)
	if err != nil {
		return fmt.Errorf("%s with %d certificates: %w", column, n, err)
	}
	if args[2] == "load" {
		err = underLoad(column, peer, c, hello)
	} else {
		err = inUse(column, peer, c, hello)
	}
	runtime.KeepAlive(peer)
	return err
}

// load measures what the certificates of c take. Names are the peer's to keep:
// the harness holds none.
func load(column string, c *corpus.Corpus) (peers.Peer, error) {
	peer, err := open(column, c)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	heap := harness.Heap()
	_, before := harness.Allocations()
	if err := peer.Load(ctx, c.Names()); err != nil {
		return nil, err
	}
	_, after := harness.Allocations()
	if ours, ok := peer.(*peers.Certwright); ok {
		ours.Settle()
	}
	size := harness.Short(c.N)
	harness.Row("heap-"+size, column, float64(harness.Heap()-heap)/float64(c.N), "B")
	if inFolders(column, c) { // reading from one file, the corpus allocates too
		harness.Row("alloc-"+size, column, float64(after-before)/float64(c.N), "B")
	}
	harness.Row("rss-"+size, column, float64(harness.PeakRSS())/1e6, "MB")
	return peer, nil
}

// open returns a peer over a store of its own, as far as there is one for so many
// certificates.
func open(column string, c *corpus.Corpus) (peers.Peer, error) {
	if inFolders(column, c) {
		return peers.InFolders(column, c)
	}
	return peers.InFile(column, c)
}

func inFolders(column string, c *corpus.Corpus) bool {
	return c.N <= 10_000 || column == harness.Certwright
}

// inUse measures the heap once more after each name was asked for.
func inUse(column string, peer peers.Peer, c *corpus.Corpus, hello *tls.ClientHelloInfo) error {
	hello.ServerName = ""
	heap := harness.Heap()
	for i := range c.N {
		hello.ServerName = c.Name(i)
		if _, err := peer.GetCertificate(hello); err != nil {
			return err
		}
	}
	hello.ServerName = ""
	grown := float64(harness.Heap()-heap) / float64(c.N)
	harness.Row("heap-used-more-"+harness.Short(c.N), column, grown, "B")
	return nil
}
