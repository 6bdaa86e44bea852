package acmeflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/backoff"
)

const (
	// maxBody bounds a reply; the largest honest one is a certificate chain.
	maxBody = 1 << 20

	// requestTimeout ends one request, whatever the HTTP client's own time-out is.
	requestTimeout = 30 * time.Second

	// directoryHost is where acmez asks for the directory.
	directoryHost = "directory.acmeflow.invalid"
)

// errOneRequest ends the context of an operation after its request failed,
// so that acmez does not send it again.
var errOneRequest = errors.New("acmeflow: one request for each call")

// errTooLarge is a reply that is not asked for again: it would be as large.
var errTooLarge = fmt.Errorf("it is larger than %d bytes", maxBody)

type exchangeKey struct{}

// exchange is what one operation sent and got. acmez calls the transport on the
// operation's own goroutine.
type exchange struct {
	cancel context.CancelCauseFunc
	dir    *directory // what acmez is given as the directory

	sent       bool // the operation's own request went out
	url        string
	status     int
	problem    *Problem
	err        error // of the transport
	retryAfter time.Duration
	location   string // absolute
	kind       string // the body's media type
	body       []byte
}

// transport stands between acmez and the network.
type transport struct {
	client *Client
	base   http.RoundTripper
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := req.Context().Value(exchangeKey{}).(*exchange) // a request is made in Client.repeat only
	if req.URL.Host == directoryHost {
		return reply(req, http.Header{}, x.dir.forAcmez), nil
	}
	resp, body, err := roundTrip(t.base, req)
	x.sent = x.sent || req.Method != http.MethodHead
	x.url, x.err = bareURL(req.URL), err
	if resp == nil {
		x.cancel(errOneRequest)
		return nil, err
	}
	now := time.Now() // by the CA's clock, which its dates are of, where it says what that is
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		t.client.skew.Store(int64(date.Sub(now.Truncate(time.Second))))
		now = date
	}
	x.status, x.body = resp.StatusCode, body
	x.kind, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	x.retryAfter, _ = backoff.ParseRetryAfter(resp.Header.Get("Retry-After"), now)
	if x.problem = problemIn(x.status, x.kind, body); x.problem != nil || err != nil {
		x.cancel(errOneRequest)
	}
	if err != nil {
		return nil, err
	}
	if loc, err := req.URL.Parse(resp.Header.Get("Location")); err == nil && resp.Header.Get("Location") != "" {
		x.location = loc.String() // F31: some CAs send a relative one
	}
	if x.status/100 == 3 && req.Method == http.MethodPost {
		resp.Header.Del("Location") // what is signed is for one URL (RFC 8555 §6.4)
	}
	out := reply(req, resp.Header, []byte("{}"))
	out.StatusCode = resp.StatusCode
	return out, nil
}

// reply is an answer for acmez.
func reply(req *http.Request, h http.Header, body []byte) *http.Response {
	h.Set("Content-Type", "application/json")
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}

// roundTrip makes one request and reads its whole reply, bounded in time and
// size, without byte order marks (F31). With an error there may be a beginning of
// the reply: it says what an error is about (F26).
func roundTrip(base http.RoundTripper, req *http.Request) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(req.Context(), requestTimeout, fmt.Errorf("no answer within %v", requestTimeout))
	defer cancel()
	resp, err := base.RoundTrip(req.WithContext(ctx))
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the error that it enters names the URL, without what may be secret in it
	}
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = errTooLarge
	}
	if err != nil {
		err = fmt.Errorf("reading the reply, HTTP %d: %w", resp.StatusCode, err)
	}
	return resp, bytes.ReplaceAll(body, []byte("\ufeff"), nil), err
}

// bareURL is u without what could be secret in it.
func bareURL(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment = nil, "", ""
	return c.String()
}

// ok reports whether the CA accepted the request, whatever acmez made of the reply.
func (x *exchange) ok() bool {
	return x.sent && x.err == nil && x.problem == nil && x.status/100 == 2
}

// page reports whether the answer is one that no CA gives: neither JSON nor PEM,
// such as the page of a portal.
func (x *exchange) page() bool {
	text := bytes.TrimSpace(x.body)
	return len(text) > 0 && !decode(text, new(struct{})) && !bytes.Contains(text, []byte("-----BEGIN "))
}

// transient reports whether the failure may be gone in a moment. A refusal that
// is no problem document is not the CA's: it is a proxy's (F25).
func (x *exchange) transient() bool {
	if x.problem == nil || errors.Is(x.err, errTooLarge) {
		return x.err != nil && !errors.Is(x.err, errTooLarge)
	}
	return x.retryAfter == 0 && (x.problem.Status >= 500 || !x.problem.document && !x.problem.is(rateLimited))
}

// error makes an [Error] of a failed exchange. cause is acmez's error.
func (x *exchange) error(step Step, cause error) error {
	e := &Error{Step: step, URL: x.url, Problem: x.problem, Err: x.err}
	switch {
	case x.problem != nil:
		e.RetryAfter = x.retryAfter
		if (x.problem.is(rateLimited) || x.problem.Status == 429) && Paused(x.problem.Detail, x.problem.Instance) {
			e.RetryAfter = max(e.RetryAfter, PausedFor)
		}
	case x.err != nil:
	case x.ok():
		e.Err = fmt.Errorf("it is not a CA that answered: %s", x.firstBytes())
	case !errors.Is(cause, errOneRequest):
		e.Err = cause
		if u, ok := errors.AsType[*url.Error](cause); ok { // its text has the whole URL
			e.Err = fmt.Errorf("%s: %w", strings.ToLower(u.Op), u.Err)
		}
	}
	return e
}

// firstBytes shows how a reply begins.
func (x *exchange) firstBytes() string {
	return fmt.Sprintf("HTTP %d with %q that begins with %q", x.status, x.kind, printable(x.body, 200))
}
