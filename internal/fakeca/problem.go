package fakeca

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	problemPrefix  = "urn:ietf:params:acme:error:"
	problemContent = "application/problem+json"
)

// Problem is a problem document (RFC 8555 section 6.7, RFC 9457). A zero field is left out of the
// document; Type and Status get a default when the problem is sent. A Problem must not be changed
// once it has been handed to the CA.
type Problem struct {
	// Type is the full URN, or the part after "urn:ietf:params:acme:error:".
	Type string `json:"type,omitempty"`
	// Title is the short summary.
	Title string `json:"title,omitempty"`
	// Detail is the explanation for a human.
	Detail string `json:"detail,omitempty"`
	// Status is the HTTP status; zero means the rule's status, or 400.
	Status int `json:"status,omitempty"`
	// Instance is the URL of this occurrence, such as the terms to agree to.
	Instance string `json:"instance,omitempty"`
	// Identifier is what a subproblem is about.
	Identifier *Identifier `json:"identifier,omitempty"`
	// Subproblems splits the problem by identifier (RFC 8555 section 6.7.1).
	Subproblems []Problem `json:"subproblems,omitempty"`
	// Algorithms goes with badSignatureAlgorithm (RFC 8555 section 6.2).
	Algorithms []string `json:"algorithms,omitempty"`
	// Header is added to the reply, not to the document.
	Header http.Header `json:"-"`
}

// NewProblem makes a problem from the last part of its type, such as "rejectedIdentifier".
func NewProblem(kind string, status int, detail string) *Problem {
	return &Problem{Type: kind, Status: status, Detail: detail}
}

// RateLimited makes a 429 rateLimited problem. A retryAfter above zero is sent, in whole seconds
// rounded up, as a Retry-After header; odd forms of that header are made with [Rule.Header].
func RateLimited(retryAfter time.Duration, detail string) *Problem {
	p := NewProblem("rateLimited", http.StatusTooManyRequests, detail)
	if retryAfter > 0 {
		seconds := int64((retryAfter + time.Second - 1) / time.Second)
		p.Header = http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}}
	}
	return p
}

// Error gives the type, the status and the detail.
func (p *Problem) Error() string {
	return fmt.Sprintf("%s (%d): %s", strings.TrimPrefix(p.Type, problemPrefix), p.Status, p.Detail)
}

// filled returns a copy that is ready to be sent.
func (p *Problem) filled(status int) *Problem {
	q := *p
	if q.Status == 0 {
		q.Status = status
	}
	if q.Status == 0 {
		q.Status = http.StatusBadRequest
	}
	if q.Type == "" {
		q.Type = kindOf(q.Status)
	}
	if !strings.Contains(q.Type, ":") {
		q.Type = problemPrefix + q.Type
	}
	if q.Detail == "" {
		q.Detail = http.StatusText(q.Status)
	}
	return &q
}

// reply turns the problem into an answer; status is used where the problem has none.
func (p *Problem) reply(status int) *reply {
	q := p.filled(status)
	body, err := json.Marshal(q)
	if err != nil { // unreachable: only strings, numbers and slices of them
		panic(err)
	}
	out := newReply(q.Status, problemContent, body)
	edit(out.header, q.Header)
	return out
}

func kindOf(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "rateLimited"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "unauthorized"
	case status == http.StatusConflict:
		return "conflict"
	case status >= 500:
		return "serverInternal"
	}
	return "malformed"
}

func malformed(format string, args ...any) *Problem {
	return NewProblem("malformed", http.StatusBadRequest, fmt.Sprintf(format, args...))
}

func unauthorized(format string, args ...any) *Problem {
	return NewProblem("unauthorized", http.StatusForbidden, fmt.Sprintf(format, args...))
}

func notFound(format string, args ...any) *Problem {
	return NewProblem("malformed", http.StatusNotFound, fmt.Sprintf(format, args...))
}
