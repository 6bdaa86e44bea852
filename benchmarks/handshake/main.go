//go:build unix

// Command handshake measures real TLS handshakes over loopback: a thousand at
// once for one name that nobody has asked for yet, and how many full handshakes
// a second of CPU gives. Client and server are one process. The limit is a
// tls.Config with one certificate. Then it measures handshakes one after another
// while strangers ask for validations that nobody has begun; their limit is the
// same without strangers.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

// names of the corpus that are asked for.
const (
	coldName = 123 // in the burst
	hotNames = 100 // for the rate, from the first on
)

func main() { harness.Main(parent, child) }

func parent(quick bool) error {
	n, rounds, clients := 10_000, 5, 1000
	if quick {
		n, rounds, clients = 1_000, 1, 100
	}
	for range rounds {
		for _, column := range []string{harness.Certwright, harness.CertMagic, harness.Autocert, harness.Limit} {
			if err := harness.Child(column, strconv.Itoa(n), strconv.Itoa(clients)); err != nil {
				return err
			}
		}
		for _, kind := range []string{"slow", "hang"} {
			if err := harness.Child("strangers-"+kind, strconv.Itoa(n), strconv.Itoa(3*clients)); err != nil {
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
	clients, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	c, err := corpus.Open(n)
	if err != nil {
		return err
	}
	if kind, ok := strings.CutPrefix(column, "strangers-"); ok {
		return among(kind, c, clients)
	}
	conf, err := server(column, c)
	if err != nil {
		return fmt.Errorf("%s: %w", column, err)
	}
	s, err := serve(conf)
	if err != nil {
		return err
	}
	defer s.close()
	pair, err := c.Pair(coldName)
	if err != nil {
		return err
	}
	took, err := s.burst(pair, clients)
	if err != nil {
		return fmt.Errorf("%s: %w", column, err)
	}
	harness.Row("tls-burst-p50", column, harness.Percentile(took, 0.50), "ms")
	harness.Row("tls-burst-p99", column, harness.Percentile(took, 0.99), "ms")
	rate, err := s.rate(c.Names()[:hotNames], 2*clients)
	if err != nil {
		return fmt.Errorf("%s: %w", column, err)
	}
	harness.Row("tls-rate", column, rate, "1/s")
	return nil
}

// server returns the config of a server that is ready. autocert loads a
// certificate when it is asked for, and has none of them yet.
func server(column string, c *corpus.Corpus) (*tls.Config, error) {
	if column == harness.Limit {
		pair, err := c.Pair(coldName)
		if err != nil {
			return nil, err
		}
		cert, err := pair.Certificate()
		if err != nil {
			return nil, err
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert}}, nil
	}
	peer, err := peers.InFolders(column, c)
	if err != nil {
		return nil, err
	}
	if column != harness.Autocert {
		if err := peer.Load(context.Background(), c.Names()); err != nil {
			return nil, err
		}
	}
	if ours, ok := peer.(*peers.Certwright); ok {
		ours.Settle()
	}
	return &tls.Config{GetCertificate: peer.GetCertificate}, nil
}
