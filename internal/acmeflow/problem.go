package acmeflow

import (
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

	document bool // the CA sent it as a problem document: it is not a proxy's page
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

	badSignatureAlgorithm   = problemPrefix + "badSignatureAlgorithm"
	dnsTrouble              = problemPrefix + "dns"
	unauthorized            = problemPrefix + "unauthorized"
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

// concerns reports whether a validation that failed so would fail with another
// challenge type too, and would only use up the CA's limits: a refusal of the
// name does, and a name that has no address is not reached on another port.
func (p *Problem) concerns(challengeType string) bool {
	return p.is(caaForbids) || p.is(rejectedIdentifier) || p.is(rateLimited) ||
		p.is(dnsTrouble) && !strings.HasPrefix(challengeType, "dns-")
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

// readProblem reads a problem document, or what is in place of one, member by
// member, so that one of an unexpected type does not hide the others.
func readProblem(o object, status int) *Problem {
	p := &Problem{Type: "about:blank", Status: status}
	set(&p.Type, o, "type")
	set(&p.Title, o, "title")
	set(&p.Detail, o, "detail")
	set(&p.Instance, o, "instance")
	if status == 0 {
		set(&p.Status, o, "status")
	}
	for _, s := range list(o, "subproblems") {
		sub := Subproblem{Problem: *readProblem(s, 0)}
		var id object
		set(&id, s, "identifier")
		set(&sub.IdentifierType, id, "type")
		set(&sub.IdentifierValue, id, "value")
		p.Subproblems = append(p.Subproblems, sub)
	}
	return p
}

// problemIn returns the member "error" of an order or a challenge, or nil.
func problemIn(o object) *Problem {
	var doc object
	if set(&doc, o, "error"); doc == nil {
		return nil
	}
	return readProblem(doc, 0)
}

// parseProblem makes a Problem of an error reply, whatever its body is: text that
// is no problem document becomes the detail, so that nobody's words are lost.
func parseProblem(status int, kind string, body []byte) *Problem {
	p := readProblem(parseObject(body), status)
	p.document = kind == "application/problem+json" || strings.HasPrefix(p.Type, "urn:")
	if p.Detail == "" && p.Title == "" && !strings.HasPrefix(p.Type, "urn:") {
		p.Detail = clip(strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), maxErrorText)]), "?")))
	}
	if status == 429 && (p.Type == "about:blank" || p.Type == "") {
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
