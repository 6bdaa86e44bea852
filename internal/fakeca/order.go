package fakeca

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	orderLife = 7 * 24 * time.Hour
	authzLife = 30 * 24 * time.Hour
)

// order is guarded by CA.mu, but for what never changes: id, acct, ids, profile and replaces.
type order struct {
	id       string
	acct     *account
	ids      []Identifier
	profile  string
	replaces string
	created  time.Time
	authzs   []*authz

	accepted   int // finalize requests that were let through
	cert       *issued
	problem    *Problem
	pinned     string // status that hides the real one
	pending    int    // polls left in this status
	ready      int
	processing int
}

// statusLocked is what the client is told. A finalized order without a certificate is being signed.
func (o *order) statusLocked() string {
	switch {
	case o.pinned != "":
		return o.pinned
	case o.problem != nil:
		return "invalid"
	case o.accepted > 0 && o.ready > 0:
		return "ready"
	case o.accepted > 0 && (o.processing > 0 || o.cert == nil):
		return "processing"
	case o.cert != nil:
		return "valid"
	case time.Since(o.created) > orderLife:
		return "invalid"
	}
	return o.beforeLocked()
}

// beforeLocked is the status of an order that has not been finalized.
func (o *order) beforeLocked() string {
	status := "ready"
	for _, a := range o.authzs {
		switch a.statusLocked() {
		case "valid":
		case "pending":
			status = "pending"
		default:
			return "invalid"
		}
	}
	if status == "ready" && o.pending > 0 {
		return "pending"
	}
	return status
}

// polledLocked counts a poll that has been answered.
func (o *order) polledLocked() {
	switch {
	case o.pinned != "":
	case o.accepted > 0 && o.ready > 0:
		o.ready--
	case o.accepted > 0 && o.processing > 0:
		o.processing--
	case o.accepted == 0 && o.pending > 0 && o.authzsValidLocked():
		o.pending--
	}
}

func (o *order) authzsValidLocked() bool {
	return !slices.ContainsFunc(o.authzs, func(a *authz) bool { return a.statusLocked() != "valid" })
}

func (c *CA) orderReplyLocked(in *call, o *order, code int) *reply {
	status := o.statusLocked()
	out := map[string]any{
		"status":      status,
		"expires":     o.created.Add(orderLife).UTC().Format(time.RFC3339),
		"identifiers": o.ids,
		"finalize":    in.url("finalize", o.id),
	}
	authzs := make([]string, len(o.authzs))
	for i, a := range o.authzs {
		authzs[i] = in.url("authz", a.id)
	}
	out["authorizations"] = authzs
	if o.profile != "" {
		out["profile"] = o.profile
	}
	if o.replaces != "" {
		out["replaces"] = o.replaces
	}
	if status == "valid" && o.cert != nil {
		out["certificate"] = in.url("cert", o.cert.serial)
	}
	if p := o.problemLocked(); p != nil && status == "invalid" {
		out["error"] = p.filled(http.StatusForbidden)
	}
	r := jsonReply(code, out)
	if in.req.Endpoint != "order" {
		r.header.Set("Location", in.url("order", o.id))
	}
	return r
}

// problemLocked is the order's own problem or that of its first failed challenge.
func (o *order) problemLocked() *Problem {
	if o.problem != nil {
		return o.problem
	}
	for _, a := range o.authzs {
		for _, ch := range a.challenges {
			if ch.problem != nil {
				return ch.problem
			}
		}
	}
	return nil
}

func (c *CA) newOrder(_ context.Context, in *call) (*reply, error) {
	var ask struct {
		Identifiers []Identifier `json:"identifiers"`
		NotBefore   string       `json:"notBefore"`
		NotAfter    string       `json:"notAfter"`
		Profile     string       `json:"profile"`
		Replaces    string       `json:"replaces"`
	}
	if bad := in.decode(&ask); bad != nil {
		return nil, bad
	}
	if ask.NotBefore != "" || ask.NotAfter != "" {
		return nil, malformed("notBefore and notAfter are not supported")
	}
	ids, bad := normalise(ask.Identifiers)
	if bad != nil {
		return nil, bad
	}
	for _, id := range ids {
		if len(c.challengesFor(id)) == 0 {
			return nil, NewProblem("rejectedIdentifier", http.StatusBadRequest, "no challenge can prove "+id.Value)
		}
	}
	if _, ok := c.opt.Profiles[ask.Profile]; ask.Profile != "" && !ok {
		return nil, NewProblem("invalidProfile", http.StatusBadRequest, "there is no profile "+strconv.Quote(ask.Profile))
	}
	if c.opt.NoARI {
		ask.Replaces = ""
	}
	o := &order{acct: in.acct, ids: ids, profile: ask.Profile, replaces: ask.Replaces, pending: c.opt.PollsBeforeReady}

	c.mu.Lock()
	defer c.mu.Unlock()
	purpose := o.purpose()
	if old := c.open[purpose]; old != nil && ask.Replaces == "" && slices.Contains([]string{"pending", "ready"}, old.statusLocked()) {
		return c.orderReplyLocked(in, old, http.StatusCreated), nil
	}
	if ask.Replaces != "" {
		old, bad := c.replaceableLocked(o)
		if bad != nil {
			return nil, bad
		}
		old.replacedBy = o
	}
	c.addOrderLocked(o)
	if c.opt.OrderReuse {
		c.open[purpose] = o
	}
	return c.orderReplyLocked(in, o, http.StatusCreated), nil
}

func (c *CA) addOrderLocked(o *order) {
	o.id, o.created = c.nextIDLocked(), time.Now()
	for _, id := range o.ids {
		a := o.acct.valid[id]
		if !c.opt.AuthzReuse || a == nil || a.statusLocked() != "valid" {
			a = c.newAuthzLocked(o.acct, id)
		}
		o.authzs = append(o.authzs, a)
	}
	c.orders[o.id] = o
	c.orderList = append(c.orderList, o)
}

// purpose is the same for orders that could stand in for each other.
func (o *order) purpose() string {
	values := make([]string, len(o.ids))
	for i, id := range o.ids {
		values[i] = id.Type + ":" + id.Value
	}
	slices.Sort(values)
	return fmt.Sprintf("%s %q %s", o.acct.id, o.profile, strings.Join(values, ","))
}

// replaceableLocked finds the certificate that the order replaces (RFC 9773 section 5).
func (c *CA) replaceableLocked(o *order) (*issued, *Problem) {
	old := c.byCertIDLocked(o.replaces)
	if old == nil {
		return nil, notFound("the certificate to replace is not known")
	}
	if old.acct != o.acct {
		return nil, unauthorized("the certificate to replace is another account's")
	}
	if !slices.ContainsFunc(o.ids, func(id Identifier) bool { return slices.Contains(old.ids, id) }) {
		return nil, malformed("the certificate to replace has none of the order's identifiers")
	}
	if by := old.replacedBy; by != nil && by.statusLocked() != "invalid" {
		kind := c.opt.ReplacesErrorType
		if kind == "" {
			kind = "alreadyReplaced"
		}
		return nil, NewProblem(kind, http.StatusConflict,
			"cannot indicate an order replaces certificate "+o.replaces+", which already has a replacement order")
	}
	return old, nil
}

// orderLocked finds an order of the caller's.
func (c *CA) orderLocked(in *call) (*order, *Problem) {
	o := c.orders[in.id]
	if o == nil {
		return nil, notFound("there is no order %q", in.id)
	}
	if o.acct != in.acct {
		return nil, unauthorized("the order is another account's")
	}
	return o, nil
}

func (c *CA) order(_ context.Context, in *call) (*reply, error) {
	if !in.postAsGet() {
		return nil, malformed("an order is only read")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o, bad := c.orderLocked(in)
	if bad != nil {
		return nil, bad
	}
	out := c.orderReplyLocked(in, o, http.StatusOK)
	o.polledLocked()
	return out, nil
}
