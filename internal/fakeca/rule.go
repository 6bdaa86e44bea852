package fakeca

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"
)

// HangUp says when a rule drops the connection.
type HangUp int

const (
	// Never means that the request is answered.
	Never HangUp = iota
	// Before means that the CA never saw the request: nothing changes and its nonce stays good.
	Before
	// After means that the request is carried out and its answer is lost.
	After
)

// Rule makes the CA misbehave. Endpoint, When, N and Count choose the requests; the other fields say
// what happens to them.
//
// A request reaches the rules when its method, nonce and signature are good, as it would reach
// the logic of a real CA; it then uses up its nonce, unless the rule hangs up before. Status, Problem
// and Body replace the reply, and the request is not carried out unless Run is set. A rule with
// none of these lets the request be carried out, and delays it or edits its reply.
type Rule struct {
	// Endpoint is one of the names in the package comment; empty means every endpoint.
	Endpoint string
	// When further narrows the requests; nil means all. It is called without a lock held, perhaps
	// by several goroutines at once.
	When func(*Request) bool
	// N is the first request the rule is for, counted from 1 among those that fit Endpoint and When
	// since the rule was added. Zero with a Count of zero means every request.
	N int
	// Count is the number of requests, from the N-th on, that the rule is for. Zero means one where
	// N is set. A negative Count means all from the N-th on.
	Count int

	// Delay comes before anything else. The request's context cuts it short.
	Delay time.Duration
	// HangUp drops the connection.
	HangUp HangUp
	// Err is what Transport returns for a hang-up; nil means io.ErrUnexpectedEOF. An Err alone is a
	// hang-up before, such as a refused connection.
	Err error
	// Hang gives no answer until the request's context ends.
	Hang bool
	// Run carries the request out before Status, Problem, Body or Hang take its reply away.
	Run bool

	// Status is the status of the replaced reply; zero means the problem's status, or 200.
	Status int
	// Problem is the replaced reply's document. A Status of 400 and more without Problem or Body
	// gets the problem document that goes with it.
	Problem *Problem
	// Body is the replaced reply's body as it is.
	Body []byte
	// ContentType is that of Body; empty means text/html, as proxies send it.
	ContentType string

	// Mutate edits a reply that is a JSON object, whoever made it. Called without a lock held,
	// perhaps by several goroutines at once.
	Mutate func(*Request, map[string]any)
	// Header is set on the reply, in place of what is there; a key without values is taken out.
	Header http.Header
	// NoNonce leaves out the Replay-Nonce header.
	NoNonce bool
}

// rule is a Rule with its count.
type rule struct {
	Rule
	seen int // guarded by CA.rulesMu
}

// On adds a rule behind those that are there, and returns the function that removes it. The first
// rule that is for a request decides alone, but each rule counts every request that fits it. Safe
// for concurrent use.
func (c *CA) On(r Rule) (remove func()) {
	c.mustKnow(r.Endpoint)
	added := &rule{Rule: r}
	c.rulesMu.Lock()
	defer c.rulesMu.Unlock()
	c.rules = append(slices.Clip(c.rules), added)
	return func() {
		c.rulesMu.Lock()
		defer c.rulesMu.Unlock()
		c.rules = slices.DeleteFunc(slices.Clone(c.rules), func(x *rule) bool { return x == added })
	}
}

// match counts the request with every rule that fits it and returns the first that is for it.
func (c *CA) match(req *Request) *Rule {
	c.rulesMu.Lock()
	all := c.rules // never changed in place
	c.rulesMu.Unlock()
	var fit []*rule
	for _, r := range all {
		if (r.Endpoint == "" || r.Endpoint == req.Endpoint) && (r.When == nil || r.When(req)) {
			fit = append(fit, r)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	c.rulesMu.Lock()
	defer c.rulesMu.Unlock()
	var first *Rule
	for _, r := range fit {
		r.seen++
		if first == nil && r.covers(r.seen) {
			first = &r.Rule
		}
	}
	return first
}

// covers reports whether the rule is for the n-th request that fits it.
func (r *Rule) covers(n int) bool {
	from, count := r.N, r.Count
	if from == 0 && count == 0 {
		return true
	}
	from = max(from, 1)
	if count == 0 {
		count = 1
	}
	return n >= from && (count < 0 || n < from+count)
}

// before reports whether the request is lost on its way to the CA.
func (r *Rule) before() bool {
	return r != nil && (r.HangUp == Before || r.HangUp == Never && r.Err != nil)
}

// replaces reports whether the rule has a reply of its own.
func (r *Rule) replaces() bool {
	return r.Status != 0 || r.Problem != nil || r.Body != nil
}

// lost is the error of a hang-up.
func (r *Rule) lost() error {
	if r.Err != nil {
		return r.Err
	}
	return io.ErrUnexpectedEOF
}

// reply makes the rule's own answer.
func (r *Rule) reply() *reply {
	switch {
	case r.Body != nil:
		contentType := r.ContentType
		if contentType == "" {
			contentType = "text/html"
		}
		return newReply(max(r.Status, http.StatusOK), contentType, r.Body)
	case r.Problem != nil:
		out := r.Problem.reply(r.Status)
		if r.Status != 0 {
			out.status = r.Status // the line and the document may disagree
		}
		return out
	case r.Status >= http.StatusBadRequest:
		return (&Problem{}).reply(r.Status)
	}
	return newReply(r.Status, "", nil)
}

// edit applies the rule to a reply, whoever made it.
func (r *Rule) edit(req *Request, out *reply) {
	if r.NoNonce {
		out.header.Del("Replay-Nonce")
	}
	if r.Mutate != nil {
		var object map[string]any
		if json.Unmarshal(out.body, &object) == nil && object != nil {
			r.Mutate(req, object)
			if body, err := json.Marshal(object); err == nil {
				out.body = body
			}
		}
	}
	edit(out.header, r.Header)
}

// edit sets the keys of changes on h, and takes out those without values.
func edit(h, changes http.Header) {
	for key, values := range changes {
		h.Del(key)
		for _, v := range values {
			h.Add(key, v)
		}
	}
}

// pause waits d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
