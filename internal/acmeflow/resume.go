package acmeflow

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// maxStill is for how long an order that could be finalized, or was, may not
// change from one attempt to the next before it counts as given up (F33).
const maxStill = time.Hour

// state is what is kept of a request between processes: enough to go on with
// the order that was made for it, and to know what has failed.
type state struct {
	Directory string `json:"directory"`
	Account   string `json:"account"`
	Order     string `json:"order,omitempty"` // order URL
	Profile   string `json:"profile,omitempty"`

	// Status is what the order was seen in last, of those that come after its
	// authorizations, and Since when it was seen so first.
	Status string    `json:"status,omitempty"`
	Since  time.Time `json:"since,omitzero"`

	// NotReplacing is the certificate (RFC 9773 §4.1) that must not be named as
	// replaced again, because the CA refused an order that named it.
	NotReplacing string `json:"not_replacing,omitempty"`

	// Failed are the challenge types that failed, by name, the latest last.
	Failed map[string][]string `json:"failed,omitempty"`
}

// save keeps the state before the CA acts on it.
func (r *run) save(ctx context.Context) error {
	r.mu.Lock()
	b, err := json.Marshal(r.state)
	r.mu.Unlock()
	if r.req.Save == nil || string(b) == string(r.kept) {
		return nil
	}
	if err == nil {
		err = r.req.Save(ctx, b)
	}
	if err != nil {
		return &Error{Step: StepOrder, Err: fmt.Errorf("keeping the order's URL: %w", err)}
	}
	r.kept = b
	return nil
}

// remember keeps the state for the next attempt, which does without when that
// fails. ctx may have ended: it is Save that knows whether it may still store.
func (r *run) remember(ctx context.Context) {
	if err := r.save(ctx); err != nil {
		r.c.log.DebugContext(ctx, "keeping the state of an order", "err", err)
	}
}

// seen notes the status of the order.
func (r *run) seen(o *order) {
	switch o.Status {
	case r.state.Status:
	case acme.StatusReady, acme.StatusProcessing, acme.StatusValid:
		r.state.Status, r.state.Since = o.Status, r.now()
	default:
		r.unseen()
	}
}

func (r *run) unseen() { r.state.Status, r.state.Since = "", time.Time{} }

func (r *run) dropOrder() {
	r.state.Order = ""
	r.unseen()
}

// resume returns the order that was made before, or nil. An order of another
// process that is of no use may have had the key certified.
func (r *run) resume(ctx context.Context) (*order, error) {
	if r.state.Order == "" {
		return nil, nil
	}
	why := "it was made for another account or profile"
	if r.state.Account == r.acct.Location && r.state.Profile == r.req.Profile {
		o := &order{URL: r.state.Order}
		_, err := r.fetchInto(ctx, StepOrder, o.URL, o)
		if err != nil && !asError(err).isDead() {
			return nil, err
		}
		if r.made == "" && o.Status != acme.StatusPending {
			urls := slices.Clone(o.Authorizations) // o changes
			r.cleaning.Go(func() { r.withdrawAll(ctx, urls) })
		}
		if why = r.useless(o, err); why == "" {
			r.keySent = r.keySent || o.Status == acme.StatusProcessing || o.Status == acme.StatusValid
			r.c.log.DebugContext(ctx, "going on with an order", "order", o.URL, "status", o.Status)
			return o, nil
		}
	}
	r.why = why
	r.c.log.InfoContext(ctx, "not going on with an order", "order", r.state.Order, "why", why)
	r.keySent = r.keySent || r.state.Order != r.made
	r.dropOrder()
	r.remember(ctx)
	return nil, nil
}

// now is the time by the CA's clock.
func (r *run) now() time.Time { return time.Now().Add(r.c.Skew()).UTC().Truncate(time.Second) }

// useless says why an order is not gone on with, or "".
func (r *run) useless(o *order, err error) string {
	now := r.now()
	expires, notime := time.Parse(time.RFC3339, o.Expires)
	switch {
	case err != nil:
		return err.Error()
	case o.Status == acme.StatusInvalid:
		return orderError(o).Error()
	case !r.sameIdentifiers(o):
		return fmt.Sprintf("it is for %v", o.names())
	case o.Status != acme.StatusValid && notime == nil && now.After(expires):
		return "it has expired"
	case r.state.Status == o.Status && !r.state.Since.IsZero() && now.Sub(r.state.Since).Abs() > maxStill:
		return fmt.Sprintf("it has been %s since %s", o.Status, r.state.Since.Format(time.RFC3339))
	}
	return ""
}

// noteFailed remembers that a challenge type failed for a name.
func (r *run) noteFailed(name, challengeType string, validated bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[name] = append(without(r.failed[name], challengeType), challengeType)
	r.state.Failed[name] = r.failed[name]
	if validated {
		r.counts[name]++
	}
}

// noteSolved remembers that a challenge type works for a name.
func (r *run) noteSolved(name, challengeType string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed[name] = without(r.failed[name], challengeType); len(r.failed[name]) == 0 {
		delete(r.failed, name)
	}
}

// without returns a copy of types without one.
func without(types []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(types), func(t string) bool { return t == one })
}
