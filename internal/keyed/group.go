package keyed

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// A Group runs a function once for all who want its result for the same key at
// the same time. It is safe for concurrent use; make it with [NewGroup].
type Group[T any] struct {
	base context.Context

	mu    sync.Mutex // guards calls
	calls map[string]*call[T]
}

// call is one run. Its val and err are written before done is closed and not
// after.
type call[T any] struct {
	done chan struct{}
	val  T
	err  error
}

// errExited is the result of a function that ended its goroutine.
var errExited = errors.New("the function ended its goroutine")

// A PanicError is the result of a function that panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // where, as text
}

// Error gives the panic's value without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// NewGroup makes a Group whose functions run on base.
func NewGroup[T any](base context.Context) *Group[T] {
	return &Group[T]{base: base, calls: make(map[string]*call[T])}
}

// Do returns the result of fn for key, and whether the call was shared, that is
// begun by someone else. When fn runs for key already, Do waits for that run
// instead of beginning another, and the error of the run is the error of all
// who wait.
//
// The context of fn is the group's, not ctx: whoever begins a run may leave
// like anybody else, by the end of ctx, with an error that wraps its cause and
// without ending the run. Nothing is begun when ctx or the group's context has
// ended. A panic of fn becomes a [*PanicError].
func (g *Group[T]) Do(ctx context.Context, key string, fn func(ctx context.Context) (T, error)) (T, error, bool) {
	var zero T
	if ctx.Err() != nil {
		return zero, fmt.Errorf("waiting for %q: %w", key, context.Cause(ctx)), false
	}
	c, shared, err := g.join(key, fn)
	if err != nil {
		return zero, err, false
	}
	select {
	case <-c.done:
		return c.val, c.err, shared
	case <-ctx.Done():
		return zero, fmt.Errorf("waiting for %q: %w", key, context.Cause(ctx)), shared
	}
}

// Wait returns when no function runs. It is for after the end of the group's
// context, when none begins any more.
func (g *Group[T]) Wait() {
	for {
		c := g.any()
		if c == nil {
			return
		}
		<-c.done
	}
}

// Len returns the number of functions that run now.
func (g *Group[T]) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.calls)
}

func (g *Group[T]) any() *call[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		return c
	}
	return nil
}

// join finds the run for key or begins one.
func (g *Group[T]) join(key string, fn func(ctx context.Context) (T, error)) (c *call[T], shared bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		return c, true, nil
	}
	if g.base.Err() != nil {
		return nil, false, fmt.Errorf("running %q: %w", key, context.Cause(g.base))
	}
	c = &call[T]{done: make(chan struct{})}
	g.calls[key] = c
	go g.run(key, c, fn)
	return c, false, nil
}

func (g *Group[T]) run(key string, c *call[T], fn func(ctx context.Context) (T, error)) {
	c.err = fmt.Errorf("running %q: %w", key, errExited) // stays when fn calls runtime.Goexit
	defer func() {
		if v := recover(); v != nil {
			c.err = fmt.Errorf("running %q: %w", key, &PanicError{Value: v, Stack: debug.Stack()})
		}
		g.mu.Lock()
		delete(g.calls, key)
		g.mu.Unlock()
		close(c.done)
	}()
	c.val, c.err = fn(g.base)
}
