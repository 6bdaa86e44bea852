package certwright

import (
	"context"
	"crypto/sha256"
	"encoding/base64"

	"github.com/certwright/certwright/internal/acmeflow"
)

// callerSolver makes an acmeflow.Solver of a caller's.
type callerSolver struct{ s Solver }

func (c callerSolver) Present(ctx context.Context, ch acmeflow.Challenge) error {
	return c.s.Present(ctx, publicChallenge(ch))
}

func (c callerSolver) CleanUp(ctx context.Context, ch acmeflow.Challenge) error {
	return c.s.CleanUp(ctx, publicChallenge(ch))
}

func publicChallenge(ch acmeflow.Challenge) Challenge {
	out := Challenge{
		Type: ch.Type, Name: ch.Identifier, Wildcard: ch.Wildcard, Token: ch.Token,
		KeyAuthorization: ch.KeyAuthorization, Account: ch.Account,
	}
	if ch.Type == "dns-01" {
		sum := sha256.Sum256([]byte(ch.KeyAuthorization))
		out.DNSName, out.DNSValue = "_acme-challenge."+ch.Identifier, base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return out
}
