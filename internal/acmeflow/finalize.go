package acmeflow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	// maxFinalize bounds how often one order is finalized. It is done again
	// only when looks at the order show that the request before did not reach
	// the CA or came too early.
	maxFinalize = 5

	// firstDoubt is for how long an order may be seen ready after a finalize
	// request whose reply was lost, before the request counts as lost too: a
	// CA may show an order ready while it works on it. It grows fourfold.
	firstDoubt = time.Second
)

// progress is what is known of an order beside its status.
type progress struct {
	authorized bool      // every authorization was seen valid
	accepted   bool      // the CA took a finalize request
	sent       int       // finalize requests
	doubtUntil time.Time // the last of them may have reached the CA
	poll       *poll
}

// due reports whether the order is to be finalized now.
func (pr *progress) due(order *acme.Order) bool {
	return order.Status == acme.StatusReady && !pr.accepted && !time.Now().Before(pr.doubtUntil)
}

// complete brings an order from whatever state it is in to a downloaded chain.
func (r *run) complete(ctx context.Context, order *acme.Order) (*Result, error) {
	pr := &progress{poll: newPoll()}
	for {
		switch order.Status {
		case acme.StatusValid:
			return r.download(ctx, order)
		case acme.StatusInvalid:
			return nil, orderError(order)
		}
		next, err := r.advance(ctx, order, pr)
		if err != nil {
			return nil, err
		}
		order = next
	}
}

// advance makes the next step for an order that is neither valid nor invalid.
func (r *run) advance(ctx context.Context, order *acme.Order, pr *progress) (*acme.Order, error) {
	due := pr.due(order)
	if order.Status != acme.StatusReady && order.Status != acme.StatusProcessing && !pr.authorized {
		if err := r.authorize(ctx, order); err != nil {
			return nil, err
		}
		pr.authorized, due = true, true // finalized at once: one look at the order less
	}
	if due {
		next, err := r.finalize(ctx, order, pr)
		if next != nil || err != nil {
			return next, err
		}
	}
	// A CA may show an authorization valid before the order is ready, and an
	// order ready after it took the finalize request: both are waited out.
	if !pr.poll.wait(ctx) {
		return nil, &Error{Step: StepFinalize, URL: order.Location, Err: fmt.Errorf("waiting for the order, which is %q: %w", order.Status, context.Cause(ctx))}
	}
	next, retryAfter, err := r.pollOrder(ctx, *order)
	if err == nil && next.Status == acme.StatusPending {
		pr.doubtUntil = time.Time{} // the CA did not take the request: it came too early
	}
	pr.poll.next(retryAfter)
	return next, err
}

// finalize sends the CSR. It returns nil and nil when only a look at the order
// can tell what became of it.
func (r *run) finalize(ctx context.Context, order *acme.Order, pr *progress) (*acme.Order, error) {
	if pr.sent >= maxFinalize {
		return nil, &Error{Step: StepFinalize, URL: order.Location, Err: deadError{fmt.Errorf("the order is still %q after %d finalize requests", order.Status, pr.sent)}}
	}
	if order.Finalize == "" {
		return nil, &Error{Step: StepFinalize, URL: order.Location, Err: deadError{errors.New("the order lacks the member finalize (RFC 8555 §7.1.3)")}}
	}
	r.progress(StepFinalize, "sending the CSR")
	pr.doubtUntil = time.Now().Add(firstDoubt << (2 * pr.sent))
	pr.sent++
	var got acme.Order
	x, err := r.c.call(ctx, StepFinalize, askFirst, func(ctx context.Context, api *acme.Client) error {
		var err error
		got, err = api.FinalizeOrder(ctx, r.acct.Account, *order, r.req.CSR)
		return err
	})
	switch {
	case err == nil, x != nil && x.ok():
		pr.accepted = true
		retryAfter := time.Duration(0)
		if x != nil {
			retryAfter = x.retryAfter
		}
		if got.Status == acme.StatusValid || got.Status == acme.StatusInvalid {
			return &got, nil
		}
		// Some CAs are done when they reply, and do not say so; for the others
		// the way to the CA and back is a pause.
		pr.poll = new(poll)
		if retryAfter > 0 {
			pr.poll.next(retryAfter)
		}
		return nil, nil
	case ctx.Err() != nil:
		return nil, err
	case x != nil && (x.problem.is(orderNotReady) || x.err != nil || x.transient()):
		r.c.log.DebugContext(ctx, "looking at the order after an unclear finalize request", "order", order.Location, "err", err)
		return nil, nil
	}
	return nil, err
}

func (r *run) download(ctx context.Context, order *acme.Order) (*Result, error) {
	fail := func(err error) error {
		return &Error{Step: StepDownload, URL: order.Certificate, Err: err}
	}
	if order.Certificate == "" {
		return nil, &Error{Step: StepDownload, URL: order.Location, Err: deadError{errors.New("the valid order lacks the member certificate (RFC 8555 §7.1.3)")}}
	}
	r.progress(StepDownload, "downloading the chain")
	// GetOrder is acmez's plain POST-as-GET (RFC 8555 §6.3). GetCertificateChain
	// would download every alternate chain and ask for renewal info besides.
	x, err := r.c.call(ctx, StepDownload, idempotent, func(ctx context.Context, api *acme.Client) error {
		_, err := api.GetOrder(ctx, r.acct.Account, acme.Order{Location: order.Certificate})
		return err
	})
	if err != nil {
		return nil, err
	}
	if x.chain == nil {
		return nil, fail(errors.New("the CA sent no chain"))
	}
	if err := r.fits(x.chain); err != nil {
		return nil, fail(deadError{err})
	}
	return &Result{
		ChainPEM:  x.chain,
		URL:       order.Certificate,
		Account:   r.acct.Location,
		Directory: r.c.opts.Directory,
	}, nil
}

// orderError says why an order became invalid.
func orderError(order *acme.Order) error {
	e := &Error{Step: StepFinalize, URL: order.Location, Err: deadError{errors.New("the order is invalid")}}
	if order.Error != nil {
		e.Problem = fromAcmez(order.Error)
	}
	return e
}
