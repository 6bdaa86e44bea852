package fakeca

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// authz is guarded by CA.mu, but for what never changes: id, acct and ident.
type authz struct {
	id          string
	acct        *account
	ident       Identifier // wildcards with "*."
	expires     time.Time
	challenges  []*challenge
	deactivated bool
	pending     int // polls left before a met challenge shows
}

// challenge is guarded by CA.mu, but for kind and token.
type challenge struct {
	kind      string
	token     string
	asked     bool // the client has asked for validation
	validated time.Time
	problem   *Problem
}

func (c *CA) newAuthzLocked(acct *account, id Identifier) *authz {
	a := &authz{
		id:      c.nextIDLocked(),
		acct:    acct,
		ident:   id,
		expires: time.Now().Add(orderLife),
		pending: c.opt.PollsBeforeValid,
	}
	for _, kind := range c.challengesFor(id) {
		ch := &challenge{kind: kind}
		if kind != "dns-persist-01" {
			ch.token = rand.Text() + rand.Text()
		}
		a.challenges = append(a.challenges, ch)
	}
	c.authzs[a.id] = a
	return a
}

func (a *authz) statusLocked() string {
	met := false
	for _, ch := range a.challenges {
		if ch.problem != nil {
			return "invalid"
		}
		met = met || !ch.validated.IsZero()
	}
	switch {
	case a.deactivated:
		return "deactivated"
	case time.Now().After(a.expires):
		return "expired"
	case met && a.pending == 0:
		return "valid"
	}
	return "pending"
}

// polledLocked counts a poll that has been answered.
func (a *authz) polledLocked() {
	for _, ch := range a.challenges {
		if !ch.validated.IsZero() && a.pending > 0 {
			a.pending--
			return
		}
	}
}

func (a *authz) wildcard() bool { return strings.HasPrefix(a.ident.Value, "*.") }

// base is the identifier that is proven.
func (a *authz) base() Identifier {
	return Identifier{a.ident.Type, strings.TrimPrefix(a.ident.Value, "*.")}
}

func (c *CA) challengeViewLocked(in *call, a *authz, i int) map[string]any {
	ch := a.challenges[i]
	status := "pending"
	switch {
	case ch.problem != nil:
		status = "invalid"
	case !ch.validated.IsZero() && a.pending == 0:
		status = "valid"
	case ch.asked:
		status = "processing"
	}
	out := map[string]any{
		"type":   ch.kind,
		"url":    in.url("challenge", a.id, strconv.Itoa(i)),
		"status": status,
	}
	if ch.token != "" {
		out["token"] = ch.token
	} else {
		out["accounturi"] = in.url("account", a.acct.id)
		out["issuer-domain-names"] = []string{"ca.test"}
	}
	if status == "valid" {
		out["validated"] = ch.validated.UTC().Format(time.RFC3339)
	}
	if ch.problem != nil {
		out["error"] = ch.problem.filled(http.StatusForbidden)
	}
	return out
}

func (c *CA) authzReplyLocked(in *call, a *authz) *reply {
	out := map[string]any{
		"identifier": a.base(),
		"status":     a.statusLocked(),
		"expires":    a.expires.UTC().Format(time.RFC3339),
	}
	if a.wildcard() {
		out["wildcard"] = true
	}
	challenges := []map[string]any{}
	for i := range a.challenges {
		challenges = append(challenges, c.challengeViewLocked(in, a, i))
	}
	out["challenges"] = challenges
	return jsonReply(http.StatusOK, out)
}

// authzLocked finds an authorization of the caller's.
func (c *CA) authzLocked(in *call, id string) (*authz, *Problem) {
	a := c.authzs[id]
	if a == nil {
		return nil, notFound("there is no authorization %q", id)
	}
	if a.acct != in.acct {
		return nil, unauthorized("the authorization is another account's")
	}
	return a, nil
}

func (c *CA) authz(_ context.Context, in *call) (*reply, error) {
	var ask struct {
		Status string `json:"status"`
	}
	if !in.postAsGet() {
		if bad := in.decode(&ask); bad != nil {
			return nil, bad
		}
		if ask.Status != "deactivated" {
			return nil, malformed("an authorization can only be deactivated")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a, bad := c.authzLocked(in, in.id)
	if bad != nil {
		return nil, bad
	}
	a.deactivated = a.deactivated || ask.Status != ""
	out := c.authzReplyLocked(in, a)
	if in.postAsGet() {
		a.polledLocked()
	}
	return out, nil
}

// challenge reads a challenge, or judges it.
func (c *CA) challenge(ctx context.Context, in *call) (*reply, error) {
	id, index, _ := strings.Cut(in.id, "/")
	i, err := strconv.Atoi(index)
	c.mu.Lock()
	a, bad := c.authzLocked(in, id)
	if bad == nil && (err != nil || i < 0 || i >= len(a.challenges)) {
		bad = notFound("there is no challenge %q", in.id)
	}
	if bad != nil {
		c.mu.Unlock()
		return nil, bad
	}
	ch := a.challenges[i]
	judge := !in.postAsGet() && a.statusLocked() == "pending" && !ch.asked
	if judge {
		ch.asked = true
	}
	c.mu.Unlock()

	if judge {
		if err := c.judge(ctx, in, verdict{a, ch}); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := jsonReply(http.StatusOK, c.challengeViewLocked(in, a, i))
	out.header.Set("Link", "<"+in.url("authz", a.id)+`>;rel="up"`)
	if in.postAsGet() {
		a.polledLocked()
	}
	return out, nil
}

// verdict is what judge has to fill in.
type verdict struct {
	authz     *authz
	challenge *challenge
}

// judge asks the validator. An error means that the request ended meanwhile.
func (c *CA) judge(ctx context.Context, in *call, v verdict) error {
	var err error
	if c.opt.Validate != nil {
		info := ChallengeInfo{
			Type:       v.challenge.kind,
			Token:      v.challenge.token,
			Identifier: v.authz.base(),
			Wildcard:   v.authz.wildcard(),
			Account:    in.req.Kid,
		}
		if info.Token != "" {
			info.KeyAuthorization = info.Token + "." + in.key.thumbprint
		}
		err = c.opt.Validate(ctx, info)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		v.challenge.asked = false
		return ctx.Err()
	}
	if err == nil {
		v.challenge.validated = time.Now()
		v.authz.expires = time.Now().Add(authzLife)
		v.authz.acct.valid[v.authz.ident] = v.authz
		return nil
	}
	if !errors.As(err, &v.challenge.problem) {
		v.challenge.problem = unauthorized("%v", err)
	}
	return nil
}
