package acmeflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/backoff"
)

const (
	// maxBody bounds a reply; the largest honest one is a certificate chain.
	maxBody = 1 << 20

	// requestTimeout ends one request whose HTTP client has no time-out of its own.
	requestTimeout = 30 * time.Second

	// directoryHost is where acmez asks for the directory. The transport
	// answers it from what this package fetched, so that acmez, which locks
	// and keeps directories for the whole process, never goes to the network
	// under that lock and never sees another client's directory.
	directoryHost = "directory.acmeflow.invalid"
)

// errOneRequest ends the context of an operation after its request failed,
// so that acmez does not send it again.
var errOneRequest = errors.New("acmeflow: one request for each call")

// errTooLarge is a reply that is not asked for again: it would be as large.
var errTooLarge = fmt.Errorf("it is larger than %d bytes", maxBody)

type exchangeKey struct{}

// exchange records what one operation sent and got. acmez returns neither
// headers nor the replies to failed requests.
type exchange struct {
	cancel context.CancelCauseFunc
	dir    *directory // what acmez is given as the directory

	mu         sync.Mutex // guards the fields below
	posted     bool       // the operation's own request went out
	url        string
	status     int
	problem    *Problem
	err        error // of the transport
	retryAfter time.Duration
	chain      []byte // PEM, when the reply was a certificate chain
}

func (x *exchange) fail(err error, p *Problem) {
	x.mu.Lock()
	x.err, x.problem = err, p
	x.mu.Unlock()
	x.cancel(errOneRequest)
}

// transport stands between acmez and the network.
type transport struct {
	client *Client
	base   http.RoundTripper
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if x == nil {
		return nil, fmt.Errorf("acmeflow: request to %s outside a call", bareURL(req.URL))
	}
	if req.URL.Host == directoryHost {
		return x.dir.reply(req), nil
	}
	resp, body, err := roundTrip(t.base, req)
	x.mu.Lock()
	x.posted = x.posted || req.Method == http.MethodPost
	x.url = bareURL(req.URL)
	x.mu.Unlock()
	if err != nil {
		x.fail(err, nil)
		return nil, err
	}
	now := time.Now()
	t.client.noteDate(resp.Header.Get("Date"), now)
	x.mu.Lock()
	x.status = resp.StatusCode
	x.retryAfter, _ = backoff.ParseRetryAfter(resp.Header.Get("Retry-After"), now)
	x.mu.Unlock()
	switch {
	case resp.StatusCode >= 400:
		x.fail(nil, parseProblem(resp.StatusCode, body))
	case req.Method == http.MethodPost:
		body = t.clean(x, resp, body)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	return resp, nil
}

// roundTrip makes one request and reads its whole reply, bounded in time and size.
func roundTrip(base http.RoundTripper, req *http.Request) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
	defer cancel()
	resp, err := base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the URL is named once
		}
		return nil, nil, fmt.Errorf("asking %s: %w", bareURL(req.URL), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the reply of %s: %w", bareURL(req.URL), err)
	}
	if len(body) > maxBody {
		return nil, nil, fmt.Errorf("reading the reply of %s: %w", bareURL(req.URL), errTooLarge)
	}
	return resp, body, nil
}

// bareURL is u without what could be secret in it.
func bareURL(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment = nil, "", ""
	return c.String()
}

// clean makes a reply fit for acmez's strict decoder and gives it the content
// type that its body shows. A chain is kept in x, and acmez gets an object
// without members in its place.
func (t *transport) clean(x *exchange, resp *http.Response, body []byte) []byte {
	trimmed := bytes.TrimSpace(body)
	switch {
	case bytes.HasPrefix(trimmed, []byte("{")):
		resp.Header.Set("Content-Type", "application/json")
		body = cleanObject(trimmed)
	case bytes.Contains(trimmed, []byte("-----BEGIN CERTIFICATE-----")):
		x.mu.Lock()
		x.chain = body
		x.mu.Unlock()
		resp.Header.Set("Content-Type", "application/json")
		return []byte("{}")
	}
	return body
}
