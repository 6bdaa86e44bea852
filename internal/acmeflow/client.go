package acmeflow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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

	mu      sync.Mutex // guards the fields below
	dir     *directory
	api     *acme.Client // its nonces are thrown away with it
	apiUsed time.Time
	account *account
	skew    time.Duration

	dirMu  chanMutex // held while the directory is fetched
	acctMu chanMutex // held while the account is made or repaired; before mu
}

// chanMutex is a mutex whose waiter can leave.
type chanMutex chan struct{}

func (m chanMutex) lock(ctx context.Context) error {
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
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
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api == nil || c.api.Directory != dir.syntheticURL || now.Sub(c.apiUsed) > nonceIdle {
		c.api = &acme.Client{
			Directory:  dir.syntheticURL,
			HTTPClient: c.http,
			UserAgent:  c.opts.UserAgent,
			// A negative time-out makes FinalizeOrder return after its one
			// request: polling is this package's own.
			PollTimeout: -1,
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

// call runs op until the CA gave an answer to it, and returns what it said
// beside the decoded reply. op must be callable several times.
func (c *Client) call(ctx context.Context, step Step, mode again, op operation) (*exchange, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return nil, err
	}
	for tries, nonces := 1, 1; ; {
		if ctx.Err() != nil {
			return nil, &Error{Step: step, Err: context.Cause(ctx)}
		}
		x, err := c.once(ctx, dir, op)
		if err == nil {
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
		case x.transient() && (mode == idempotent || !x.posted) && tries < maxTries:
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

// once runs op on a context that ends with its first failed request.
func (c *Client) once(ctx context.Context, dir *directory, op operation) (*exchange, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x := &exchange{cancel: cancel, dir: dir}
	err := op(context.WithValue(ctx, exchangeKey{}, x), c.acmez(dir))
	x.mu.Lock()
	defer x.mu.Unlock()
	return &exchange{posted: x.posted, url: x.url, status: x.status, problem: x.problem, err: x.err, retryAfter: x.retryAfter, chain: x.chain}, err
}

// ok reports whether the CA accepted the request, whatever acmez made of the reply.
func (x *exchange) ok() bool {
	return x.posted && x.err == nil && x.problem == nil && x.status/100 == 2
}

// transient reports whether the failure may be gone in a moment.
func (x *exchange) transient() bool {
	if x.problem == nil {
		return x.err != nil && !errors.Is(x.err, errTooLarge)
	}
	return x.problem.Status >= 500 && x.retryAfter == 0
}

// error makes an [Error] of a failed exchange. cause is acmez's error.
func (x *exchange) error(step Step, cause error) error {
	e := &Error{Step: step, URL: x.url, Problem: x.problem, Err: x.err}
	if x.problem != nil {
		e.RetryAfter = x.retryAfter
		if x.problem.paused() {
			e.RetryAfter = max(e.RetryAfter, PausedFor)
		}
	}
	if e.Problem == nil && e.Err == nil && !errors.Is(cause, errOneRequest) {
		e.Err = cause
	}
	return e
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

// sleepKey is the context's key of [Request.Sleep]: what an issue waits for in
// the account, the directory and a call is waited for as the caller wants it.
type sleepKey struct{}

// get fetches a public JSON document, trying again after lost replies and 5xx.
func (c *Client) get(ctx context.Context, step Step, rawURL string) (*http.Response, []byte, error) {
	for tries := 1; ; tries++ {
		resp, body, err := c.getOnce(ctx, rawURL)
		var e error
		switch {
		case ctx.Err() != nil:
			return nil, nil, &Error{Step: step, Err: context.Cause(ctx)}
		case err != nil:
			e = &Error{Step: step, Err: err}
		case resp.StatusCode >= 400:
			x := exchange{url: bareURL(resp.Request.URL), problem: parseProblem(resp.StatusCode, body)}
			x.retryAfter = retryAfterOf(resp)
			e = x.error(step, nil)
			if resp.StatusCode < 500 || x.retryAfter > 0 {
				return nil, nil, e
			}
		default:
			return resp, body, nil
		}
		if tries == maxTries || errors.Is(err, errTooLarge) || !sleep(ctx, retryPause*time.Duration(tries*tries)) {
			return nil, nil, e
		}
	}
}

func (c *Client) getOnce(ctx context.Context, url string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("making a request: %w", err)
	}
	if c.opts.UserAgent != "" {
		req.Header.Set("User-Agent", c.opts.UserAgent)
	}
	resp, body, err := roundTrip(plainRoundTripper{c}, req)
	if err != nil {
		return nil, nil, err
	}
	c.noteDate(resp.Header.Get("Date"), time.Now())
	if resp.Request == nil {
		resp.Request = req
	}
	return resp, body, nil
}

// plainRoundTripper follows redirects and bypasses the transport that acmez uses.
type plainRoundTripper struct{ c *Client }

func (p plainRoundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	hc := *p.c.http
	hc.Transport = p.c.base()
	return hc.Do(req)
}

// Request is one certificate to be issued.
type Request struct {
	Names     []string  // normalised names, as the order's identifiers
	CSR       []byte    // DER
	Profile   string    // empty: the CA chooses
	NotBefore time.Time // zero: the CA chooses
	NotAfter  time.Time // zero: the CA chooses

	// Replaces is the certificate that this one renews, or nil. It is named to
	// the CA (RFC 9773 §5) when ReplacesAccount is the account used now.
	Replaces        *x509.Certificate
	ReplacesAccount string

	Solvers map[string]Solver // by challenge type
	Prefer  []string          // challenge types in the order they are tried; those not named come last

	State []byte                                    // what Save was last given for this request, or nil
	Save  func(ctx context.Context, b []byte) error // called before the CA acts; nil: nothing is kept

	Progress func(step, detail string)                        // what is done now, and the CA's words about it; nil: nobody listens
	Sleep    func(ctx context.Context, d time.Duration) error // every pause goes through it; nil: a timer
}

// Result is an issued certificate.
type Result struct {
	ChainPEM  []byte
	URL       string   // of the certificate
	Account   string   // account URL
	Directory string   // directory URL
	Failed    []string // challenge types that failed on the way
	Solved    []string // challenge types that succeeded
}

// Solver makes a challenge's response reachable for the CA.
type Solver interface {
	Present(ctx context.Context, ch Challenge) error
	CleanUp(ctx context.Context, ch Challenge) error
}

// Challenge is what a Solver presents.
type Challenge struct {
	Type             string
	Identifier       string // DNS name or IP address, without "*."
	IdentifierType   string // "dns" or "ip"
	Wildcard         bool   // the authorization is for the name's wildcard
	Token            string
	KeyAuthorization string
	Account          string   // account URL
	IssuerDomains    []string // dns-persist-01 only
}
