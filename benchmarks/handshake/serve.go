//go:build unix

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
)

// tlsServer does handshakes and closes connections.
type tlsServer struct {
	l  net.Listener
	wg sync.WaitGroup
}

func serve(conf *tls.Config) (*tlsServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	conf.NextProtos = []string{"h2", "http/1.1"}
	s := &tlsServer{l: l}
	s.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer conn.Close()
				// A client that fails says so itself.
				_ = tls.Server(conn, conf).Handshake()
			})
		}
	})
	return s, nil
}

func (s *tlsServer) close() {
	_ = s.l.Close()
	s.wg.Wait()
}

// handshake does one as a client without a session, and returns the leaf.
func (s *tlsServer) handshake(name string) ([]byte, error) {
	conn, err := net.Dial("tcp", s.l.Addr().String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Trust is the client's business; it is looked at whose certificate came.
	client := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err := client.Handshake(); err != nil {
		return nil, fmt.Errorf("shaking hands for %q: %w", name, err)
	}
	return client.ConnectionState().PeerCertificates[0].Raw, nil
}

// burst has clients come at once and returns when each was served, in
// milliseconds from then on.
func (s *tlsServer) burst(pair corpus.Pair, clients int) ([]float64, error) {
	took := make([]float64, clients)
	start := make(chan time.Time)
	var g errgroup.Group
	for i := range clients {
		g.Go(func() error {
			begin := <-start
			leaf, err := s.handshake(pair.Name)
			if err == nil && !bytes.Equal(leaf, pair.Leaf) {
				err = fmt.Errorf("another certificate was served for %q", pair.Name)
			}
			took[i] = harness.Milliseconds(time.Since(begin))
			return err
		})
	}
	runtime.GC()
	now := time.Now()
	for range clients {
		start <- now
	}
	return took, g.Wait()
}

// rate returns how many handshakes a second of CPU gives, of client and server
// together, for names that have been asked for before.
func (s *tlsServer) rate(names []string, n int) (float64, error) {
	do := func(n int) error {
		var g errgroup.Group
		for first := range 2 {
			g.Go(func() error {
				for i := first; i < n; i += 2 {
					if _, err := s.handshake(names[i%len(names)]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	}
	if err := do(len(names)); err != nil {
		return 0, err
	}
	runtime.GC()
	cpu := harness.CPU()
	if err := do(n); err != nil {
		return 0, err
	}
	return float64(n) / (harness.CPU() - cpu).Seconds(), nil
}
