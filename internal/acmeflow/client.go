package acmeflow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Options configure a [Client].
type Options struct {
	Directory  string         // the CA's directory URL
	HTTPClient *http.Client   // nil, or without a Transport: the Client has connections of its own
	RootCAs    *x509.CertPool // verify the CA's server over connections of the Client's own; nil: the system's
	UserAgent  string         // sent with every request
	Contact    []string       // "mailto:" URLs for the account
	EAB        *EAB           // nil: no external account binding
	Accounts   AccountStore   // keeps the account; required
	Logger     *slog.Logger   // required
}

// Client talks to one CA with one account. It is safe for concurrent use.
type Client struct {
	opts Options
	http *http.Client
	own  *http.Transport // nil: the connections are not the Client's own
	log  *slog.Logger
	skew atomic.Int64 // nanoseconds

	acctMu  chanMutex // guards account; held while it is made or repaired; before dirMu
	account *account

	dirMu    chanMutex // guards dir and dirUntil; held while the directory is fetched
	dir      *directory
	dirUntil time.Time // dir is taken as current

	mu      sync.Mutex   // guards the fields below
	api     *acme.Client // its nonces are thrown away with it
	apiUsed time.Time
}

// chanMutex is a mutex whose waiter can leave.
type chanMutex chan struct{}

// lock takes m and returns a context for what is done under it: there nobody
// gives its turn to others, who may be waiting for m.
func (m chanMutex) lock(ctx context.Context) (context.Context, error) {
	select {
	case m <- struct{}{}:
		return context.WithValue(ctx, sleepKey{}, nil), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m chanMutex) unlock() { <-m }

// New returns a Client; it makes no request.
func New(o Options) *Client {
	c := &Client{opts: o, http: new(http.Client), log: o.Logger, dirMu: make(chanMutex, 1), acctMu: make(chanMutex, 1)}
	if o.HTTPClient != nil {
		*c.http = *o.HTTPClient
	}
	base := c.http.Transport
	if base == nil {
		base = http.DefaultTransport
		if t, ok := base.(*http.Transport); ok {
			c.own = t.Clone()
			if proxy := c.own.Proxy; proxy != nil {
				c.own.Proxy = func(req *http.Request) (*url.URL, error) {
					u, err := proxy(req)
					if err != nil { // its text has the whole URL, with a password
						err = errors.New("the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY) is not a URL")
					}
					return u, err
				}
			}
			if o.RootCAs != nil {
				c.own.TLSClientConfig = &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
			}
			base = c.own
		}
	}
	c.http.Transport = &transport{client: c, base: base}
	return c
}

// Close closes idle connections when they are the Client's own.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Skew is how far the CA's clock was ahead of ours at its last reply.
func (c *Client) Skew() time.Duration { return time.Duration(c.skew.Load()) }

const (
	maxNonceTries = 100 // each costs one round trip; at 90 % refused, one request in 37,000 fails
	maxTries      = 3   // of a request after lost replies and 5xx
	retryPause    = 250 * time.Millisecond
)

// call runs op, which makes one acmez call, until the CA gave an answer to it,
// and returns what it said. A finalize request is not sent again after a lost
// reply or a 5xx: the caller looks at what the CA made of it. The exchange is
// never nil.
func (c *Client) call(ctx context.Context, step Step, op func(ctx context.Context, api *acme.Client) error) (*exchange, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return new(exchange), err
	}
	return c.repeat(ctx, step, dir, func(ctx context.Context) error { return op(ctx, c.acmez(dir)) })
}

// nonceIdle is after how long without a call pooled nonces are dropped: a CA
// forgets them, or a request reaches another of its sites.
const nonceIdle = 10 * time.Minute

// acmez returns the protocol client for dir, with only fresh nonces in it.
func (c *Client) acmez(dir *directory) *acme.Client {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api == nil || c.api.Directory != dir.syntheticURL || now.Sub(c.apiUsed) > nonceIdle {
		c.api = &acme.Client{Directory: dir.syntheticURL, HTTPClient: c.http, UserAgent: c.opts.UserAgent}
	}
	c.apiUsed = now
	return c.api
}

// get fetches a public JSON document.
func (c *Client) get(ctx context.Context, step Step, rawURL string) (*exchange, error) {
	return c.repeat(ctx, step, nil, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
		if err != nil {
			return errors.New("making a request: the URL is not one")
		}
		req.Header.Set("User-Agent", c.opts.UserAgent)
		resp, err := c.http.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

// repeat runs op until there was an answer, each time on a context that ends
// with its first failed request. What acmez makes of a reply counts only when
// there was none. dir is nil for what is not acmez's.
func (c *Client) repeat(ctx context.Context, step Step, dir *directory, op func(ctx context.Context) error) (*exchange, error) {
	x := new(exchange)
	for tries, nonces := 1, 1; ctx.Err() == nil; {
		once, cancel := context.WithCancelCause(ctx)
		x = &exchange{cancel: cancel, dir: dir}
		err := op(context.WithValue(once, exchangeKey{}, x))
		cancel(nil)
		if x.err == nil && x.status/100 == 3 { // nowhere to follow it to
			x.problem = parseProblem(x.status, x.kind, x.body)
		}
		if x.ok() && (dir == nil || !x.page()) {
			return x, nil
		}
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			continue
		case x.problem.is(badNonce) && nonces < maxNonceTries:
			if nonces > 2 { // at first there is none, since the refusal brought a fresh one
				pause = min(time.Duration(nonces)*5*time.Millisecond, 100*time.Millisecond)
			}
			nonces++
		case x.transient() && (step != StepFinalize || !x.sent) && tries < maxTries:
			pause = retryPause * time.Duration(tries*tries)
			tries++
		default:
			return x, x.error(step, err)
		}
		c.log.DebugContext(ctx, "asking the CA again", "step", string(step), "url", x.url, "status", x.status, "err", x.error(step, err))
		if !sleep(ctx, pause) {
			break
		}
	}
	return x, &Error{Step: step, URL: x.url, Err: context.Cause(ctx)}
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err() == nil
	}
	if other, ok := ctx.Value(sleepKey{}).(func(context.Context, time.Duration) error); ok {
		return other(ctx, d) == nil && ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleepKey is the context's key of [Request.Sleep].
type sleepKey struct{}
