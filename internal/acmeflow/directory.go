package acmeflow

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	directoryAge   = 12 * time.Hour  // for how long a directory is taken as current
	directoryGrace = 5 * time.Minute // for how much longer after it could not be had anew
)

// directory is a CA's directory (RFC 8555 §7.1.1). It is not changed after it
// was made.
type directory struct {
	acme.Directory        // Meta is not nil
	renewalInfo    string // not in Directory, so that acmez does not know of it
	fetched        time.Time

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
	return Meta{
		TermsOfService: dir.Meta.TermsOfService, Profiles: dir.Meta.Profiles,
		EABRequired: dir.Meta.ExternalAccountRequired, RenewalInfo: dir.renewalInfo != "",
	}, nil
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
	x, header, err := c.get(ctx, StepDirectory, c.opts.Directory)
	if err != nil {
		return nil, err
	}
	dir := &directory{fetched: time.Now()}
	fail := func(format string, args ...any) error {
		return &Error{Step: StepDirectory, URL: x.url, Err: fmt.Errorf(format, args...)}
	}
	obj := parseObject(x.body)
	if obj == nil {
		kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
		return nil, fail("not an ACME directory: the server answered %q that begins with %s; check the directory URL", kind, firstBytes(x.body))
	}
	for _, f := range []struct {
		name string
		url  *string
	}{{"newNonce", &dir.NewNonce}, {"newAccount", &dir.NewAccount}, {"newOrder", &dir.NewOrder}} {
		if set(f.url, obj, f.name); *f.url == "" {
			return nil, fail("not an ACME directory: the field %q is missing; check the directory URL", f.name)
		}
	}
	set(&dir.renewalInfo, obj, "renewalInfo")
	dir.readMeta(obj)
	dir.forAcmez, err = json.Marshal(dir.Directory)
	if err != nil {
		return nil, fail("encoding the directory: %w", err)
	}
	dir.syntheticURL = fmt.Sprintf("https://%s/%x", directoryHost, sha256.Sum256(dir.forAcmez))
	return dir, nil
}

// readMeta reads the optional description of the CA.
func (dir *directory) readMeta(obj object) {
	var meta, profiles object
	set(&meta, obj, "meta")
	dir.Meta = &acme.DirectoryMeta{Profiles: map[string]string{}}
	set(&dir.Meta.TermsOfService, meta, "termsOfService")
	set(&dir.Meta.ExternalAccountRequired, meta, "externalAccountRequired")
	set(&profiles, meta, "profiles")
	for name := range profiles {
		var text string // stays empty when the description is no text
		set(&text, profiles, name)
		dir.Meta.Profiles[name] = text
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
