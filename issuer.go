package certwright

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"time"
)

// ErrOrderGone means that an order, and the key whose CSR it was for, are of no
// use any more: the CA refused the key, has given the order up, or does not go
// on with it. An [Issuer] returns an error that satisfies
// errors.Is(err, ErrOrderGone) so that the next call has a new key and no State.
var ErrOrderGone = errors.New("certwright: the order is of no use any more; the next one needs a new key")

// Issuer issues certificates. [*ACME] is one. An Issuer is safe for concurrent
// use and honours the context.
//
// An Issuer may also implement [RenewalInformer], and a method CA() string that
// names the CA behind it. A certificate counts as the wanted one whichever of a
// CA's Issuers it is from; without the method each Issuer is a CA of its own.
type Issuer interface {
	// ID names the issuer in storage keys, in Status and in logs. It does not
	// change from one start to the next, is unique among a Manager's issuers
	// and consists of letters, digits, ".", "-", "_" and "+".
	ID() string

	// Issue gets a certificate for the request's key and names. It is called
	// under a lease: ctx ends when the lease is lost. An error that satisfies
	// errors.As with an interface{ RetryAfter() time.Duration } says how long
	// not to come back.
	Issue(ctx context.Context, req IssueRequest) (Issued, error)
}

// IssueRequest is what an [Issuer] is asked for. A renewal is the same request
// with Replaces set.
type IssueRequest struct {
	Names    []string  // normalised names, none twice
	CSR      []byte    // DER (RFC 2986), signed with the certificate's key
	Profile  string    // empty: the issuer chooses
	NotAfter time.Time // zero: the issuer chooses

	// Replaces is the certificate that is renewed, nil at a first issue.
	// ReplacesData is the Data that this issuer returned with it, nil when
	// another issuer did.
	Replaces     *x509.Certificate
	ReplacesData json.RawMessage

	// State is what Save was given last for this request, by this process or
	// by one that crashed, and nil at first. Save makes b durable; an issuer
	// calls it before it has the CA act, so that no order is lost. Neither is
	// used after Issue returned nil, and Save fails once the lease is lost.
	State []byte
	Save  func(ctx context.Context, b []byte) error

	// Progress is told what is being done now and what the CA has said about it
	// so far; the Manager shows it in Status. It returns at once and may be
	// called often, by several goroutines. nil: nobody listens.
	Progress func(step, detail string)

	// Sleep waits for d, or until ctx ends, whose cause it then returns. An
	// Issuer that polls or pauses does so through Sleep: its slot goes to others
	// meanwhile. nil: the same as a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// caOf names the CA behind an issuer.
func caOf(iss Issuer) string {
	if n, ok := iss.(interface{ CA() string }); ok {
		return n.CA()
	}
	return iss.ID()
}

// Issued is an issuer's answer.
type Issued struct {
	Chain []byte          // PEM, leaf first; the root may be missing
	Data  json.RawMessage // kept with the certificate, nil when there is nothing to keep
}

// RenewalInformer is implemented by an [Issuer] whose CA suggests when to renew
// (ARI, RFC 9773).
type RenewalInformer interface {
	// RenewalInfo asks for the suggested window of leaf. The error satisfies
	// errors.Is(err, ErrNoRenewalInfo) when the CA has none.
	RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error)
}

// RenewalInfo is a CA's suggestion for one certificate (RFC 9773 §4.2).
type RenewalInfo struct {
	Start, End     time.Time     // the suggested window
	ExplanationURL string        // why the window is what it is; often empty
	RetryAfter     time.Duration // when to ask again; 0 leaves it to the Manager
}

// Solver makes the response to a challenge reachable for the CA. A Solver is
// safe for concurrent use. http-01 and tls-alpn-01 need none: the Manager
// answers them itself. Package dnsprovider has one for the DNS types.
//
// A Solver may also be a [Waiter], and have a method
//
//	Check(challengeType string, names []string) error
//
// that says what it cannot do: New calls it without names, and reports its error;
// Manage calls it for each name of a certificate.
type Solver interface {
	// Present returns when what is needed for the response is set up. The Manager
	// notes ch in Storage before it calls Present.
	Present(ctx context.Context, ch Challenge) error

	// CleanUp removes exactly what Present added. It is called for each call of
	// Present, also for one that failed or whose process died, in another process
	// then; and again, later, when it failed. It has a minute; the certificate does
	// not wait longer than 15 seconds for it.
	CleanUp(ctx context.Context, ch Challenge) error
}

// Waiter is a [Solver] whose responses the CA can see only some time after Present.
// Wait returns when it can; an error fails the challenge before the CA is asked to
// validate it. All calls of Present for an order come first, then all of Wait, side
// by side.
type Waiter interface {
	Wait(ctx context.Context, ch Challenge) error
}

// Challenge is what a [Solver] presents (RFC 8555 §8).
type Challenge struct {
	Type             string // such as "dns-01"
	Name             string // DNS name or IP address to be proven, without "*."
	Wildcard         bool   // the certificate is for the wildcard of Name
	Token            string // empty for dns-persist-01
	KeyAuthorization string // RFC 8555 §8.1
	Account          string // account URL

	// DNSName and DNSValue are the TXT record to be set for dns-01 (RFC 8555
	// §8.4), dns-account-01 and dns-persist-01, without a trailing dot; empty for
	// other types.
	DNSName, DNSValue string

	// State is what Save was given last for this challenge, by this process or by
	// one that died; nil at first. Save makes b durable: what Present has to know
	// for CleanUp it saves before it changes anything. It fails once the lease for
	// the certificate is lost.
	State []byte
	Save  func(ctx context.Context, b []byte) error

	// Lock takes a lease among all instances, as [Locker] does, on something that
	// only one may change at a time, such as a TXT record set. It waits for a
	// bounded time. The name is the caller's to choose; it meets no other lease of
	// the Manager's.
	Lock func(ctx context.Context, name string) (Lease, error)

	// Progress is told what is being done now, and why it takes long; the Manager
	// shows it in Status. Log is the Manager's logger, with the name, issuer and
	// challenge type in it.
	Progress func(detail string)
	Log      *slog.Logger
}
