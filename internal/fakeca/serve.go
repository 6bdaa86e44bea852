package fakeca

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"
)

// call is a request on its way through the CA.
type call struct {
	base string // start of each URL in the reply
	id   string // what follows the endpoint in the path
	req  *Request
	jws  *jws
	key  publicKey // that the request is signed with
	acct *account  // nil when signed with a bare key
}

// signing says how a request to an endpoint is signed.
type signing int

const (
	unsigned signing = iota
	withKid          // by an account
	withJWK          // by a bare key
	either
)

type route struct {
	endpoint string
	signing  signing
	handle   func(*CA, context.Context, *call) (*reply, error)
}

// endpoints maps the first part of a path.
func endpoints() map[string]route {
	return map[string]route{
		"directory":    {"directory", unsigned, (*CA).directory},
		"new-nonce":    {"newNonce", unsigned, (*CA).newNonce},
		"new-account":  {"newAccount", withJWK, (*CA).newAccount},
		"account":      {"account", withKid, (*CA).account},
		"key-change":   {"keyChange", withKid, (*CA).keyChange},
		"new-order":    {"newOrder", withKid, (*CA).newOrder},
		"order":        {"order", withKid, (*CA).order},
		"finalize":     {"finalize", withKid, (*CA).finalize},
		"authz":        {"authz", withKid, (*CA).authz},
		"challenge":    {"challenge", withKid, (*CA).challenge},
		"cert":         {"cert", withKid, (*CA).cert},
		"renewal-info": {"renewalInfo", unsigned, (*CA).renewalInfo},
		"revoke-cert":  {"revokeCert", either, (*CA).revokeCert},
	}
}

func (c *CA) mustKnow(endpoint string) {
	if endpoint == "" {
		return
	}
	for _, r := range c.routes {
		if r.endpoint == endpoint {
			return
		}
	}
	panic("fakeca: unknown endpoint " + endpoint)
}

// serve answers one request. An error means that there is no answer.
func (c *CA) serve(r *http.Request) (*reply, error) {
	in := &call{base: c.opt.BaseURL}
	if in.base == "" {
		in.base = "https://" + r.Host
	}
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, c.prefix), "/")
	first, rest, _ := strings.Cut(path, "/")
	to, ok := c.routes[first]
	if !ok || to.endpoint == "renewalInfo" && c.opt.NoARI {
		return notFound("there is nothing at %s", r.URL.Path).reply(0), nil
	}
	in.id = rest
	refused := c.read(in, to, r)
	c.journal.add(in.req)
	out, err := c.answer(r.Context(), in, to, refused)
	if err != nil {
		return nil, err
	}
	if out.header.Get("Date") == "" {
		out.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	c.journal.done(in.req, out.status)
	return out, nil
}

// read fills in the call as far as the request can be understood.
func (c *CA) read(in *call, to route, r *http.Request) *Problem {
	in.req = &Request{
		Endpoint: to.endpoint,
		Time:     time.Now(),
		Method:   r.Method,
		URL:      in.base + strings.TrimPrefix(r.URL.Path, c.prefix),
		Header:   r.Header.Clone(),
	}
	body, err := readBody(r)
	if err != nil {
		return malformed("%v", err)
	}
	if to.signing == unsigned {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return NewProblem("malformed", http.StatusMethodNotAllowed, "use GET")
		}
		return nil
	}
	if r.Method != http.MethodPost {
		return NewProblem("malformed", http.StatusMethodNotAllowed, "use POST, or POST-as-GET")
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/jose+json" {
		return NewProblem("malformed", http.StatusUnsupportedMediaType, "the Content-Type is not application/jose+json")
	}
	var bad *Problem
	if in.jws, bad = parseJWS(body); bad != nil {
		return bad
	}
	in.req.Protected, in.req.Payload, in.req.Kid = in.jws.protected, in.jws.payload, in.jws.protected.Kid
	return nil
}

// answer gives the reply to a request; refused is what reading it has found.
func (c *CA) answer(ctx context.Context, in *call, to route, refused *Problem) (*reply, error) {
	if out := c.downReply(); out != nil {
		return out, nil
	}
	if refused == nil && in.jws != nil {
		refused = c.authenticate(in, to)
	}
	var chosen *Rule
	if refused == nil {
		chosen = c.match(in.req)
	}
	if in.jws != nil && !chosen.before() {
		nonce := in.req.Protected.Nonce
		if !c.nonces.use(nonce) && refused == nil { // another request was quicker
			refused, chosen = badNonce(nonce), nil
		}
	}
	out, err := c.carryOut(ctx, in, to, step{refused, chosen})
	if err != nil {
		return nil, err
	}
	if to.endpoint != "directory" {
		out.header.Add("Link", "<"+in.base+`/directory>;rel="index"`)
	}
	if to.signing != unsigned || to.endpoint == "newNonce" {
		out.header.Set("Replay-Nonce", c.nonces.issue())
	}
	out.header.Set("Cache-Control", "no-store")
	if chosen != nil {
		chosen.edit(in.req, out)
	}
	return out, nil
}

// step is what has been decided about a request.
type step struct {
	refused *Problem
	rule    *Rule
}

// carryOut does what the request asks for, what the rule says, or both.
func (c *CA) carryOut(ctx context.Context, in *call, to route, s step) (*reply, error) {
	if s.refused != nil {
		return s.refused.reply(0), nil
	}
	rule := s.rule
	if rule == nil {
		return c.handle(ctx, in, to)
	}
	if err := pause(ctx, rule.Delay); err != nil {
		return nil, err
	}
	if rule.before() {
		return nil, rule.lost()
	}
	var out *reply
	if rule.Run || !rule.replaces() && !rule.Hang {
		var err error
		if out, err = c.handle(ctx, in, to); err != nil {
			return nil, err
		}
	}
	if rule.Hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if rule.HangUp == After {
		return nil, rule.lost()
	}
	if rule.replaces() {
		out = rule.reply()
	}
	return out, nil
}

// handle calls the endpoint and turns a problem into a reply.
func (c *CA) handle(ctx context.Context, in *call, to route) (*reply, error) {
	out, err := to.handle(c, ctx, in)
	var p *Problem
	if errors.As(err, &p) {
		return p.reply(0), nil
	}
	return out, err
}

// authenticate finds the key of a signed request and checks URL, nonce and signature. The nonce is
// not used up.
func (c *CA) authenticate(in *call, to route) *Problem {
	head := in.req.Protected
	if (head.Kid == "") == (head.JWK == nil) {
		return malformed("the JWS has not exactly one of kid and jwk")
	}
	if head.Kid == "" && to.signing == withKid || head.Kid != "" && to.signing == withJWK {
		return malformed("a request to %s is not signed that way", to.endpoint)
	}
	if head.URL != in.req.URL {
		return unauthorized("the JWS is for the URL %s, not for %s", head.URL, in.req.URL)
	}
	if head.Kid != "" {
		acct, bad := c.accountByURL(in.base, head.Kid)
		if bad != nil {
			return bad
		}
		in.acct, in.key = acct.account, acct.key
	} else {
		key, err := parseJWK(head.JWK)
		if err != nil {
			return NewProblem("badPublicKey", http.StatusBadRequest, err.Error())
		}
		in.key = key
	}
	if bad := in.jws.check(in.key); bad != nil {
		return bad
	}
	if !c.nonces.known(head.Nonce) {
		return badNonce(head.Nonce)
	}
	return nil
}

func badNonce(nonce string) *Problem {
	return NewProblem("badNonce", http.StatusBadRequest, "the nonce "+nonce+" is not good")
}

// decode reads the payload into v.
func (in *call) decode(v any) *Problem {
	if len(in.req.Payload) == 0 {
		return malformed("the payload is empty")
	}
	if err := json.Unmarshal(in.req.Payload, v); err != nil {
		return malformed("the payload does not fit: %v", err)
	}
	return nil
}

// postAsGet reports whether the request only reads (RFC 8555 section 6.3).
func (in *call) postAsGet() bool { return len(in.req.Payload) == 0 }

func (in *call) url(parts ...string) string { return in.base + "/" + strings.Join(parts, "/") }

func jsonReply(status int, v any) *reply {
	body, err := json.Marshal(v)
	if err != nil { // unreachable: the CA's own structures
		panic(err)
	}
	return newReply(status, "application/json", body)
}
