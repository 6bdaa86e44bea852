package acmeflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/mholt/acmez/v3/acme"
)

// state is what is kept of a request between processes: enough to go on with
// the order that was made for it.
type state struct {
	Directory string `json:"directory"`
	Account   string `json:"account"`
	Order     string `json:"order,omitempty"` // order URL
	Profile   string `json:"profile,omitempty"`

	// NotReplacing is the certificate (RFC 9773 §4.1) that must not be named as
	// replaced again, because the CA refused an order that named it.
	NotReplacing string `json:"not_replacing,omitempty"`
}

// run is one issue.
type run struct {
	c      *Client
	req    *Request
	acct   *account
	state  state
	failed []string // challenge types that failed, most recent last

	mu     sync.Mutex // guards solved
	solved []string   // challenge types that succeeded

	cleaning   sync.WaitGroup // challenges being cleaned up beside the requests that follow
	cleanSlots chan struct{}  // holds a value for each that runs
}

// Issue gets a certificate: it goes on with the order named in req.State when
// the CA still has it, and else makes one. An account that the CA has lost is
// registered again, once.
func (c *Client) Issue(ctx context.Context, req *Request) (*Result, error) {
	if req.Sleep != nil {
		ctx = context.WithValue(ctx, sleepKey{}, req.Sleep)
	}
	r := &run{c: c, req: req, cleanSlots: make(chan struct{}, maxParallelAuthz)}
	if json.Unmarshal(req.State, &r.state) != nil || r.state.Directory != c.opts.Directory {
		r.state = state{Directory: c.opts.Directory}
	}
	var err error
	r.progress(StepAccount, "getting the account ready")
	if r.acct, err = c.currentAccount(ctx); err != nil {
		return nil, err
	}
	res, err := r.issue(ctx)
	if isProblem(err, accountDoesNotExist) {
		if r.acct, err = c.accountAfter(ctx, r.acct.generation); err != nil {
			return nil, err
		}
		res, err = r.issue(ctx)
	}
	if err != nil {
		return nil, err
	}
	res.Failed, res.Solved = r.failed, r.solved
	return res, nil
}

// progress tells what is being done now.
func (r *run) progress(step Step, format string, args ...any) {
	if r.req.Progress != nil {
		r.req.Progress(string(step), fmt.Sprintf(format, args...))
	}
}

func isProblem(err error, problemType string) bool {
	var e *Error
	return errors.As(err, &e) && e.Problem.is(problemType)
}

// issue runs one order to its end, and another one for each challenge type
// that failed.
func (r *run) issue(ctx context.Context) (res *Result, err error) {
	defer r.cleaning.Wait() // also when a solver panics
	var earlier []*Error
	defer func() {
		if e, ok := err.(*Error); ok && len(earlier) > 0 {
			withEarlier := *e
			withEarlier.Earlier = earlier
			err = &withEarlier
		}
	}()
	order, err := r.resume(ctx)
	if err != nil {
		return nil, err
	}
	for resumed := order != nil; ; resumed = false {
		if order == nil {
			if order, err = r.newOrder(ctx); err != nil {
				return nil, err
			}
		}
		res, err := r.complete(ctx, order)
		r.cleaning.Wait()
		if err == nil || ctx.Err() != nil {
			return res, err
		}
		dead := r.dead(err)
		if dead {
			r.drop(ctx)
		}
		// An order that was made by an earlier run may have failed before.
		if !r.otherChallenge(err) && !(dead && resumed) {
			return nil, err
		}
		var e *Error
		if errors.As(err, &e) && e.Challenge != "" {
			earlier = append(earlier, e)
		}
		r.c.log.InfoContext(ctx, "trying again in another way", "names", r.req.Names, "err", err)
		if order, err = r.resume(ctx); err != nil {
			return nil, err
		}
	}
}

// dead reports whether after err the order cannot be gone on with.
func (r *run) dead(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	if errors.Is(err, errDeadOrder) {
		return true
	}
	if e.Problem == nil || e.Step == StepDirectory || e.Step == StepAccount {
		return false
	}
	switch {
	case e.Problem.is(accountDoesNotExist), e.Problem.is(badNonce), e.Problem.is(rateLimited), e.Problem.Status == 429:
		return false
	}
	return e.Problem.Status/100 == 4
}

// errDeadOrder marks an order that the CA has given up or that is of no use.
var errDeadOrder = errors.New("the order is of no use any more")

// deadError is an error after which the order is dead; its text is the cause's.
type deadError struct{ error }

func (d deadError) Unwrap() error        { return d.error }
func (d deadError) Is(target error) bool { return target == errDeadOrder }

// otherChallenge notes the challenge type that failed and reports whether
// another one is left to be tried for the same identifier.
func (r *run) otherChallenge(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Challenge == "" || e.Problem.forAnyChallenge() || slices.Contains(r.failed, e.Challenge) {
		return false
	}
	r.failed = append(r.failed, e.Challenge)
	return slices.ContainsFunc(e.others, func(t string) bool { return !slices.Contains(r.failed, t) })
}

// save keeps the state before the CA acts on it.
func (r *run) save(ctx context.Context) error {
	if r.req.Save == nil {
		return nil
	}
	b, err := json.Marshal(r.state)
	if err == nil {
		err = r.req.Save(ctx, b)
	}
	if err != nil {
		return &Error{Step: StepOrder, Err: fmt.Errorf("keeping the order's URL: %w", err)}
	}
	return nil
}

// sameProblem reports whether two requests were refused for one reason.
func sameProblem(a, b error) bool {
	var x, y *Error
	return errors.As(a, &x) && errors.As(b, &y) && x.Problem != nil && y.Problem != nil && x.Problem.Type == y.Problem.Type
}

// remember keeps the state for the next attempt, which does without when that
// fails.
func (r *run) remember(ctx context.Context) {
	if err := r.save(ctx); err != nil {
		r.c.log.DebugContext(ctx, "keeping the state of an order", "err", err)
	}
}

// drop forgets the order. What cannot be stored is found dead again next time.
func (r *run) drop(ctx context.Context) {
	if r.state.Order == "" {
		return
	}
	r.state.Order = ""
	r.remember(ctx)
}

// resume returns the order that was made before, or nil.
func (r *run) resume(ctx context.Context) (*acme.Order, error) {
	if r.state.Order == "" || r.state.Account != r.acct.Location || r.state.Profile != r.req.Profile {
		r.state.Order = ""
		return nil, nil
	}
	order, err := r.getOrder(ctx, acme.Order{Location: r.state.Order})
	switch {
	case err == nil && order.Status != acme.StatusInvalid && r.sameIdentifiers(order):
		r.c.log.DebugContext(ctx, "going on with an order", "order", order.Location, "status", order.Status)
		return order, nil
	case err != nil && !r.dead(err):
		return nil, err
	}
	r.drop(ctx)
	return nil, nil
}

// newOrder makes the order. It is the one place that builds one, for a first
// issue and for a renewal.
func (r *run) newOrder(ctx context.Context) (*acme.Order, error) {
	dir, err := r.c.directory(ctx)
	if err != nil {
		return nil, err
	}
	want := acme.Order{Profile: r.req.Profile, Replaces: r.replaces(dir)}
	for _, n := range r.req.Names {
		want.Identifiers = append(want.Identifiers, identifier(n))
	}
	if t := r.req.NotBefore; !t.IsZero() {
		want.NotBefore = &t
	}
	if t := r.req.NotAfter; !t.IsZero() {
		want.NotAfter = &t
	}
	r.progress(StepOrder, "making an order")
	order, err := r.postOrder(ctx, want)
	if err != nil && want.Replaces != "" && refusesReplaces(err) {
		// RFC 9773 §5: an order may be refused for what it replaces only.
		r.c.log.InfoContext(ctx, "the CA refused an order that names the replaced certificate; ordering without it", "err", err)
		refusal := err
		r.state.NotReplacing = want.Replaces
		want.Replaces = ""
		order, err = r.postOrder(ctx, want)
		if err != nil && !sameProblem(err, refusal) {
			r.remember(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	r.state.Account, r.state.Order, r.state.Profile = r.acct.Location, order.Location, r.req.Profile
	if err := r.save(ctx); err != nil {
		return nil, err
	}
	return order, nil
}

// refusesReplaces reports whether an order without the replaced certificate
// may fare better: after any refusal but those that speak of something else.
func refusesReplaces(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Problem == nil {
		return false
	}
	switch {
	case e.Problem.Status == 429, e.Problem.is(rateLimited), e.Problem.is(accountDoesNotExist), e.Problem.is(badNonce):
		return false
	case e.Problem.Status == 503:
		return false
	}
	return true
}

// replaces returns the identifier of the certificate that is renewed, when
// this account at this CA issued it and the CA has ARI.
func (r *run) replaces(dir *directory) string {
	if r.req.Replaces == nil || r.req.ReplacesAccount != r.acct.Location {
		return ""
	}
	if dir.RenewalInfo == "" {
		return ""
	}
	id, err := certpem.CertID(r.req.Replaces)
	if err != nil || id == r.state.NotReplacing {
		return ""
	}
	return id
}

func (r *run) postOrder(ctx context.Context, want acme.Order) (*acme.Order, error) {
	var got acme.Order
	x, err := r.c.call(ctx, StepOrder, idempotent, func(ctx context.Context, api *acme.Client) error {
		var err error
		got, err = api.NewOrder(ctx, r.acct.Account, want)
		return err
	})
	if err != nil {
		if x != nil && x.status == 404 {
			r.c.forgetDirectory()
		}
		return nil, err
	}
	for _, f := range []struct{ name, value string }{
		{"Location header", got.Location}, {"member finalize", got.Finalize},
	} {
		if f.value == "" {
			return nil, &Error{Step: StepOrder, URL: x.url, Err: fmt.Errorf("the CA's reply lacks the order's %s (RFC 8555 §7.4)", f.name)}
		}
	}
	if !r.sameIdentifiers(&got) {
		return nil, &Error{Step: StepOrder, URL: got.Location, Err: fmt.Errorf("the CA made an order for %v instead of %v", values(got.Identifiers), r.req.Names)}
	}
	return &got, nil
}

func (r *run) getOrder(ctx context.Context, order acme.Order) (*acme.Order, error) {
	got, _, err := r.pollOrder(ctx, order)
	return got, err
}

// pollOrder fetches an order and how long the CA asks to wait before the next look.
func (r *run) pollOrder(ctx context.Context, order acme.Order) (*acme.Order, time.Duration, error) {
	got := order
	x, err := r.c.call(ctx, StepOrder, idempotent, func(ctx context.Context, api *acme.Client) error {
		var err error
		got, err = api.GetOrder(ctx, r.acct.Account, order)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return &got, x.retryAfter, nil
}

func identifier(name string) acme.Identifier {
	if _, err := netip.ParseAddr(name); err == nil {
		return acme.Identifier{Type: "ip", Value: name}
	}
	return acme.Identifier{Type: "dns", Value: name}
}

func values(ids []acme.Identifier) []string {
	list := make([]string, 0, len(ids))
	for _, id := range ids {
		list = append(list, id.Value)
	}
	return list
}

// sameIdentifiers compares as sets, case-folded: a CA orders them as it likes.
func (r *run) sameIdentifiers(order *acme.Order) bool {
	set := func(list []string) []string {
		out := make([]string, 0, len(list))
		for _, v := range list {
			if ip, err := netip.ParseAddr(v); err == nil {
				v = ip.String()
			}
			out = append(out, strings.ToLower(v))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(set(values(order.Identifiers)), set(r.req.Names))
}
