package fakeca

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// reply is an answer before it is sent.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func newReply(status int, contentType string, body []byte) *reply {
	h := make(http.Header)
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return &reply{status, h, body}
}

// ServeHTTP answers a request. Where a rule hangs up it panics with [http.ErrAbortHandler], on
// which net/http drops the connection.
func (c *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := c.serve(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	header := w.Header()
	for key, values := range out.header {
		header[key] = values
	}
	w.WriteHeader(out.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(out.body) // a client that has gone is not the CA's concern
	}
}

// Network returns a round tripper that reaches several CAs, each under the host of its BaseURL, on the
// caller's goroutine. Any other host is answered with a *net.DNSError. It panics when two CAs
// have the same host. Safe for concurrent use.
func Network(cas ...*CA) http.RoundTripper {
	n := make(network, len(cas))
	for _, c := range cas {
		if n[c.host] != nil {
			panic("fakeca: two CAs have the host " + c.host)
		}
		n[c.host] = c
	}
	return n
}

type network map[string]*CA

// RoundTrip implements http.RoundTripper.
func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	c := n[r.URL.Host]
	if c == nil {
		return nil, &net.DNSError{Err: "no such host", Name: r.URL.Hostname(), IsNotFound: true}
	}
	in := r.Clone(r.Context())
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	out, err := c.serve(in)
	if err != nil {
		return nil, err
	}
	if r.Method == http.MethodHead {
		out.body = nil
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", out.status, http.StatusText(out.status)),
		StatusCode:    out.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        out.header,
		Body:          io.NopCloser(bytes.NewReader(out.body)),
		ContentLength: int64(len(out.body)),
		Request:       r,
	}, nil
}

// readBody reads what a request to an ACME CA may at most hold.
func readBody(r *http.Request) ([]byte, error) {
	const limit = 1 << 20
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading request: %w", err)
	}
	if len(body) > limit {
		return nil, errors.New("reading request: too large")
	}
	return body, nil
}
