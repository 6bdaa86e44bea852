package storage

import (
	"context"
	"slices"
	"sync"
)

// turns hands out one turn a name at a time, first come, first served, within
// this process. Its zero value is ready. Waiting is on a channel only.
type turns struct {
	mu    sync.Mutex // guards queue
	queue map[string][]chan struct{}
}

// take waits for the turn on name until ctx ends.
func (t *turns) take(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return endOf(ctx)
	}
	t.mu.Lock()
	waiters, taken := t.queue[name]
	if !taken {
		if t.queue == nil {
			t.queue = make(map[string][]chan struct{})
		}
		t.queue[name] = nil
		t.mu.Unlock()
		return nil
	}
	ready := make(chan struct{})
	t.queue[name] = append(waiters, ready)
	t.mu.Unlock()

	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		if !t.leave(name, ready) {
			// The turn came at the same moment: pass it on.
			t.give(name)
		}
		return endOf(ctx)
	}
}

// leave takes a waiter out of the queue. It reports false when the waiter has
// been given its turn already.
func (t *turns) leave(name string, ready chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.queue[name], ready)
	if i < 0 {
		return false
	}
	t.queue[name] = slices.Delete(t.queue[name], i, i+1)
	return true
}

// give ends the turn on name and hands it to the one who waits longest.
func (t *turns) give(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiters := t.queue[name]
	if len(waiters) == 0 {
		delete(t.queue, name)
		return
	}
	t.queue[name] = waiters[1:]
	close(waiters[0])
}
