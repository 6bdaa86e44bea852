package acmeflow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"sync"
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
	Logger     *slog.Logger   // nil: no log
}

// Client talks to one CA with one account. It is safe for concurrent use.
type Client struct {
	opts Options
	http *http.Client
	log  *slog.Logger

	mu       sync.Mutex // guards the fields below
	dir      *directory
	dirUntil time.Time    // dir is taken as current
	api      *acme.Client // its nonces are thrown away with it
	apiUsed  time.Time
	account  *acme.Account
	skew     time.Duration

	dirMu  chanMutex // held while the directory is fetched
	acctMu chanMutex // held while the account is made or repaired; before mu
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
	c := &Client{opts: o, log: o.Logger, dirMu: make(chanMutex, 1), acctMu: make(chanMutex, 1)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.http = new(http.Client)
	if o.HTTPClient != nil {
		*c.http = *o.HTTPClient
	}
	base := c.http.Transport
	if base == nil {
		base = http.DefaultTransport
		if t, ok := base.(*http.Transport); ok {
			t = t.Clone()
			if o.RootCAs != nil {
				t.TLSClientConfig = &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
			}
			base = t
		}
	}
	c.http.Transport = &transport{client: c, base: base}
	return c
}

// Close closes idle connections when they are the Client's own.
func (c *Client) Close() {
	if c.opts.HTTPClient == nil || c.opts.HTTPClient.Transport == nil {
		if t, ok := c.base().(*http.Transport); ok && c.base() != http.DefaultTransport {
			t.CloseIdleConnections()
		}
	}
}

func (c *Client) base() http.RoundTripper { return c.http.Transport.(*transport).base }

// Skew is how far the CA's clock was ahead of ours at its last reply.
func (c *Client) Skew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew
}

func (c *Client) noteDate(date string, now time.Time) {
	t, err := http.ParseTime(date)
	if err != nil {
		return
	}
	skew := t.Sub(now.Truncate(time.Second))
	c.mu.Lock()
	c.skew = skew
	c.mu.Unlock()
}

// nonceIdle is after how long without a request pooled nonces are dropped: a
// CA forgets them, or a request reaches another of its sites.
const nonceIdle = 10 * time.Minute

// acmez returns the protocol client for dir, with only fresh nonces in it.
func (c *Client) acmez(dir *directory) *acme.Client {
	if dir == nil {
		return nil
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api == nil || c.api.Directory != dir.syntheticURL || now.Sub(c.apiUsed) > nonceIdle {
		c.api = &acme.Client{
			Directory:  dir.syntheticURL,
			HTTPClient: c.http,
			UserAgent:  c.opts.UserAgent,
		}
	}
	c.apiUsed = now
	return c.api
}

// again tells how a call is repeated after its request failed.
type again int

const (
	idempotent again = iota // sent again after a lost reply or a 5xx
	askFirst                // never sent again: the caller looks at what the CA made of it
)

const (
	maxNonceTries = 100 // each costs one round trip; at 90 % refused, one request in 37,000 fails
	maxTries      = 3   // of an idempotent request after lost replies and 5xx
	retryPause    = 250 * time.Millisecond
)

// operation is one acmez call.
type operation func(ctx context.Context, api *acme.Client) error

// call runs op until the CA gave an answer to it, and returns what it said. op
// must be callable several times.
func (c *Client) call(ctx context.Context, step Step, mode again, op operation) (*exchange, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return nil, err
	}
	return c.repeat(ctx, step, mode, dir, op)
}

// get fetches a public JSON document.
func (c *Client) get(ctx context.Context, step Step, rawURL string) (*exchange, error) {
	return c.repeat(ctx, step, idempotent, nil, func(ctx context.Context, _ *acme.Client) error {
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

// repeat runs op until there was an answer.
func (c *Client) repeat(ctx context.Context, step Step, mode again, dir *directory, op operation) (*exchange, error) {
	for tries, nonces := 1, 1; ; {
		if ctx.Err() != nil {
			return nil, &Error{Step: step, Err: context.Cause(ctx)}
		}
		x, err := c.once(ctx, dir, op)
		if x.ok() && (dir == nil || !x.page()) {
			return x, nil
		}
		if ctx.Err() != nil {
			return x, &Error{Step: step, URL: x.url, Err: context.Cause(ctx)}
		}
		var pause time.Duration
		switch {
		case x.problem.is(badNonce) && nonces < maxNonceTries:
			pause = noncePause(nonces)
			nonces++
		case x.transient() && (mode == idempotent || !x.sent) && tries < maxTries:
			pause = retryPause * time.Duration(tries*tries)
			tries++
		default:
			return x, x.error(step, err)
		}
		c.log.DebugContext(ctx, "asking the CA again", "step", string(step), "url", x.url, "status", x.status, "err", x.error(step, err))
		if !sleep(ctx, pause) {
			return x, &Error{Step: step, URL: x.url, Err: context.Cause(ctx)}
		}
	}
}

// noncePause is the wait before the n-th try with another nonce: none at
// first, since the refusal brought a fresh one.
func noncePause(n int) time.Duration {
	if n <= 2 {
		return 0
	}
	return min(time.Duration(n)*5*time.Millisecond, 100*time.Millisecond)
}

// once runs op on a context that ends with its first failed request. What acmez
// makes of the reply counts only when there was none.
func (c *Client) once(ctx context.Context, dir *directory, op operation) (*exchange, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x := &exchange{cancel: cancel, dir: dir}
	err := op(context.WithValue(ctx, exchangeKey{}, x), c.acmez(dir))
	return x, err
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
