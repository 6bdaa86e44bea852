package acmeflow

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Problem is a problem document (RFC 8555 §6.7, RFC 9457).
type Problem struct {
	Type        string       // a URI, "about:blank" when the CA sent none
	Title       string       // short text for the type
	Status      int          // HTTP status code
	Detail      string       // what went wrong this time
	Instance    string       // a URI for this occurrence, such as a page to un-pause an account
	Subproblems []Subproblem // RFC 8555 §6.7.1
}

// Subproblem is a problem that concerns one identifier (RFC 8555 §6.7.1).
type Subproblem struct {
	Problem
	IdentifierType  string // "dns" or "ip", empty when the CA named none
	IdentifierValue string
}

// Problem types that the flow acts on (RFC 8555 §6.7, RFC 9773 §5).
const (
	problemPrefix       = "urn:ietf:params:acme:error:"
	accountDoesNotExist = problemPrefix + "accountDoesNotExist"
	badNonce            = problemPrefix + "badNonce"
	orderNotReady       = problemPrefix + "orderNotReady"
	rateLimited         = problemPrefix + "rateLimited"

	caaForbids              = problemPrefix + "caa"
	externalAccountRequired = problemPrefix + "externalAccountRequired"
	rejectedIdentifier      = problemPrefix + "rejectedIdentifier"
)

// What of a CA's own text enters an error. A URL with a signed token in it, at
// which an account is un-paused, has room.
const (
	maxErrorText   = 2048 // bytes of each text
	maxSubproblems = 20
)

// PausedFor is for how long nothing is asked of a CA that has paused the
// account: it is waiting for a human.
const PausedFor = 24 * time.Hour

func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(clip(strings.TrimPrefix(p.Type, problemPrefix)))
	if p.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", p.Status)
	}
	if text := p.Detail; text != "" {
		fmt.Fprintf(&b, ": %s", clip(text))
	} else if p.Title != "" {
		fmt.Fprintf(&b, ": %s", clip(p.Title))
	}
	for i, s := range p.Subproblems {
		if i == maxSubproblems {
			fmt.Fprintf(&b, "; and %d more", len(p.Subproblems)-i)
			break
		}
		fmt.Fprintf(&b, "; %s", clip(strings.TrimPrefix(s.Type, problemPrefix)))
		if s.IdentifierValue != "" {
			fmt.Fprintf(&b, " for %q", clip(s.IdentifierValue))
		}
		if s.Detail != "" {
			fmt.Fprintf(&b, ": %s", clip(s.Detail))
		}
	}
	if p.Instance != "" {
		fmt.Fprintf(&b, " (see %s)", clip(p.Instance))
	}
	return b.String()
}

// is reports whether p is of the given type; a nil Problem is of none.
func (p *Problem) is(problemType string) bool { return p != nil && p.Type == problemType }

// forAnyChallenge reports whether a failed validation would fail with another
// challenge type too, so that it would only use up the CA's limits.
func (p *Problem) forAnyChallenge() bool {
	return p.is(caaForbids) || p.is(rejectedIdentifier) || p.is(rateLimited)
}

// paused reports whether the CA refuses the account until a human acts.
func (p *Problem) paused() bool {
	if p == nil || p.Status != 429 && !p.is(rateLimited) {
		return false
	}
	return Paused(p.Detail, p.Instance)
}

// Paused reports whether the texts of a problem say that an account is paused
// until a human acts. ACME has no type for it: CAs answer rateLimited and name
// the page on which to end the pause.
func Paused(texts ...string) bool {
	text := strings.ToLower(strings.Join(texts, " "))
	return strings.Contains(text, "unpause") || strings.Contains(text, "paused")
}

// without returns p with secret, which CAs repeat in what they say about a
// failed validation, taken out of its texts.
func (p *Problem) without(secret string) *Problem {
	if secret == "" {
		return p
	}
	p.Detail = strings.ReplaceAll(p.Detail, secret, "[key authorization]")
	for i := range p.Subproblems {
		p.Subproblems[i].without(secret)
	}
	return p
}

// wireProblem decodes a problem document member by member, so that one member
// of an unexpected type does not hide the others.
type wireProblem map[string]json.RawMessage

func (w wireProblem) text(name string) string {
	var s string
	if json.Unmarshal(w[name], &s) != nil {
		return ""
	}
	return s
}

func (w wireProblem) problem(status int) Problem {
	p := Problem{
		Type:     w.text("type"),
		Title:    w.text("title"),
		Status:   status,
		Detail:   w.text("detail"),
		Instance: w.text("instance"),
	}
	if p.Type == "" {
		p.Type = "about:blank"
	}
	if p.Status == 0 {
		_ = json.Unmarshal(w["status"], &p.Status) // stays 0 when it is no number
	}
	var subs []wireProblem
	if json.Unmarshal(w["subproblems"], &subs) == nil {
		for _, s := range subs {
			sub := Subproblem{Problem: s.problem(0)}
			var id wireProblem
			if json.Unmarshal(s["identifier"], &id) == nil {
				sub.IdentifierType, sub.IdentifierValue = id.text("type"), id.text("value")
			}
			p.Subproblems = append(p.Subproblems, sub)
		}
	}
	return p
}

// parseProblem makes a Problem of an error reply, whatever its body is.
func parseProblem(status int, body []byte) *Problem {
	var w wireProblem
	if json.Unmarshal(body, &w) == nil && len(w) > 0 {
		p := w.problem(status)
		if p.Type == "about:blank" && status == 429 {
			p.Type = rateLimited
		}
		return &p
	}
	p := &Problem{Type: "about:blank", Status: status, Detail: clip(strings.TrimSpace(string(body)))}
	if status == 429 {
		p.Type = rateLimited
	}
	return p
}

func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "…"
	}
	return s
}

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

	// Earlier are the failures of the challenge types that were tried before.
	Earlier []*Error

	others []string // challenge types that could be answered instead
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

// Unwrap returns the cause; the problem document is reached through the field.
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
