package certwright

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

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

// cleanUpPatience is for how long a Solver's CleanUp is waited for, which is given
// ten seconds.
const cleanUpPatience = 15 * time.Second

// boundSolver is a Solver whose CleanUp costs no certificate, whatever it does.
type boundSolver struct {
	acmeflow.Solver
	calls *calls
}

func (b boundSolver) CleanUp(ctx context.Context, ch acmeflow.Challenge) error {
	return b.calls.do(fmt.Sprintf("the clean-up of %s for %s", ch.Type, ch.Identifier), cleanUpPatience, func() error { return b.Solver.CleanUp(ctx, ch) })
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
