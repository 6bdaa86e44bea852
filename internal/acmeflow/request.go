package acmeflow

import (
	"context"
	"crypto/x509"
	"time"
)

// Request is one certificate to be issued.
type Request struct {
	Names    []string  // normalised names, as the order's identifiers
	CSR      []byte    // DER
	Profile  string    // empty: the CA chooses
	NotAfter time.Time // zero: the CA chooses

	// Replaces is the certificate that this one renews, or nil. It is named to
	// the CA (RFC 9773 §5) when ReplacesAccount is the account used now.
	Replaces        *x509.Certificate
	ReplacesAccount string

	Solvers map[string]Solver   // by challenge type
	Prefer  []string            // challenge types in the order they are tried; those not named come last
	Failed  map[string][]string // by name: what failed when the last certificate was issued, tried last
	Once    map[string]bool     // names of which validations have failed lately, whatever for: one type is tried

	State []byte                                    // what Save was last given for this request, or nil
	Save  func(ctx context.Context, b []byte) error // called before the CA acts; nil: nothing is kept

	Progress func(step, detail string)                        // what is done now, and the CA's words about it; nil: nobody listens
	Sleep    func(ctx context.Context, d time.Duration) error // every pause goes through it, but for those that others wait for too; nil: a timer
}

// Result is an issued certificate.
type Result struct {
	ChainPEM  []byte
	URL       string              // of the certificate
	Account   string              // account URL
	Directory string              // directory URL
	Failed    map[string][]string // by name: challenge types that failed and have not succeeded since
}

// Solver makes a challenge's response reachable for the CA.
type Solver interface {
	Present(ctx context.Context, ch Challenge) error
	CleanUp(ctx context.Context, ch Challenge) error
}

// Waiter is a Solver whose responses the CA can see only some time after Present.
// All of an order are presented before any is waited for.
type Waiter interface {
	Wait(ctx context.Context, ch Challenge) error
}

// Challenge is what a Solver presents.
type Challenge struct {
	Type             string
	Identifier       string // DNS name or IP address, without "*."
	IdentifierType   string // "dns" or "ip"
	Wildcard         bool   // the authorization is for the name's wildcard
	Token            string
	KeyAuthorization string
	Account          string   // account URL
	IssuerDomains    []string // dns-persist-01 only
	AccountURI       string   // as the challenge has it; dns-persist-01 only, often empty
}
