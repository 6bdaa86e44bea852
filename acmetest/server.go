package acmetest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// closeLimit bounds how long Close waits for a request under way.
const closeLimit = 5 * time.Second

// server serves a handler over TLS until it is closed.
type server struct {
	http   *http.Server
	addr   string        // host and port
	done   chan struct{} // closed when the accept loop has ended
	active *activity
}

// startServer listens on addr and serves h. errorLog gets what net/http logs.
func startServer(addr string, cert tls.Certificate, h http.Handler, errorLog *log.Logger) (*server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	active := newActivity()
	s := &server{
		http: &http.Server{
			Handler:           active.track(h),
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}},
			ReadHeaderTimeout: 30 * time.Second,
			ErrorLog:          errorLog,
		},
		addr:   dialAddr(listener.Addr().(*net.TCPAddr)),
		done:   make(chan struct{}),
		active: active,
	}
	go func() {
		defer close(s.done)
		_ = s.http.ServeTLS(listener, "", "") // it ends with ErrServerClosed
	}()
	return s, nil
}

// close closes all connections and waits for the handlers, which see their
// request's context end.
func (s *server) close() error {
	err := s.http.Close()
	<-s.done
	if !s.active.wait(closeLimit) {
		err = errors.Join(err, fmt.Errorf("closing the ACME API: a request is still running after %v", closeLimit))
	}
	return err
}

// dialAddr returns the address at which a client of this host reaches a
// listener.
func dialAddr(addr *net.TCPAddr) string {
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// activity knows how many requests are running. It is safe for concurrent use.
type activity struct {
	mu      sync.Mutex // guards running, closing
	running int
	closing bool
	idle    chan struct{} // closed when closing and nothing runs
}

func newActivity() *activity { return &activity{idle: make(chan struct{})} }

// track returns h with its requests counted. Once wait is called it answers 503.
func (a *activity) track(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.begin() {
			http.Error(w, "closing", http.StatusServiceUnavailable)
			return
		}
		defer a.end()
		h.ServeHTTP(w, r)
	})
}

func (a *activity) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return false
	}
	a.running++
	return true
}

func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	if a.closing && a.running == 0 {
		close(a.idle)
	}
}

// wait refuses new requests and reports whether the running ones ended within
// limit. It is called once.
func (a *activity) wait(limit time.Duration) bool {
	a.mu.Lock()
	a.closing = true
	if a.running == 0 {
		close(a.idle)
	}
	a.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-a.idle:
		return true
	case <-timer.C:
		return false
	}
}

// freePort returns a port on which nothing listens on 127.0.0.1 and that is not
// taken. It keeps below the ports that kernels give to outgoing connections,
// for one of those could take it before the caller listens.
func freePort(taken int) (int, error) {
	const lowest, span, tries = 12000, 20000, 200
	for range tries {
		port := lowest + rand.IntN(span)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil || port == taken {
			if err == nil {
				_ = listener.Close()
			}
			continue
		}
		return port, listener.Close()
	}
	return 0, errors.New("picking a port for the validator: none is free on 127.0.0.1")
}
