package certwright

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
)

// Errors that callers branch on, with errors.Is.
var (
	// ErrNoCertificate means that no certificate is there for the name a
	// client asked for.
	ErrNoCertificate = errors.New("certwright: no certificate")

	// ErrNotManaged means that the name is not managed by this Manager.
	ErrNotManaged = errors.New("certwright: name is not managed")

	// ErrClosed means that the Manager was closed.
	ErrClosed = errors.New("certwright: manager is closed")

	// ErrNoRenewalInfo means that the CA has no renewal information (RFC 9773).
	ErrNoRenewalInfo = errors.New("certwright: the CA has no renewal information")
)

// IssueError says that no issuer issued a certificate for a name. It unwraps to
// one error an issuer, in the order in which they were tried.
type IssueError struct {
	Name     string    // the name, or the first of several in one certificate
	Attempts int       // failed attempts in a row, this one included
	RetryAt  time.Time // when it is tried again; zero when that is not known: the attempt was cut short, or a call has not returned
	Errs     []error   // a *StepError for each issuer
}

func (e *IssueError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "issuing a certificate for %q", e.Name)
	for i, err := range e.Errs {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%v", sep, err)
	}
	if !e.RetryAt.IsZero() {
		fmt.Fprintf(&b, " (attempt %d; next at %s)", e.Attempts, e.RetryAt.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// Unwrap returns the errors of the issuers.
func (e *IssueError) Unwrap() []error { return e.Errs }

// StepError says at which step an issuer failed and why.
type StepError struct {
	Issuer    string   // issuer ID
	Step      string   // such as "directory", "account", "order", "authorization", "challenge", "finalize", "download", "verify", "store"
	Name      string   // the name whose authorization failed; empty when the step concerns all
	Challenge string   // the challenge type that failed; empty when none did
	URL       string   // the CA's URL that was asked, without a query; empty when none was
	Problem   *Problem // the CA's problem document; nil when it sent none
	Err       error    // the cause when there is no Problem, or more about it

	// Earlier are the failures before it in the same attempt: of other challenge
	// types, and of other names.
	Earlier []*StepError

	retryAfter time.Duration
	failed     map[string]int // failed validations by name, of an *ACME
	gone       bool           // errors.Is(e, ErrOrderGone)
	again      bool           // see mayRetryNow
}

// addHint adds to the cause what to do about it.
func (e *StepError) addHint(text string) {
	if e.Err == nil {
		e.Err = errors.New(text)
		return
	}
	e.Err = fmt.Errorf("%w; %s", e.Err, text)
}

// Is reports whether the error means target, which is [ErrOrderGone].
func (e *StepError) Is(target error) bool { return target == ErrOrderGone && e.gone }

// validations counts, by name, the validations that failed at the CA in the
// attempt: a CA bounds them.
func (e *StepError) validations() map[string]int {
	if e.failed == nil && e.Step == "challenge" && e.Name != "" {
		return map[string]int{e.Name: 1} // an Issuer of the caller's does not count
	}
	return e.failed
}

// mayRetryNow reports whether err, with ErrOrderGone, is about an order that was
// made before: the CA has not answered anything new, so that the same issuer can
// be called once more at once, with a new key and no State.
func mayRetryNow(err error) bool {
	e, ok := errors.AsType[*StepError](err)
	return ok && e.again && errors.Is(err, ErrOrderGone)
}

func (e *StepError) Error() string {
	s := e.Issuer + ": " + e.detail()
	const most = 10 // of an order with many names
	for i, before := range e.Earlier {
		if i == most {
			return fmt.Sprintf("%s; and %d more", s, len(e.Earlier)-most)
		}
		s += "; before that: " + before.detail()
	}
	return s
}

// detail is the text without issuer and earlier failures.
func (e *StepError) detail() string {
	var b strings.Builder
	b.WriteString(e.Step)
	if e.Challenge != "" {
		fmt.Fprintf(&b, " %s", e.Challenge)
	}
	if e.Name != "" {
		fmt.Fprintf(&b, " for %q", e.Name)
	}
	if e.URL != "" {
		fmt.Fprintf(&b, " at %s", e.URL)
	}
	if e.Problem != nil {
		fmt.Fprintf(&b, ": %v", e.Problem)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the problem, the cause and the earlier failures, as far as
// there are any.
func (e *StepError) Unwrap() []error {
	var errs []error
	if e.Problem != nil {
		errs = append(errs, e.Problem)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	for _, before := range e.Earlier {
		errs = append(errs, before)
	}
	return errs
}

// RetryAfter returns how long the CA asked not to come back, 0 when it did not.
func (e *StepError) RetryAfter() time.Duration { return e.retryAfter }

// Problem is a CA's problem document (RFC 8555 §6.7, RFC 9457).
type Problem struct {
	Type        string       // a URI such as "urn:ietf:params:acme:error:rateLimited", "about:blank" when the CA sent none
	Title       string       // a short text for the type
	Status      int          // HTTP status code
	Detail      string       // what went wrong this time
	Instance    string       // a URI for this occurrence, such as a page on which to un-pause an account
	Subproblems []Subproblem // RFC 8555 §6.7.1
}

// Subproblem is a problem that concerns one identifier (RFC 8555 §6.7.1).
type Subproblem struct {
	Problem
	Name string // DNS name or IP address, empty when the CA named none
}

func (p *Problem) Error() string { return p.flow().Error() }

// is reports whether p is of one of those types (RFC 8555 §6.7). A nil problem is
// of none.
func (p *Problem) is(types ...string) bool {
	const prefix = "urn:ietf:params:acme:error:"
	return p != nil && slices.ContainsFunc(types, func(t string) bool { return p.Type == prefix+t })
}

// flow is the inverse of publicProblem: one place puts a problem into words.
func (p *Problem) flow() *acmeflow.Problem {
	out := &acmeflow.Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance}
	for _, s := range p.Subproblems {
		sub := s.flow()
		sub.Identifier.Value = s.Name
		out.Subproblems = append(out.Subproblems, *sub)
	}
	return out
}

// RetryAfter returns the longest time for which a CA in err's tree asked not to
// come back, and whether one did.
func RetryAfter(err error) (time.Duration, bool) {
	var longest time.Duration
	walkErrors(err, func(err error) {
		if e, ok := err.(interface{ RetryAfter() time.Duration }); ok {
			longest = max(longest, e.RetryAfter())
		}
	})
	return longest, longest > 0
}

// walkErrors calls visit for err and all that it wraps.
func walkErrors(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) { //nolint:errorlint // it unwraps by itself
	case interface{ Unwrap() error }:
		walkErrors(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			walkErrors(err, visit)
		}
	}
}

// ConfigError says what is wrong with a [Config], a [Spec] or a list of names.
type ConfigError struct {
	Field string // such as "Config.Email", "Spec.Names[2]" or, of a list of names, "names[2]"
	Err   error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("certwright: %s: %v", e.Field, e.Err) }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

func configErrorf(field, format string, args ...any) error {
	return &ConfigError{Field: field, Err: fmt.Errorf(format, args...)}
}
