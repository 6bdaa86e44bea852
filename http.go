package certwright

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/hostname"
)

// HTTPHandler returns a handler for the plain HTTP port. It answers http-01
// validation requests for challenges that are pending, here or on another
// instance that shares the storage, and hands every other request to next,
// those for unknown tokens too. A nil next redirects to https.
//
// It belongs outside of every other handler: a redirect, an authentication or a
// routing by host before it would hide the challenges from the CA.
func (m *Manager) HTTPHandler(next http.Handler) http.Handler {
	m.wiredHTTP.Store(true)
	if next == nil {
		next = http.HandlerFunc(m.redirect)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.servesHTTP.Load() {
			m.servesHTTP.Store(true)
		}
		if !m.answer(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// answer answers an http-01 validation request and reports whether r was one.
func (m *Manager) answer(w http.ResponseWriter, r *http.Request) bool {
	if !m.table.Handle(w, r, normalHost) {
		return false
	}
	m.asked(challenge.HTTP01)
	return true
}

// normalHost normalises a Host header without its port.
func normalHost(host string) string {
	name, err := hostname.Normalize(host)
	if err != nil {
		return ""
	}
	return name
}

// redirect sends a request to the same URL with https.
func (m *Manager) redirect(w http.ResponseWriter, r *http.Request) {
	host, err := hostname.Normalize(challenge.HostOnly(r.Host))
	if err != nil || hostname.IsWildcard(host) {
		http.Error(w, "The Host header is not a name.", http.StatusBadRequest)
		return
	}
	switch {
	case m.conf.TLSPort > 0 && m.conf.TLSPort != 443:
		host = net.JoinHostPort(host, fmt.Sprint(m.conf.TLSPort))
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	uri := r.URL.RequestURI()
	if !strings.HasPrefix(uri, "/") { // "*", or an opaque URL, which would go on with the host's name
		uri = "/"
	}
	status := http.StatusPermanentRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, "https://"+host+uri, status)
}

// Serve is the shortest way to an HTTPS server: it manages a certificate for
// each of names, serves handler on port 443 and redirects port 80 to it, until
// ctx ends; then requests in flight get ten seconds. Certificates are kept in
// the user's configuration directory and come from Let's Encrypt. Calling Serve
// says that you agree to its terms of service. A nil handler means
// http.DefaultServeMux.
func Serve(ctx context.Context, handler http.Handler, names ...string) error {
	m, err := New(Config{AgreeToTerms: true})
	if err != nil {
		return err
	}
	err = m.Serve(ctx, handler, names...)
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return errors.Join(err, m.Close(closeCtx))
}

const shutdownTime = 10 * time.Second

// Serve is like the function Serve with this Manager's configuration: it binds
// Config.HTTPPort and Config.TLSPort on Config.ListenHost before names are
// managed, so that a port that is taken is an error at once, and begins to
// serve at once; names that have no certificate yet get theirs in the
// background. It returns nil when ctx ended and the servers are shut down. It
// does not close the Manager.
func (m *Manager) Serve(ctx context.Context, handler http.Handler, names ...string) error {
	tlsLn, err := listen(m.conf.ListenHost, m.conf.TLSPort, "Config.TLSPort")
	if err != nil {
		return err
	}
	httpLn, err := listen(m.conf.ListenHost, m.conf.HTTPPort, "Config.HTTPPort")
	if err != nil {
		return errors.Join(err, closeListener(tlsLn))
	}
	m.servesHTTP.Store(true)
	m.servesTLS.Store(true)
	defer m.servesHTTP.Store(false)
	defer m.servesTLS.Store(false)
	if err := m.ManageAsync(names); err != nil {
		return errors.Join(err, closeListener(tlsLn), closeListener(httpLn))
	}
	quiet := log.New(handshakeLog{m.log}, "", 0)
	https := m.TLS(&http.Server{
		Handler: handler, ErrorLog: quiet,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute,
	})
	plain := &http.Server{
		Handler: m.HTTPHandler(nil), ErrorLog: quiet,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreClosed(https.ServeTLS(tlsLn, "", "")) })
	group.Go(func() error { return ignoreClosed(plain.Serve(httpLn)) })
	group.Go(func() error {
		<-ctx.Done()
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		return errors.Join(plain.Shutdown(shut), https.Shutdown(shut))
	})
	return group.Wait()
}

func listen(host string, port int, field string) (net.Listener, error) {
	if port < 0 {
		return nil, configErrorf(field, "is negative, which says that another server listens; Serve needs a port")
	}
	ln, err := net.Listen("tcp", listenAddr(host, port))
	if err != nil {
		return nil, &ConfigError{Field: field, Err: err}
	}
	return ln, nil
}

func closeListener(ln net.Listener) error { return ln.Close() }

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
