package acmeflow

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Problem is a problem document (RFC 8555 §6.7, RFC 9457).
type Problem struct {
	Type        string          `json:"type"`       // a URI, "about:blank" when the CA sent none
	Title       string          `json:"title"`      // short text for the type
	Status      int             `json:"status"`     // HTTP status code
	Detail      string          `json:"detail"`     // what went wrong this time
	Instance    string          `json:"instance"`   // a URI for this occurrence, such as a page to un-pause an account
	Identifier  acme.Identifier `json:"identifier"` // of a subproblem: what it concerns, zero when the CA did not say
	Subproblems []Problem       `json:"-"`          // RFC 8555 §6.7.1

	document bool // the CA sent it as a problem document: it is not a proxy's page
}

// problemKind is the media type of a problem document (RFC 9457).
const problemKind = "application/problem+json"

// Problem types that the flow acts on (RFC 8555 §6.7, RFC 9773 §5).
const (
	problemPrefix       = "urn:ietf:params:acme:error:"
	accountDoesNotExist = problemPrefix + "accountDoesNotExist"
	badNonce            = problemPrefix + "badNonce"
	badPublicKey        = problemPrefix + "badPublicKey"
	orderNotReady       = problemPrefix + "orderNotReady"
	rateLimited         = problemPrefix + "rateLimited"

	badSignatureAlgorithm   = problemPrefix + "badSignatureAlgorithm"
	dnsTrouble              = problemPrefix + "dns"
	unauthorized            = problemPrefix + "unauthorized"
	caaForbids              = problemPrefix + "caa"
	externalAccountRequired = problemPrefix + "externalAccountRequired"
)

// What of a CA's own text enters an error. A URL with a signed token in it, at
// which an account is un-paused, has room.
const (
	maxErrorText    = 2048 // bytes of each text
	maxSubproblems  = 20   // in its text
	mostSubproblems = 100  // kept: one for each name of an order, as many as CAs take
)

// PausedFor is for how long nothing is asked of a CA that has paused the
// account: it is waiting for a human.
const PausedFor = 24 * time.Hour

func (p *Problem) Error() string {
	text := p.words()
	for i, s := range p.Subproblems {
		if i == maxSubproblems {
			text += fmt.Sprintf("; and %d more", len(p.Subproblems)-i)
			break
		}
		text += "; " + s.words()
	}
	if p.Instance != "" {
		text += fmt.Sprintf(" (see %s)", clip(p.Instance))
	}
	return text
}

// words is p without its subproblems.
func (p *Problem) words() string {
	text := clip(strings.TrimPrefix(p.Type, problemPrefix))
	switch {
	case p.Status != 0 && p.Type == "about:blank": // there is no more to it than that
		text = strings.TrimSpace(fmt.Sprintf("HTTP %d %s", p.Status, http.StatusText(p.Status)))
	case p.Status != 0:
		text += fmt.Sprintf(" (HTTP %d)", p.Status)
	}
	if p.Identifier.Value != "" {
		text += fmt.Sprintf(" for %q", clip(p.Identifier.Value))
	}
	if said := cmp.Or(p.Detail, p.Title); said != "" {
		text += ": " + clip(said)
	}
	return text
}

// is reports whether p is of the given type; a nil Problem is of none.
func (p *Problem) is(problemType string) bool { return p != nil && p.Type == problemType }

// concerns reports whether a validation that failed so would fail with another
// challenge type too, and would only use up the CA's limits: a refusal of the
// name does, and a name that has no address is not reached on another port. A
// rejectedIdentifier is no refusal here: a CA that issues nothing for a name says
// so of the order, and step-ca says it of a validation that met another server.
func (p *Problem) concerns(challengeType string) bool {
	return p.is(caaForbids) || p.is(rateLimited) ||
		p.is(dnsTrouble) && !strings.HasPrefix(challengeType, "dns-")
}

// elsewhere reports whether the reason for p lies not in what was asked.
func (p *Problem) elsewhere() bool {
	return p.is(rateLimited) || p.is(accountDoesNotExist) || p.is(badNonce) || p.Status == 429 || p.Status == 503
}

// Paused reports whether the texts of a problem say that an account is paused
// until a human acts. ACME has no type for it: CAs answer rateLimited and name
// the page on which to end the pause.
func Paused(texts ...string) bool {
	text := strings.ToLower(strings.Join(texts, " "))
	return strings.Contains(text, "unpause") || strings.Contains(text, "paused")
}

// without returns p, which may be nil, with secret, which CAs repeat in what they
// say about a failed validation, taken out of its texts.
func (p *Problem) without(secret string) *Problem {
	if p != nil {
		p.Title = strings.ReplaceAll(p.Title, secret, "[key authorization]")
		p.Detail = strings.ReplaceAll(p.Detail, secret, "[key authorization]")
		for i := range p.Subproblems {
			_ = p.Subproblems[i].without(secret) // changes it
		}
	}
	return p
}

// UnmarshalJSON reads a problem document, or what is in place of one: text that
// is none becomes the detail, so that nobody's words are lost. It keeps no more of
// them than an error shows. It returns nil.
func (p *Problem) UnmarshalJSON(b []byte) error {
	p.read(b)
	var m struct {
		Subproblems []json.RawMessage `json:"subproblems"` // that have none of their own
	}
	decode(b, &m)
	for _, raw := range m.Subproblems[:min(len(m.Subproblems), mostSubproblems)] {
		var sub Problem
		sub.read(raw)
		p.Subproblems = append(p.Subproblems, sub)
	}
	return nil
}

// read reads all but the subproblems.
func (p *Problem) read(b []byte) {
	type members Problem
	m := members{Type: "about:blank"}
	decode(b, &m)
	if m.Detail == "" && m.Title == "" && !strings.HasPrefix(m.Type, "urn:") {
		m.Detail = printable(b, maxErrorText)
	}
	for _, text := range []*string{&m.Type, &m.Title, &m.Detail, &m.Instance, &m.Identifier.Type, &m.Identifier.Value} {
		*text = clip(*text)
	}
	*p = Problem(m)
}

// problemIn returns the problem that a reply tells of, or nil. Some servers answer
// one with 200.
func problemIn(status int, kind string, body []byte) *Problem {
	if status >= 400 {
		return parseProblem(status, kind, body)
	}
	var m struct {
		Type   string `json:"type"`
		Status int    `json:"status"` // a number: that of an order is none
	}
	if !decode(body, &m) || !strings.HasPrefix(m.Type, problemPrefix) && (kind != problemKind || m.Status < 400) {
		return nil
	}
	if m.Status < 400 || m.Status > 599 {
		m.Status = status
	}
	return parseProblem(m.Status, kind, body)
}

// parseProblem makes a Problem of an error reply, whatever its body is.
func parseProblem(status int, kind string, body []byte) *Problem {
	p := new(Problem)
	_ = p.UnmarshalJSON(body)
	p.Status = status
	p.document = kind == problemKind || strings.HasPrefix(p.Type, "urn:")
	if status == 429 && (p.Type == "about:blank" || p.Type == "") {
		p.Type = rateLimited
	}
	return p
}

// printable is the beginning of a reply, at most most bytes, as text.
func printable(body []byte, most int) string {
	return clip(strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), most)]), "?")))
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
