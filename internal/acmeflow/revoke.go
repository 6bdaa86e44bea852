package acmeflow

import (
	"context"
	"crypto"
	"crypto/x509"

	"github.com/mholt/acmez/v3/acme"
)

const alreadyRevoked = problemPrefix + "alreadyRevoked"

// Revoke revokes a certificate (RFC 8555 §7.6). A nil key signs with the
// account, which must be the one that the certificate was issued to; otherwise
// key is the certificate's own. reason is a code of RFC 5280 §5.3.1, 0 when
// unspecified. A certificate that is revoked already is no error.
func (c *Client) Revoke(ctx context.Context, leaf *x509.Certificate, key crypto.Signer, reason int) error {
	var acct acme.Account
	if key == nil {
		known, err := c.currentAccount(ctx)
		if err != nil {
			return err
		}
		acct = known.Account
	}
	_, err := c.call(ctx, StepRevoke, idempotent, func(ctx context.Context, api *acme.Client) error {
		return api.RevokeCertificate(ctx, acct, leaf, key, reason)
	})
	if isProblem(err, alreadyRevoked) {
		return nil
	}
	return err
}
