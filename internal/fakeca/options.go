package fakeca

import (
	"context"
	"crypto/x509"
	"time"
)

// defaultBaseURL is where the CA says it is when it cannot know better.
const defaultBaseURL = "https://ca.test"

// Options are the standing habits of a CA; the zero value is a plain, willing one. Hooks are called
// without a lock held, perhaps by several goroutines at once.
type Options struct {
	// BaseURL is the start of each URL, such as https://a.test/acme. Empty means https:// and the
	// Host of the request, which is https://ca.test through Transport. Clients that cache directories
	// by URL for the whole process, as acmez does, need another host for each CA.
	BaseURL string

	// DefaultLifetime is that of certificates whose order has no profile; zero means 90 days.
	DefaultLifetime time.Duration
	// Profiles are the profiles offered, with their certificates' lifetime. nil means none.
	Profiles map[string]time.Duration
	// Backdate puts NotBefore that long before the time of issue, or after it where negative.
	Backdate time.Duration
	// OCSPURL is the responder named in the certificates; empty means none.
	OCSPURL string
	// Alternates is the number of alternate chains offered (RFC 8555 section 7.4.2).
	Alternates int
	// Chain writes the body of a certificate download; nil means leaf and intermediate as PEM.
	Chain func(leaf, intermediate, root *x509.Certificate) []byte

	// EAB holds the MAC keys by key identifier. nil means that no binding is asked for.
	EAB map[string][]byte
	// OneShotEAB lets each key identifier bind one account only.
	OneShotEAB bool

	// Challenges are the types offered; nil means http-01 and tls-alpn-01. A type the CA does not
	// know is offered all the same, with a token; dns-persist-01 has none. Wildcards get the types that
	// start with dns-, addresses get the others.
	Challenges []string
	// Validate judges a challenge; nil means that all are met. A *Problem is passed on as it is,
	// and any other error becomes an unauthorized problem. It runs within the challenge
	// request; when the request's context ends meanwhile, the challenge stays pending.
	Validate func(context.Context, ChallengeInfo) error
	// AuthzReuse lets a new order take over the valid authorizations of the account.
	AuthzReuse bool
	// OrderReuse answers a new order with the account's unfinished one for the same identifiers and
	// profile.
	OrderReuse bool

	// PollsBeforeValid is how often an authorization is still seen pending once its challenge is met.
	PollsBeforeValid int
	// PollsBeforeReady is how often an order is still seen pending once its authorizations are valid.
	PollsBeforeReady int
	// PollsAfterFinalize is how often an order is still seen ready once it has been finalized. The
	// answer to finalize says ready too.
	PollsAfterFinalize int
	// PollsProcessing is how often an order is then seen processing before it is valid.
	PollsProcessing int
	// FinalizeOnce refuses a second finalize with 403 also while the order is still seen ready,
	// where it would otherwise change nothing.
	FinalizeOnce bool

	// ARI gives the renewal window of a certificate; nil means from 2/3 of its life, for 1/30 of it.
	// A nil window answers 404. It is not asked about revoked certificates.
	ARI func(leaf *x509.Certificate) *Window
	// NoARI leaves renewalInfo out of the directory and ignores replaces.
	NoARI bool
	// ARIRetryAfter is the polling interval that renewalInfo asks for; zero means 6 hours.
	ARIRetryAfter time.Duration
	// ReplacesErrorType is the problem type for a certificate that was replaced already; empty means
	// alreadyReplaced. Older CAs say conflict or malformed.
	ReplacesErrorType string

	// NonceLifetime is the age at which a nonce goes bad; zero means never.
	NonceLifetime time.Duration
	// KeepRequests is how many requests are kept for Requests; zero means 10,000, negative none.
	KeepRequests int
	// KeepCertificates is how many certificates are at least kept, each with its order; older ones
	// are forgotten by every endpoint in time, so it has to exceed what clients work on at once.
	// Zero means all.
	KeepCertificates int
}

// Window is a suggested renewal window (RFC 9773 section 4.2). Nothing stops it from being absurd.
type Window struct {
	Start, End time.Time
	// ExplanationURL is left out when empty.
	ExplanationURL string
}

// Identifier is what a certificate is for: a type, dns or ip, and a value.
type Identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// ChallengeInfo is what a validator has to know.
type ChallengeInfo struct {
	// Type is the challenge type, such as http-01.
	Type string
	// Token is empty for a type without one.
	Token string
	// KeyAuthorization is the token, a dot and the account key's thumbprint (RFC 8555 section 8.1).
	KeyAuthorization string
	// Identifier is what is to be proven, without "*." for a wildcard.
	Identifier Identifier
	// Wildcard reports whether the authorization is for a wildcard.
	Wildcard bool
	// Account is the account's URL.
	Account string
}
