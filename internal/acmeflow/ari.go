package acmeflow

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certpem"
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
	if dir.renewalInfo == "" {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	id, err := certpem.CertID(leaf)
	if err != nil {
		return RenewalInfo{}, &Error{Step: StepRenewalInfo, Err: err}
	}
	x, err := c.get(ctx, StepRenewalInfo, strings.TrimSuffix(dir.renewalInfo, "/")+"/"+id)
	if err != nil {
		return RenewalInfo{}, err
	}
	var wire struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		ExplanationURL json.RawMessage `json:"explanationURL"`
	}
	info := RenewalInfo{RetryAfter: x.retryAfter}
	if err := json.Unmarshal(x.body, &wire); err != nil {
		return info, &Error{Step: StepRenewalInfo, URL: x.url, Err: fmt.Errorf("decoding the reply: %w", err)}
	}
	info.Start, info.End = wire.SuggestedWindow.Start, wire.SuggestedWindow.End
	_ = json.Unmarshal(wire.ExplanationURL, &info.ExplanationURL) // a member of another type is ignored
	return info, nil
}
