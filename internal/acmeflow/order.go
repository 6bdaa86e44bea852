package acmeflow

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// After a write some CAs do not find for a moment what they have just made.
	settleTime  = 30 * time.Second
	settlePause = 500 * time.Millisecond
)

// run is one issue.
type run struct {
	c     *Client
	req   *Request
	acct  *acme.Account
	state state

	kept    []byte          // the state as it was saved last
	made    string          // the order that this run made
	lost    bool            // the CA had lost the account
	keySent bool            // the CA has, or may have, seen the CSR
	why     string          // the order before was not gone on with
	again   map[string]bool // by name: an attempt before this one has failed
	wrote   time.Time       // when the CA was last asked to make or change something

	mu     sync.Mutex          // guards the fields below
	failed map[string][]string // challenge types that failed, by name, the latest last
	counts map[string]int      // failed validations by name

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
	r := &run{
		c: c, req: req, kept: req.State, again: map[string]bool{}, failed: map[string][]string{}, counts: map[string]int{},
		cleanSlots: make(chan struct{}, maxParallelAuthz),
	}
	if json.Unmarshal(req.State, &r.state) != nil || r.state.Directory != c.opts.Directory {
		r.state = state{Directory: c.opts.Directory}
	}
	for name, types := range req.Failed {
		r.failed[name] = slices.Clone(types)
	}
	for name, types := range r.state.Failed {
		r.failed[name], r.again[name] = slices.Clone(types), true
	}
	r.progress(StepAccount, "getting the account ready")
	var err error
	if r.acct, err = c.accountAfter(ctx, nil); err != nil {
		return nil, err
	}
	res, err := r.issue(ctx)
	if e := asError(err); e != nil && e.Problem.is(accountDoesNotExist) {
		if r.acct, err = c.accountAfter(ctx, r.acct); err != nil {
			return nil, err
		}
		r.lost = true
		res, err = r.issue(ctx)
	}
	if e := asError(err); e != nil {
		e.Validations = r.counts
		return nil, err
	}
	res.Failed = r.failed
	return res, nil
}

// progress tells what is being done now.
func (r *run) progress(step Step, format string, args ...any) {
	if r.req.Progress != nil {
		r.req.Progress(string(step), fmt.Sprintf(format, args...))
	}
}

// issue runs one order to its end, and another one when a challenge failed that
// there is another type for.
func (r *run) issue(ctx context.Context) (*Result, error) {
	defer r.cleaning.Wait()
	var earlier []*Error
	o, err := r.resume(ctx)
	for resumed := o != nil; err == nil; resumed = false {
		if o == nil {
			if o, err = r.newOrder(ctx); err != nil {
				break
			}
		}
		var res *Result
		if res, err = r.complete(ctx, o); err == nil {
			return res, nil
		}
		r.cleaning.Wait()
		dead := asError(err).isDead()
		if dead {
			r.state.Order = ""
		}
		r.remember(ctx)
		// An order that was made by an earlier run may have failed before.
		if ctx.Err() != nil || !r.otherChallenge(err) && !(dead && resumed) {
			break
		}
		r.c.log.InfoContext(ctx, "trying again in another way", "names", r.req.Names, "err", err)
		e := asError(err)
		r.why = e.Error()
		earlier = append(append(earlier, e.Earlier...), e)
		o, err = r.resume(ctx)
	}
	e := asError(err)
	e.Gone = e.Gone || e.isDead() && r.keySent
	e.Earlier = append(e.Earlier, earlier...)
	return nil, e
}

// otherChallenge reports whether every name that failed has another challenge
// type to be tried for it now: in the first attempt for a name all types are
// tried, in later ones one, so that a name that cannot be validated stays below
// what a CA lets it fail (F22). What could not be set up has cost nothing there.
func (r *run) otherChallenge(err error) bool {
	e := asError(err)
	for _, e := range append([]*Error{e}, e.Earlier...) {
		if e.Challenge == "" || len(e.others) == 0 || r.again[e.Identifier] && e.Step == StepChallenge {
			return false
		}
	}
	return true
}

// newOrder makes the order. It is the one place that builds one, for a first
// issue and for a renewal.
func (r *run) newOrder(ctx context.Context) (*order, error) {
	if r.keySent {
		return nil, &Error{Step: StepOrder, Gone: true, Again: r.made == "" || r.lost, Err: fmt.Errorf("an order made before is of no use any more, and a new one needs a new key; %s", r.why)}
	}
	dir, err := r.c.directory(ctx)
	if err != nil {
		return nil, err
	}
	want := acme.Order{Profile: r.req.Profile, Replaces: r.replaces(dir)}
	for _, n := range r.req.Names {
		want.Identifiers = append(want.Identifiers, identifier(n))
	}
	if t := r.req.NotAfter; !t.IsZero() {
		want.NotAfter = &t
	}
	r.progress(StepOrder, "making an order")
	o, err := r.postOrder(ctx, want)
	if err != nil && want.Replaces != "" && refusesReplaces(err) {
		// RFC 9773 §5: an order may be refused for what it replaces only.
		r.c.log.InfoContext(ctx, "the CA refused an order that names the replaced certificate; ordering without it", "err", err)
		refusal := asError(err)
		r.state.NotReplacing = want.Replaces
		want.Replaces = ""
		o, err = r.postOrder(ctx, want)
		if err != nil && !asError(err).Problem.is(refusal.Problem.Type) {
			r.remember(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	r.made = o.URL
	r.state.Account, r.state.Order, r.state.Profile = r.acct.Location, o.URL, r.req.Profile
	r.state.Status, r.state.Since = "", time.Time{}
	if err := r.save(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

// refusesReplaces reports whether an order without the replaced certificate
// may fare better: after any refusal but those that speak of something else.
func refusesReplaces(err error) bool {
	e := asError(err)
	if e == nil || e.Problem == nil || e.Step != StepOrder {
		return false
	}
	switch {
	case e.Problem.is(rateLimited), e.Problem.is(accountDoesNotExist), e.Problem.is(badNonce), e.Problem.Status == 429:
		return false
	case e.Problem.Status == 503:
		return false
	}
	return true
}

// replaces returns the identifier of the certificate that is renewed, when
// this account at this CA issued it and the CA has ARI.
func (r *run) replaces(dir *directory) string {
	if r.req.Replaces == nil || r.req.ReplacesAccount != r.acct.Location || dir.renewalInfo == "" {
		return ""
	}
	id, err := certpem.CertID(r.req.Replaces)
	if err != nil || id == r.state.NotReplacing {
		return ""
	}
	return id
}

func (r *run) postOrder(ctx context.Context, want acme.Order) (*order, error) {
	x, err := r.c.call(ctx, StepOrder, idempotent, func(ctx context.Context, api *acme.Client) error {
		_, err := api.NewOrder(ctx, *r.acct, want)
		return err
	})
	r.wrote = time.Now()
	if err != nil {
		e := asError(err)
		if x != nil && x.status == 404 {
			r.c.forgetDirectory()
		}
		if e.Problem.is(unauthorized) && e.Problem.Status/100 == 4 {
			e.Err = fmt.Errorf("the CA does not accept the account %s; if it was deactivated, another one is made once its record is removed from storage", r.acct.Location)
		}
		return nil, err
	}
	o := &order{URL: x.location, Identifiers: want.Identifiers}
	o.update(parseObject(x.body))
	for _, f := range []struct{ name, value string }{{"Location header", o.URL}, {"member finalize", o.Finalize}} {
		if f.value == "" {
			return nil, &Error{Step: StepOrder, URL: x.url, Err: fmt.Errorf("the CA's reply lacks the order's %s (RFC 8555 §7.4)", f.name)}
		}
	}
	if !r.sameIdentifiers(o) {
		return nil, &Error{Step: StepOrder, URL: o.URL, Err: fmt.Errorf("the CA made an order for %v instead of %v", values(o.Identifiers), r.req.Names)}
	}
	return o, nil
}

// fetch reads one of the CA's resources by a POST-as-GET (RFC 8555 §6.3), which
// is what acmez's GetOrder is. What is not found is asked for again when the CA
// was just told to make it (F25).
func (r *run) fetch(ctx context.Context, step Step, url string) (*exchange, error) {
	for pause := settlePause; ; pause *= 2 {
		x, err := r.c.call(ctx, step, idempotent, func(ctx context.Context, api *acme.Client) error {
			_, err := api.GetOrder(ctx, *r.acct, acme.Order{Location: url})
			return err
		})
		if err == nil || x == nil || x.status != 404 || time.Since(r.wrote) > settleTime || !sleep(ctx, pause) {
			return x, err
		}
	}
}

// fetchObject is fetch for what is a JSON object.
func (r *run) fetchObject(ctx context.Context, step Step, url string) (*exchange, object, error) {
	x, err := r.fetch(ctx, step, url)
	if err != nil {
		return x, nil, err
	}
	obj := parseObject(x.body)
	if obj == nil {
		return x, nil, x.error(step, nil)
	}
	return x, obj, nil
}

// pollOrder brings o up to date and returns how long the CA asks to wait before
// the next look.
func (r *run) pollOrder(ctx context.Context, o *order) (time.Duration, error) {
	x, obj, err := r.fetchObject(ctx, StepOrder, o.URL)
	if err != nil {
		return 0, err
	}
	o.update(obj)
	return x.retryAfter, nil
}

func values(ids []acme.Identifier) []string {
	list := make([]string, 0, len(ids))
	for _, id := range ids {
		list = append(list, id.Value)
	}
	return list
}
