package records

import (
	"context"
	"errors"
	"sync"
)

// memo finds each thing out once. The zero memo is ready for use.
type memo[T any] struct {
	mu      sync.Mutex // guards answers
	answers map[string]*answer[T]
}

// answer is what one caller finds out and others wait for. It is not changed
// after done is closed.
type answer[T any] struct {
	done chan struct{}
	v    T
	err  error
	cut  bool // short: the context of the one who asked ended
}

var errAborted = errors.New("the call was ended from within")

// get returns what find returned for a key, at whosever call. An error is for
// all who wait, and the next one asks anew. Callers may leave by the end of
// their context; if it was the one who asks, another asks in his place.
func (m *memo[T]) get(ctx context.Context, key string, find func(context.Context) (T, error)) (T, error) {
	for {
		m.mu.Lock()
		a := m.answers[key]
		if a == nil {
			a = &answer[T]{done: make(chan struct{}), err: errAborted, cut: true}
			if m.answers == nil {
				m.answers = make(map[string]*answer[T])
			}
			m.answers[key] = a
			m.mu.Unlock()
			return m.ask(ctx, key, a, find)
		}
		m.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			var zero T
			return zero, context.Cause(ctx)
		}
		if a.err == nil || !a.cut {
			return a.v, a.err
		}
	}
}

func (m *memo[T]) ask(ctx context.Context, key string, a *answer[T], find func(context.Context) (T, error)) (T, error) {
	defer func() { // also after a panic
		if a.err != nil {
			m.mu.Lock()
			delete(m.answers, key)
			m.mu.Unlock()
		}
		close(a.done)
	}()
	v, err := find(ctx)
	a.v, a.err, a.cut = v, err, err != nil && ctx.Err() != nil
	return v, err
}
