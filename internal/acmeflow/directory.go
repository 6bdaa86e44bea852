package acmeflow

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
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
	acme.Directory
	renewalInfo string // not in Directory, so that acmez does not know of it

	forAcmez     []byte // what acmez is given
	syntheticURL string // where acmez asks for it; names its content
}

// directory returns the CA's directory, fetched at most once at a time. An old
// one is used on when a new one cannot be had.
func (c *Client) directory(ctx context.Context) (*directory, error) {
	if dir := c.freshDirectory(); dir != nil {
		return dir, nil
	}
	ctx, err := c.dirMu.lock(ctx)
	if err != nil {
		return nil, &Error{Step: StepDirectory, Err: err}
	}
	defer c.dirMu.unlock()
	if dir := c.freshDirectory(); dir != nil {
		return dir, nil
	}
	dir, err := c.fetchDirectory(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.dir, c.dirUntil = dir, time.Now().Add(directoryAge)
	case c.dir != nil && ctx.Err() == nil:
		c.dirUntil = time.Now().Add(directoryGrace)
	default:
		return nil, err
	}
	return c.dir, nil
}

func (c *Client) freshDirectory() *directory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().Before(c.dirUntil) {
		return c.dir
	}
	return nil
}

func (c *Client) fetchDirectory(ctx context.Context) (*directory, error) {
	x, err := c.get(ctx, StepDirectory, c.opts.Directory)
	if err != nil {
		return nil, err
	}
	dir := &directory{}
	fail := func(format string, args ...any) error {
		return &Error{Step: StepDirectory, URL: x.url, Err: fmt.Errorf(format, args...)}
	}
	obj := parseObject(x.body)
	if obj == nil {
		return nil, fail("not an ACME directory: the server answered %s; check the directory URL", x.firstBytes())
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
	dir.Meta = &acme.DirectoryMeta{Profiles: profiles(obj)}
	dir.forAcmez, err = json.Marshal(dir.Directory)
	if err != nil {
		return nil, fail("encoding the directory: %w", err)
	}
	dir.syntheticURL = fmt.Sprintf("https://%s/%x", directoryHost, sha256.Sum256(dir.forAcmez))
	return dir, nil
}

// profiles reads the profiles that the CA offers, which acmez compares with the
// one that is asked for.
func profiles(obj object) map[string]string {
	var meta, offered object
	set(&meta, obj, "meta")
	set(&offered, meta, "profiles")
	all := make(map[string]string, len(offered))
	for name := range offered {
		all[name] = "" // the description is for people
	}
	return all
}

// forgetDirectory makes the next call fetch the directory anew.
func (c *Client) forgetDirectory() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirUntil = time.Time{}
}
