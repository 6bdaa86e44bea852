//go:build unix

// Command start measures how long a start with stored certificates takes: until
// all are ready, and until the first handshake, for the last of the names, can
// be served. Files are in the page cache.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

// size is a number of certificates, and how often a start with them is measured.
type size struct{ n, rounds int }

func sizes(quick bool) []size {
	if quick {
		return []size{{1_000, 1}}
	}
	return []size{{1_000, 5}, {10_000, 3}, {100_000, 1}}
}

// slowMost is the most certificates with which the libraries that load one after
// the other are measured.
const slowMost = 10_000

func main() { harness.Main(parent, child) }

func parent(quick bool) error {
	var errs []error
	for _, size := range sizes(quick) {
		c, err := corpus.Open(size.n)
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
		for round := range size.rounds + 1 {
			for _, column := range columns(size.n) {
				for _, what := range measured(round) {
					errs = append(errs, harness.Child(what, column, strconv.Itoa(size.n)))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// measured says what is measured of each column. The first round warms the page
// cache and lets a library write what helps it at the next start.
func measured(round int) []string {
	if round == 0 {
		return []string{"warm-up"}
	}
	return []string{"ready", "first"}
}

func columns(n int) []string {
	all := []string{harness.Certwright, harness.Limit, harness.LimitParsed}
	if n <= slowMost {
		all = append(all, harness.CertMagic, harness.Autocert)
	}
	return all
}

func child(args []string) error {
	what, column := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	c, err := corpus.Open(n)
	if err != nil {
		return err
	}
	names := c.Names()
	measure := ready
	if what == "first" {
		measure = first
	}
	// What the harness has left behind is not the peer's to clear away.
	runtime.GC()
	took, err := measure(column, c, names)
	if err != nil {
		return fmt.Errorf("%s with %d certificates: %w", column, n, err)
	}
	if what == "warm-up" {
		return nil
	}
	harness.Row(fmt.Sprintf("start-%s-%s", what, harness.Short(n)), column, harness.Milliseconds(took), "ms")
	return nil
}

// ready measures until every name has its certificate.
func ready(column string, c *corpus.Corpus, names []string) (time.Duration, error) {
	if _, err := peers.Folder(column, c); err != nil { // writes it if it is missing
		return 0, err
	}
	begin := time.Now()
	p, err := peers.InFolders(column, c)
	if err != nil {
		return 0, err
	}
	if err := p.Load(context.Background(), names); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}

// first measures until a certificate for the last name is to be had.
func first(column string, c *corpus.Corpus, names []string) (time.Duration, error) {
	hello, release, err := harness.Hello()
	if err != nil {
		return 0, err
	}
	defer release()
	hello.ServerName = names[len(names)-1]
	if _, err := peers.Folder(column, c); err != nil {
		return 0, err
	}
	begin := time.Now()
	p, err := peers.InFolders(column, c)
	if err != nil {
		return 0, err
	}
	if err := p.Begin(context.Background(), names); err != nil {
		return 0, err
	}
	for {
		cert, err := p.GetCertificate(hello)
		if err == nil {
			return time.Since(begin), check(cert, hello.ServerName)
		}
		if time.Since(begin) > 5*time.Minute {
			return 0, err
		}
		time.Sleep(200 * time.Microsecond) // a client that tries again; no core is kept busy
	}
}

func check(cert *tls.Certificate, name string) error {
	if cert.Leaf == nil {
		return fmt.Errorf("the certificate for %q was not parsed", name)
	}
	return cert.Leaf.VerifyHostname(name)
}
