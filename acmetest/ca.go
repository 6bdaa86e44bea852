package acmetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/letsencrypt/pebble/v2/wfe"
)

// TB is what Start needs of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// CA is a running certificate authority with its own DNS server. New makes it;
// the zero value is of no use. All methods are safe for concurrent use.
type CA struct {
	options Options // with the ports set
	lines   *lineWriter
	dns     *dnsServer
	api     *apiCert
	server  *server
	client  *http.Client
	counts  counts
	backend atomic.Pointer[backend]

	closing  sync.Once
	closed   atomic.Bool
	closeErr error // set by closing
}

// Start starts a CA with the zero Options and closes it when the test ends. Any
// error ends the test.
func Start(tb TB) *CA {
	tb.Helper()
	return StartWith(tb, Options{})
}

// StartWith starts a CA and closes it when the test ends. Any error ends the
// test.
func StartWith(tb TB, o Options) *CA {
	tb.Helper()
	c, err := New(o)
	if err != nil {
		tb.Fatalf("starting a test CA: %v", err)
		return nil
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Fatalf("closing the test CA: %v", err)
		}
	})
	return c
}

// New starts a CA, which runs until Close. The error says which option is wrong,
// or why it cannot listen.
func New(o Options) (*CA, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &CA{options: o, lines: &lineWriter{log: o.Log}}
	c.options.Blocklist = slices.Clone(o.Blocklist)
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// start does New's work. Close undoes what it did before an error.
func (c *CA) start() error {
	var err error
	if c.options.HTTPPort == 0 {
		if c.options.HTTPPort, err = freePort(c.options.TLSPort); err != nil {
			return err
		}
	}
	if c.options.TLSPort == 0 {
		if c.options.TLSPort, err = freePort(c.options.HTTPPort); err != nil {
			return err
		}
	}
	if c.dns, err = startDNS(c.options.Records); err != nil {
		return err
	}
	if err := c.Restart(); err != nil {
		return err
	}
	addr := c.options.ListenAddr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("checking option \"ListenAddr\": %w", err)
	}
	if c.api, err = newAPICert(host); err != nil {
		return err
	}
	if c.server, err = startServer(addr, c.api.cert, c.handler(), log.New(c.lines, "http: ", 0)); err != nil {
		return err
	}
	c.client = &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: c.APIRoots()},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
	}}
	return nil
}

// handler returns the handler of the API, which outlives a Restart.
func (c *CA) handler() http.Handler {
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.backend.Load().ServeHTTP(w, r)
	})
	if c.options.Middleware != nil {
		h = c.options.Middleware(h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.counts.request(Kind(r))
		h.ServeHTTP(w, r)
	})
}

// Close stops the CA: it closes all connections, its client's too, and waits for
// the requests under way, whose contexts end. The error says that one did not
// end. Another call returns the same error. The package documentation says
// which goroutines of Pebble stay.
func (c *CA) Close() error {
	c.closing.Do(func() {
		c.closed.Store(true)
		var errs []error
		if c.server != nil {
			errs = append(errs, c.server.close())
		}
		if c.dns != nil {
			errs = append(errs, c.dns.close())
		}
		if c.client != nil {
			c.client.CloseIdleConnections()
		}
		c.lines.stop()
		c.closeErr = errors.Join(errs...)
	})
	return c.closeErr
}

// Restart forgets everything: accounts, orders, certificates, nonces, renewal
// information, and the roots, which are made anew. The API keeps its address,
// directory URL and certificate; DNS records and counts stay too. A request
// under way ends with the old state. It fails once the CA is closed.
func (c *CA) Restart() error {
	if c.closed.Load() {
		return errors.New("restarting the CA: it is closed")
	}
	b, err := newBackend(c.options, c.dns.addr, c.lines)
	if err != nil {
		return err
	}
	b.counts = &c.counts
	c.backend.Store(b)
	return nil
}

// Directory returns the directory URL (RFC 8555 section 7.1.1).
func (c *CA) Directory() string { return "https://" + c.server.addr + wfe.DirectoryPath }

// Client returns an HTTP client that trusts the API server's certificate. It is
// the same at each call, and Close closes its idle connections.
func (c *CA) Client() *http.Client { return c.client }

// APIRoots returns a new pool with the root of the API server's certificate,
// which is no root of the issued ones.
func (c *CA) APIRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.api.root)
	return pool
}

// APIRootPEM returns the root of APIRoots in PEM. The slice belongs to the
// caller.
func (c *CA) APIRootPEM() []byte { return slices.Clone(c.api.rootPEM) }

// HTTPPort returns the port on which the validator expects http-01 answers.
func (c *CA) HTTPPort() int { return c.options.HTTPPort }

// TLSPort returns the port on which the validator expects tls-alpn-01 answers.
func (c *CA) TLSPort() int { return c.options.TLSPort }

// DNSAddr returns host and port of the DNS server, the same for UDP and TCP.
func (c *CA) DNSAddr() string { return c.dns.addr }

// Resolver returns a resolver that asks the CA's DNS server only.
func (c *CA) Resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, c.dns.addr)
		},
	}
}
