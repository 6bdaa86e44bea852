package acmeflow

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// maxFinalize bounds how often one order is finalized. It is done again
	// only when looks at the order show that the request before did not reach
	// the CA or came too early.
	maxFinalize = 4

	// firstDoubt is for how long an order may be seen ready after a finalize
	// request whose reply was lost, before the request counts as lost too: a
	// CA may show an order ready while it works on it. It grows fourfold.
	firstDoubt = time.Second
)

// finalizing is what is known of an order beside its status.
type finalizing struct {
	accepted   bool      // the CA took a finalize request
	sent       int       // finalize requests
	doubtUntil time.Time // the last of them may have reached the CA
	last       error     // what was answered to it when the CA did not take it
	poll       *poll
}

// complete brings an order from whatever state it is in to a downloaded chain.
func (r *run) complete(ctx context.Context, o *order) (*Result, error) {
	f, authorized := &finalizing{poll: newPoll()}, false
	for {
		r.seen(o)
		due := o.Status == acme.StatusReady && !f.accepted && !time.Now().Before(f.doubtUntil)
		switch o.Status {
		case acme.StatusValid:
			return r.download(ctx, o)
		case acme.StatusInvalid:
			return nil, orderError(o)
		case acme.StatusReady, acme.StatusProcessing:
		default:
			if !authorized {
				if err := r.authorize(ctx, o); err != nil {
					return nil, err
				}
				authorized, due = true, true // finalized at once: one look at the order less
			}
		}
		if due {
			if err := r.finalize(ctx, o, f); err != nil {
				return nil, err
			}
			if o.Status == acme.StatusValid || o.Status == acme.StatusInvalid {
				continue
			}
		}
		if err := r.look(ctx, o, f); err != nil {
			return nil, err
		}
	}
}

// look waits and asks for the order. A CA may show an authorization valid before
// the order is ready, and an order ready after it took the finalize request (P5):
// both are waited out.
func (r *run) look(ctx context.Context, o *order, f *finalizing) error {
	if !f.poll.wait(ctx) {
		return &Error{Step: StepFinalize, URL: o.URL, Err: f.why(fmt.Errorf("waiting for the order, which is %q: %w", o.Status, context.Cause(ctx)))}
	}
	before := o.Status
	retryAfter, err := r.fetchInto(ctx, StepOrder, o.URL, o)
	if err != nil {
		return err
	}
	if o.Status == acme.StatusPending {
		f.doubtUntil = time.Time{} // the CA did not take the request: it came too early
	}
	if o.Status != before {
		r.progress(StepFinalize, "the order is %s", o.Status)
	}
	f.poll.next(retryAfter)
	return nil
}

// why adds what was last answered to a finalize request.
func (f *finalizing) why(err error) error {
	if f.last == nil {
		return err
	}
	return fmt.Errorf("%w; the last answer: %w", err, f.last)
}

// finalize sends the CSR and takes the order's new status from the reply. When
// that is not valid or invalid, only a look at the order can tell what became of it.
func (r *run) finalize(ctx context.Context, o *order, f *finalizing) error {
	if f.sent >= maxFinalize {
		last := asError(f.last)
		return &Error{
			Step: StepFinalize, URL: o.URL, dead: last != nil && last.Problem.is(orderNotReady),
			Err: f.why(fmt.Errorf("the order is still %q after %d finalize requests", o.Status, f.sent)),
		}
	}
	if o.Finalize == "" {
		return &Error{Step: StepFinalize, URL: o.URL, dead: true, Err: errors.New("the order lacks the member finalize (RFC 8555 §7.1.3)")}
	}
	r.progress(StepFinalize, "sending the CSR")
	f.doubtUntil = time.Now().Add(firstDoubt << (2 * f.sent))
	f.sent++
	r.keySent = true
	x, err := r.c.call(ctx, StepFinalize, func(ctx context.Context, api *acme.Client) error {
		_, err := api.FinalizeOrder(ctx, r.acct.Account, acme.Order{Finalize: o.Finalize}, r.req.CSR)
		return err
	})
	r.wrote = time.Now()
	switch {
	case err == nil && !hasStatus(x.body): // somebody's empty reply: only the order can tell
		f.last = x.error(StepFinalize, nil)
		return nil
	case err == nil:
		f.accepted, f.last = true, nil
		decode(x.body, o)
		// Some CAs are done when they reply, and do not say so; for the others
		// the way to the CA and back is a pause.
		f.poll = new(poll)
		if x.retryAfter > 0 {
			f.poll.next(x.retryAfter)
		}
		return nil
	case ctx.Err() != nil:
		return err
	case x.problem.is(orderNotReady), x.problem == nil, x.transient():
		// A lost reply, or one that is not the CA's word: it may have taken it (P8, F25).
		f.last = err
		r.progress(StepFinalize, "looking at the order after an unclear answer: %v", err)
		r.c.log.DebugContext(ctx, "looking at the order after an unclear finalize request", "order", o.URL, "err", err)
		return nil
	}
	return err
}

func hasStatus(body []byte) bool {
	var o order
	return decode(body, &o) && o.Status != ""
}

func (r *run) download(ctx context.Context, o *order) (*Result, error) {
	if o.Certificate == "" {
		return nil, &Error{Step: StepDownload, URL: o.URL, dead: true, Err: errors.New("the valid order lacks the member certificate (RFC 8555 §7.1.3)")}
	}
	r.progress(StepDownload, "downloading the chain")
	x, err := r.fetch(ctx, StepDownload, o.Certificate)
	if err != nil {
		return nil, err
	}
	fail := func(dead bool, err error) error {
		return &Error{Step: StepDownload, URL: o.Certificate, dead: dead, Err: err}
	}
	csr, err := x509.ParseCertificateRequest(r.req.CSR)
	if err != nil {
		return nil, fail(true, fmt.Errorf("parsing the CSR: %w", err))
	}
	leaf, err := findLeaf(x.body, csr)
	switch {
	case errors.Is(err, errNoChain):
		return nil, fail(false, fmt.Errorf("%w but %s", err, x.firstBytes()))
	case err != nil:
		return nil, fail(true, err)
	}
	now, skew := time.Now(), r.c.Skew()
	if now.After(leaf.NotAfter) && now.Add(skew).Before(leaf.NotAfter) {
		// F12: another order would bring another one like it. That the order does
		// not change is no fault of the CA.
		r.unseen()
		return nil, fail(false, fmt.Errorf("the certificate expired at %s by the clock of this host, which differs from the CA's by %v: set it right",
			leaf.NotAfter.UTC().Format(time.RFC3339), skew.Abs().Round(time.Second)))
	}
	return &Result{ChainPEM: x.body, URL: o.Certificate, Account: r.acct.Location, Directory: r.c.opts.Directory}, nil
}

// errNoChain is a reply that may be a chain when it is asked for again.
var errNoChain = errors.New("the CA sent no whole chain")

// findLeaf returns the certificate for the CSR's key in PEM text. What else is in
// there is judged by who uses it; a private key is not looked at (RFC 8555 §11.4).
func findLeaf(text []byte, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return nil, errors.New("the chain that the CA sent holds a private key (RFC 8555 §11.4)")
	}
	found := bytes.Count(text, []byte("-----BEGIN "))
	blocks := found
	var leaf *x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		blocks, text = blocks-1, rest
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && leaf == nil && certpem.Match(cert.PublicKey, csr.PublicKey) {
			leaf = cert
		}
	}
	switch {
	case blocks > 0: // the decoder passed over a damaged one
		return nil, fmt.Errorf("%w: the PEM text is damaged", errNoChain)
	case leaf == nil && found == 0:
		return nil, errNoChain
	case leaf == nil:
		return nil, errors.New("no certificate in the chain is for the key in the CSR")
	}
	return leaf, nil
}

// orderError says why an order became invalid.
func orderError(o *order) *Error {
	return &Error{Step: StepFinalize, URL: o.URL, Problem: o.Problem, dead: true, Err: errors.New("the order is invalid")}
}
