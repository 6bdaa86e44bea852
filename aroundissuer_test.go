package certwright_test

import (
	"context"
	"crypto/x509"

	. "github.com/certwright/certwright"
)

// aroundIssuer is an Issuer in the caller's hand, which hands on to a signer.
type aroundIssuer struct {
	*fakeSigner
	issue  func(context.Context, IssueRequest, func() (Issued, error)) (Issued, error) // around Issue
	inform func(context.Context, *x509.Certificate) (RenewalInfo, error)               // nil: there is none
}

func (a *aroundIssuer) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	if a.issue == nil {
		return a.fakeSigner.Issue(ctx, req)
	}
	return a.issue(ctx, req, func() (Issued, error) { return a.fakeSigner.Issue(ctx, req) })
}

func (a *aroundIssuer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	if a.inform == nil {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	return a.inform(ctx, leaf)
}
