package certwright

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// callWait collects what becomes of the certificates that one call waits for.
type callWait struct {
	done chan struct{} // closed when all have ended

	mu   sync.Mutex // guards the fields below
	left int
	errs []error // in the order of the call; nil until the first error
	n    int
}

func newWait(n int) *callWait {
	w := &callWait{done: make(chan struct{}), left: n, n: n}
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
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// await returns the errors when all have ended, or what there is of them when
// ctx ends.
func (w *callWait) await(ctx context.Context, doing string) error {
	var left error
	select {
	case <-w.done:
	case <-ctx.Done():
		left = fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	w.mu.Lock()
	errs := append(slices.Clone(w.errs), left)
	done := w.left == 0
	w.mu.Unlock()
	if done {
		errs = errs[:len(errs)-1]
	}
	return errors.Join(errs...)
}
