package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// waiter waits for a condition on a certificate.
type waiter struct {
	call *callWait
	i    int

	// done reports whether the wait is over, and with what error. It is called
	// with the certificate's mu held after each change, and does not block.
	done func(c *managed, now time.Time) (error, bool)
}

// callWait collects what becomes of the certificates that one call waits for.
type callWait struct {
	done chan struct{} // closed when all have ended

	mu      sync.Mutex // guards the fields below
	gone    bool       // nobody waits any more
	pending int        // how many have not ended
	errs    []error    // in the order of the call; nil until the first error
	n       int
}

func newWait(n int) *callWait {
	w := &callWait{done: make(chan struct{}), pending: n, n: n}
	if n == 0 {
		close(w.done)
	}
	return w
}

// end notes how it ended for the i-th. It is called once for each.
func (w *callWait) end(i int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if w.errs == nil {
			w.errs = make([]error, w.n)
		}
		w.errs[i] = err
	}
	if w.pending--; w.pending == 0 {
		close(w.done)
	}
}

// hasLeft reports whether nobody waits any more.
func (w *callWait) hasLeft() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

// await returns the errors when all have ended, or what there is of them when
// ctx ends.
func (w *callWait) await(ctx context.Context, doing string) error {
	var cut error
	select {
	case <-w.done:
	case <-ctx.Done():
		cut = fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	w.mu.Lock()
	w.gone = true
	errs := append(slices.Clone(w.errs), cut)
	done := w.pending == 0
	w.mu.Unlock()
	if done {
		errs = errs[:len(errs)-1]
	}
	return errors.Join(errs...)
}
