package storage

import (
	"errors"
	"sync"
)

// maxWatches is how many locks a Dir hears of at a time; for more it
// tries from time to time. Watches are few in a system.
const maxWatches = 4

// lockWatches lends out the watches of a Dir. They are kept, since the
// kernel takes several milliseconds to close one. Its zero value is ready.
type lockWatches struct {
	mu   sync.Mutex // guards what follows
	made int
	idle []*lockWatch
}

// lend returns a watch, or one that only pauses when there is none to be had.
func (w *lockWatches) lend() *lockWatch {
	got := w.find()
	if got == nil {
		got = newLockWatch()
		if !got.hears() {
			w.mu.Lock()
			w.made--
			w.mu.Unlock()
		}
	}
	got.pause = kernelPause()
	return got
}

// find returns an idle watch or, with as many in use as may be, one that only
// pauses. It returns nil when one may be made, which it counts.
func (w *lockWatches) find() *lockWatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last := len(w.idle) - 1; last >= 0 {
		got := w.idle[last]
		w.idle = w.idle[:last]
		return got
	}
	if w.made == maxWatches {
		return &lockWatch{}
	}
	w.made++
	return nil
}

// giveBack takes a watch back.
func (w *lockWatches) giveBack(got *lockWatch) {
	if !got.hears() {
		return
	}
	got.clear()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = append(w.idle, got)
}

// close closes the idle watches.
func (w *lockWatches) close() error {
	w.mu.Lock()
	idle := w.idle
	w.idle = nil
	w.mu.Unlock()
	var errs []error
	for _, got := range idle {
		errs = append(errs, got.close())
	}
	return errors.Join(errs...)
}
