package acmeflow

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/mholt/acmez/v3/acme"
)

// ErrNoRenewalInfo means that the CA has no renewal information (RFC 9773).
var ErrNoRenewalInfo = errors.New("the CA has no renewal information")

// RenewalInfo is what a CA suggests for the renewal of a certificate (RFC 9773 §4.2).
type RenewalInfo struct {
	Start, End     time.Time
	ExplanationURL string
	RetryAfter     time.Duration // 0: the CA gave none
}

// RenewalInfo fetches the suggested window for leaf as the CA sends it; whether
// it makes sense is for the caller to judge.
func (c *Client) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return RenewalInfo{}, err
	}
	if dir.RenewalInfo == "" {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	id, err := certpem.CertID(leaf)
	if err != nil {
		return RenewalInfo{}, &Error{Step: StepRenewalInfo, Err: err}
	}
	x, err := c.get(ctx, StepRenewalInfo, strings.TrimSuffix(dir.RenewalInfo, "/")+"/"+id)
	if err != nil {
		return RenewalInfo{}, err
	}
	var info acme.RenewalInfo
	if !decode(x.body, &info) {
		err = x.error(StepRenewalInfo, nil)
	}
	return RenewalInfo{info.SuggestedWindow.Start, info.SuggestedWindow.End, info.ExplanationURL, x.retryAfter}, err
}
