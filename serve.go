package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Serve is the shortest way to an HTTPS server: it manages a certificate for
// each of names, serves handler on port 443 and redirects port 80 to it, until
// ctx ends; then requests in flight get ten seconds. Certificates are kept in
// the user's configuration directory and come from Let's Encrypt. Calling Serve
// says that you agree to its terms of service. A nil handler means
// http.DefaultServeMux.
func Serve(ctx context.Context, handler http.Handler, names ...string) error {
	if len(names) == 0 {
		return configErrorf("names", "is empty: name at least one")
	}
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
	tlsLn, err := listen(ctx, m.conf.ListenHost, m.conf.TLSPort, "Config.TLSPort")
	if err != nil {
		return err
	}
	httpLn, err := listen(ctx, m.conf.ListenHost, m.conf.HTTPPort, "Config.HTTPPort")
	if err != nil {
		return errors.Join(err, tlsLn.Close())
	}
	m.servesHTTP.Store(true)
	m.servesTLS.Store(true)
	defer m.servesHTTP.Store(false)
	defer m.servesTLS.Store(false)
	if len(names) > 0 { // there may be others, managed before
		plans, err := m.checkNames(names)
		if err == nil {
			err = m.add(plans, nil)
		}
		if err != nil {
			return errors.Join(err, tlsLn.Close(), httpLn.Close())
		}
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
	for _, srv := range []*http.Server{plain, https} {
		group.Go(func() error {
			<-ctx.Done()
			shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
			defer cancel()
			return shutDown(shut, srv)
		})
	}
	return group.Wait()
}

// shutDown lets requests in flight end, and ends those that do not in time.
func shutDown(ctx context.Context, srv *http.Server) error {
	err := srv.Shutdown(ctx)
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("requests in flight were cut off: %w", err), srv.Close())
}

func listen(ctx context.Context, host string, port int, field string) (net.Listener, error) {
	if port < 0 {
		return nil, configErrorf(field, "is negative, which says that another server listens; Serve needs a port")
	}
	var conf net.ListenConfig
	ln, err := conf.Listen(ctx, "tcp", listenAddr(host, port))
	if err != nil {
		return nil, &ConfigError{Field: field, Err: listenError(err)}
	}
	return ln, nil
}

// listenError adds to the reason why a port cannot be listened on what to do.
func listenError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: allow the program to (on Linux by CAP_NET_BIND_SERVICE), or listen on a port above 1023 and forward the public one to it", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: stop the other server there, or listen on another port and forward the public one to it", err)
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// handshakeLog takes a server's own log lines, which strangers can cause, at
// debug level.
type handshakeLog struct{ log *slog.Logger }

func (h handshakeLog) Write(p []byte) (int, error) {
	h.log.Debug("server", "line", string(p))
	return len(p), nil
}
