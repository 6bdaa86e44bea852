package acmeflow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/mholt/acmez/v3/acme"
)

const (
	directoryAge   = 12 * time.Hour  // for how long a directory is taken as current
	directoryGrace = 5 * time.Minute // for how much longer after it could not be had anew
)

// directory is a CA's directory (RFC 8555 §7.1.1). It is not changed after it
// was made.
type directory struct {
	acme.Directory
	fetched time.Time

	forAcmez     []byte // what acmez is given
	syntheticURL string // where acmez asks for it; names its content
}

// Meta describes a CA.
type Meta struct {
	TermsOfService string
	Profiles       map[string]string // description by profile
	EABRequired    bool
	RenewalInfo    bool // the CA has ARI (RFC 9773)
}

// Meta returns what the CA's directory says about it.
func (c *Client) Meta(ctx context.Context) (Meta, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Meta{}, err
	}
	m := Meta{RenewalInfo: dir.RenewalInfo != ""}
	if dir.Meta != nil {
		m.TermsOfService, m.Profiles, m.EABRequired = dir.Meta.TermsOfService, dir.Meta.Profiles, dir.Meta.ExternalAccountRequired
	}
	return m, nil
}

// directory returns the CA's directory, fetched at most once at a time. An old
// one is used on when a new one cannot be had.
func (c *Client) directory(ctx context.Context) (*directory, error) {
	if dir := c.freshDirectory(); dir != nil {
		return dir, nil
	}
	if err := c.dirMu.lock(ctx); err != nil {
		return nil, &Error{Step: StepDirectory, Err: err}
	}
	defer c.dirMu.unlock()
	if dir := c.freshDirectory(); dir != nil {
		return dir, nil
	}
	dir, err := c.fetchDirectory(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.dir != nil && ctx.Err() == nil {
			old := *c.dir
			old.fetched = time.Now().Add(directoryGrace - directoryAge)
			c.dir = &old
			return c.dir, nil
		}
		return nil, err
	}
	c.dir = dir
	return dir, nil
}

func (c *Client) freshDirectory() *directory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != nil && time.Since(c.dir.fetched) < directoryAge {
		return c.dir
	}
	return nil
}

func (c *Client) fetchDirectory(ctx context.Context) (*directory, error) {
	resp, body, err := c.get(ctx, StepDirectory, c.opts.Directory)
	if err != nil {
		return nil, err
	}
	dir := &directory{fetched: time.Now()}
	fail := func(format string, args ...any) error {
		return &Error{Step: StepDirectory, URL: bareURL(resp.Request.URL), Err: fmt.Errorf(format, args...)}
	}
	if err := json.Unmarshal(cleanDirectory(body), &dir.Directory); err != nil {
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		return nil, fail("not an ACME directory: the server answered %q that begins with %q; check the directory URL", kind, firstBytes(body))
	}
	for _, f := range []struct{ name, url string }{
		{"newNonce", dir.NewNonce}, {"newAccount", dir.NewAccount}, {"newOrder", dir.NewOrder},
	} {
		if f.url == "" {
			return nil, fail("not an ACME directory: the field %q is missing; check the directory URL", f.name)
		}
	}
	given := dir.Directory
	given.RenewalInfo = "" // else acmez fetches it with every chain
	dir.forAcmez, err = json.Marshal(given)
	if err != nil {
		return nil, fail("encoding the directory: %w", err)
	}
	dir.syntheticURL = fmt.Sprintf("https://%s/%x", directoryHost, sha256.Sum256(dir.forAcmez))
	return dir, nil
}

// reply answers acmez's request for the directory without a network.
func (dir *directory) reply(req *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(dir.forAcmez)),
		ContentLength: int64(len(dir.forAcmez)),
		Request:       req,
	}
}

// forgetDirectory makes the next call fetch the directory anew.
func (c *Client) forgetDirectory() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != nil {
		old := *c.dir
		old.fetched = time.Time{}
		c.dir = &old
	}
}

func firstBytes(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) > 40 {
		b = b[:40]
	}
	return string(bytes.ToValidUTF8(b, []byte("?")))
}

func retryAfterOf(resp *http.Response) time.Duration {
	d, _ := backoff.ParseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	return d
}
