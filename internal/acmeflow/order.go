package acmeflow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
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
	acct  *account
	state state

	kept    []byte              // the state as it was saved last
	made    string              // the order that this run made
	lost    bool                // the CA had lost the account
	keySent bool                // the CA has, or may have, seen the CSR
	why     string              // the order before was not gone on with
	before  map[string][]string // challenge types that failed in attempts before this one, by name
	wrote   time.Time           // when the CA was last asked to make or change something

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
		c: c, req: req, kept: req.State, failed: map[string][]string{}, counts: map[string]int{},
		cleanSlots: make(chan struct{}, maxParallelAuthz),
	}
	if json.Unmarshal(req.State, &r.state) != nil || r.state.Directory != c.opts.Directory {
		r.state = state{Directory: c.opts.Directory}
	}
	if r.state.Failed == nil {
		r.state.Failed = map[string][]string{}
	}
	maps.Copy(r.failed, req.Failed)
	maps.Copy(r.failed, r.state.Failed)
	r.before = maps.Clone(r.state.Failed)
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
			r.dropOrder()
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
		isLater := r.before[e.Identifier] != nil || r.req.Once[e.Identifier]
		if e.Challenge == "" || !e.another || isLater && e.Step == StepChallenge {
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
	if e := asError(err); e != nil && want.Replaces != "" && e.Step == StepOrder && e.Problem != nil && !e.Problem.elsewhere() {
		// RFC 9773 §5: an order may be refused for what it replaces only.
		r.c.log.InfoContext(ctx, "the CA refused an order that names the replaced certificate; ordering without it", "err", err)
		r.state.NotReplacing = want.Replaces
		want.Replaces = ""
		o, err = r.postOrder(ctx, want)
		if err != nil && !asError(err).Problem.is(e.Problem.Type) {
			r.remember(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	r.made = o.URL
	r.state.Account, r.state.Order, r.state.Profile = r.acct.Location, o.URL, r.req.Profile
	if err := r.save(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

// replaces returns the identifier of the certificate that is renewed, when
// this account at this CA issued it and the CA has ARI.
func (r *run) replaces(dir *directory) string {
	if r.req.Replaces == nil || r.req.ReplacesAccount != r.acct.Location || dir.RenewalInfo == "" {
		return ""
	}
	id, err := certpem.CertID(r.req.Replaces)
	if err != nil || id == r.state.NotReplacing {
		return ""
	}
	return id
}

func (r *run) postOrder(ctx context.Context, want acme.Order) (*order, error) {
	x, err := r.c.call(ctx, StepOrder, func(ctx context.Context, api *acme.Client) error {
		_, err := api.NewOrder(ctx, r.acct.Account, want)
		return err
	})
	r.wrote = time.Now()
	if err != nil {
		if x.status == 404 {
			r.c.forgetDirectory(ctx)
		}
		if e := asError(err); e.Problem.is(unauthorized) && e.Problem.Status/100 == 4 {
			e.Err = fmt.Errorf("the CA does not accept the account %s", r.acct.Location)
		}
		return nil, err
	}
	o := &order{URL: x.location}
	decode(x.body, o)
	if o.URL == "" || o.Finalize == "" {
		return nil, &Error{Step: StepOrder, URL: x.url, Err: fmt.Errorf("the CA's reply lacks the order's Location header or member finalize (RFC 8555 §7.4): %s", x.firstBytes())}
	}
	if o.Identifiers != nil && !r.sameIdentifiers(o) {
		return nil, &Error{Step: StepOrder, URL: o.URL, Err: fmt.Errorf("the CA made an order for %v instead of %v", o.names(), r.req.Names)}
	}
	return o, nil
}

// ask reads one of the CA's resources by a POST-as-GET (RFC 8555 §6.3), which is
// what acmez's GetOrder is.
func (r *run) ask(ctx context.Context, step Step, url string) (*exchange, error) {
	return r.c.call(ctx, step, func(ctx context.Context, api *acme.Client) error {
		_, err := api.GetOrder(ctx, r.acct.Account, acme.Order{Location: url})
		return err
	})
}

// fetch is ask, again when the CA was just told to make what is not found (F25).
func (r *run) fetch(ctx context.Context, step Step, url string) (*exchange, error) {
	for pause := settlePause; ; pause *= 2 {
		x, err := r.ask(ctx, step, url)
		if err == nil || x.status != 404 || time.Since(r.wrote) > settleTime || !sleep(ctx, pause) {
			return x, err
		}
	}
}

// fetchInto is fetch for the JSON object that v points to. It returns how long
// the CA asks to wait before the next look.
func (r *run) fetchInto(ctx context.Context, step Step, url string, v any) (time.Duration, error) {
	x, err := r.fetch(ctx, step, url)
	if err == nil && !decode(x.body, v) {
		err = x.error(step, nil)
	}
	return x.retryAfter, err
}
