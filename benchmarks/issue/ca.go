package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certwright/certwright/acmetest"
)

// host is where the CA's validation requests arrive.
const host = "127.0.0.1"

// testCA is the CA that all columns ask.
type testCA struct {
	*acmetest.CA
	rtt   atomic.Int64 // how far away the CA is, in nanoseconds
	count atomic.Int64
	last  atomic.Int64 // when a request began or ended, in Unix nanoseconds
}

func startCA() (*testCA, error) {
	ca := new(testCA)
	var err error
	ca.CA, err = acmetest.New(acmetest.Options{Middleware: ca.middleware})
	if err != nil {
		return nil, fmt.Errorf("starting the CA: %w", err)
	}
	return ca, nil
}

// middleware counts requests and has each travel for half of the round trip
// there and for half of it back.
func (ca *testCA) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ca.count.Add(1)
		ca.last.Store(time.Now().UnixNano())
		half := time.Duration(ca.rtt.Load()) / 2
		time.Sleep(half)
		next.ServeHTTP(w, r)
		time.Sleep(half) // the reply is small enough to be sent when this returns
		ca.last.Store(time.Now().UnixNano())
	})
}

func (ca *testCA) requests() int64 { return ca.count.Load() }

// settle waits until no request came for a while, so that what one column does
// afterwards is not in the way of the next.
func (ca *testCA) settle() {
	quiet := 30*time.Millisecond + time.Duration(ca.rtt.Load())
	for time.Since(time.Unix(0, ca.last.Load())) < quiet {
		time.Sleep(5 * time.Millisecond)
	}
}

// each calls f for each of names, at most inFlight at once.
func each(ctx context.Context, names []string, inFlight int, f func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for _, n := range names {
		group.Go(func() error { return f(ctx, n) })
	}
	return group.Wait()
}

// server answers validation requests on one port.
type server struct {
	srv  *http.Server
	done chan error
}

// serve binds a port. wrap, when not nil, puts TLS over the listener.
func serve(port int, h http.Handler, wrap func(net.Listener) net.Listener) (*server, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		return nil, err
	}
	if wrap != nil {
		ln = wrap(ln)
	}
	s := &server{srv: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: quietLog()}, done: make(chan error, 1)}
	go func() { s.done <- s.srv.Serve(ln) }()
	return s, nil
}

func (s *server) close() error {
	err := s.srv.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
