package acmeflow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Step names a part of the flow in an [Error].
type Step string

// The steps: those of an issue in the order in which it goes through them, and
// the others.
const (
	StepDirectory   Step = "directory"
	StepAccount     Step = "account"
	StepOrder       Step = "order"
	StepAuthorize   Step = "authorization"
	StepPresent     Step = "present"
	StepWait        Step = "wait"
	StepChallenge   Step = "challenge"
	StepFinalize    Step = "finalize"
	StepDownload    Step = "download"
	StepRenewalInfo Step = "renewal info"
)

// Error says at which step the flow failed and why.
type Error struct {
	Step       Step
	URL        string        // the CA's URL that was asked, without a query; empty when none was
	Identifier string        // the name whose authorization failed, if it was one
	Challenge  string        // the challenge type that failed, if it was one
	RetryAfter time.Duration // what the CA asked for, 0 when it did not
	Problem    *Problem      // nil when the CA sent none
	Err        error         // the cause when there is no Problem, or more about it

	// Earlier are the failures before it: of challenge types that were tried
	// before, and of other names.
	Earlier []*Error

	// Gone means that the order and its key are of no use any more: the next
	// Request has another key and no State. Again means that this is not the
	// CA's answer to anything new, so that it can be made at once.
	Gone, Again bool

	// Validations counts, by name, the validations that failed at the CA.
	Validations map[string]int

	dead    bool // the order is of no use any more
	another bool // another challenge type could be answered instead
}

// isDead reports whether after e, or a failure beside it, the order cannot be
// gone on with: only the CA's own word, a problem document, ends one (F25).
func (e *Error) isDead() bool {
	p := e.Problem
	return e.dead || slices.ContainsFunc(e.Earlier, (*Error).isDead) ||
		p != nil && p.document && p.Status/100 == 4 && !p.elsewhere() && e.Step != StepDirectory && e.Step != StepAccount
}

// asError returns the Error in err's tree, or nil.
func asError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Step))
	if e.Challenge != "" {
		fmt.Fprintf(&b, " %s", e.Challenge)
	}
	if e.Identifier != "" {
		fmt.Fprintf(&b, " for %q", e.Identifier)
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
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %v)", e.RetryAfter)
	}
	return b.String()
}

// Unwrap returns the cause and the problem document.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if e.Problem != nil {
		errs = append(errs, e.Problem)
	}
	return errs
}
