package fakeca

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Request is one request as the CA saw it.
type Request struct {
	// Endpoint is one of the names in the package comment.
	Endpoint string
	// N counts the requests to this endpoint, from 1.
	N int
	// Time is when the request came in.
	Time time.Time
	// Method and URL are the request's; URL is absolute.
	Method, URL string
	// Header is the HTTP header.
	Header http.Header
	// Kid is the account URL that signed it; empty when signed with a bare key, or not signed.
	Kid string
	// Protected is the protected header of the JWS; zero when the request is not one.
	Protected Protected
	// Payload is the decoded payload of the JWS; empty for a POST-as-GET.
	Payload json.RawMessage
	// Status is that of the reply; zero while there is none, and after a hang-up.
	Status int
}

// journal keeps the last requests, and counts all of them.
type journal struct {
	keep int

	mu     sync.Mutex // guards counts, kept and the Status of what is kept
	counts map[string]int
	kept   []*Request
}

// add numbers the request and keeps it.
func (j *journal) add(r *Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.counts == nil {
		j.counts = make(map[string]int)
	}
	j.counts[r.Endpoint]++
	r.N = j.counts[r.Endpoint]
	if j.keep <= 0 {
		return
	}
	j.kept = append(j.kept, r)
	// Trimmed at twice the size, so that a request costs a constant on average.
	if len(j.kept) > 2*j.keep {
		j.kept = append([]*Request(nil), j.kept[len(j.kept)-j.keep:]...)
	}
}

func (j *journal) done(r *Request, status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Status = status
}

// Requests returns the requests to an endpoint, oldest first; "" means every endpoint. Only the last
// [Options.KeepRequests] requests to the CA are kept.
func (c *CA) Requests(endpoint string) []Request {
	c.mustKnow(endpoint)
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	kept := c.journal.kept
	if over := len(kept) - c.journal.keep; over > 0 {
		kept = kept[over:]
	}
	var out []Request
	for _, r := range kept {
		if endpoint == "" || r.Endpoint == endpoint {
			out = append(out, *r)
		}
	}
	return out
}

// Count returns how many requests an endpoint has had, refused ones included; "" means all endpoints.
func (c *CA) Count(endpoint string) int {
	c.mustKnow(endpoint)
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	if endpoint != "" {
		return c.journal.counts[endpoint]
	}
	total := 0
	for _, n := range c.journal.counts {
		total += n
	}
	return total
}
