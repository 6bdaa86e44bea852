package acmeflow

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
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
	forAcmez     []byte // what acmez is given
	syntheticURL string // where acmez asks for it; names its content
}

// directory returns the CA's directory, fetched at most once at a time. An old
// one is used on when a new one cannot be had.
func (c *Client) directory(ctx context.Context) (*directory, error) {
	ctx, err := c.dirMu.lock(ctx)
	if err != nil {
		return nil, &Error{Step: StepDirectory, Err: err}
	}
	defer c.dirMu.unlock()
	if now := time.Now(); !now.Before(c.dirUntil) {
		dir, err := c.fetchDirectory(ctx)
		switch {
		case err == nil:
			c.dir, c.dirUntil = dir, now.Add(directoryAge)
		case c.dir != nil && ctx.Err() == nil:
			c.dirUntil = now.Add(directoryGrace)
		default:
			return nil, err
		}
	}
	return c.dir, nil
}

func (c *Client) fetchDirectory(ctx context.Context) (*directory, error) {
	x, err := c.get(ctx, StepDirectory, c.opts.Directory)
	if err != nil {
		if e := asError(err); e.Problem != nil && e.Problem.Status < 500 && !e.Problem.is(rateLimited) {
			hint := errors.New("check the directory URL")
			if e.Err != nil {
				hint = fmt.Errorf("%w; %w", e.Err, hint)
			}
			e.Err = hint
		}
		return nil, err
	}
	dir, problem := new(directory), ""
	switch {
	case !decode(x.body, &dir.Directory):
		problem = "it is no JSON object"
	case dir.NewNonce == "":
		problem = `the field "newNonce" is missing`
	case dir.NewAccount == "":
		problem = `the field "newAccount" is missing`
	case dir.NewOrder == "":
		problem = `the field "newOrder" is missing`
	default:
		dir.forAcmez, err = json.Marshal(dir.Directory)
		dir.syntheticURL = fmt.Sprintf("https://%s/%x", directoryHost, sha256.Sum256(dir.forAcmez))
		return dir, err
	}
	return nil, &Error{Step: StepDirectory, URL: x.url, Err: fmt.Errorf("not an ACME directory: %s, the server answered %s; check the directory URL", problem, x.firstBytes())}
}

// forgetDirectory makes the next call fetch the directory anew.
func (c *Client) forgetDirectory(ctx context.Context) {
	if _, err := c.dirMu.lock(ctx); err == nil {
		c.dirUntil = time.Time{}
		c.dirMu.unlock()
	}
}
