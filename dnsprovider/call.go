package dnsprovider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/guard"
)

const (
	maxCalls    = 4           // calls of a provider at once
	callLimit   = time.Minute // how long each may take
	hungAfter   = time.Second // how long a call may go on after its context ended
	listLimit   = 10 * time.Second
	maxPresents = 10_000 // how many challenges are remembered
)

// errHung means that a call was not begun because such calls do not return.
var errHung = errors.New("earlier calls of the DNS provider have not returned")

// errNoAnswer means that it is not known what came of a call.
var errNoAnswer = errors.New("no answer")

// calls bounds the calls of a provider: how many there are at once, how long each
// is waited for, and what comes of one that panics or never returns. The zero value
// is ready.
type calls struct {
	mu      sync.Mutex     // guards the fields below
	busy    int            // slots that are held
	hung    map[string]int // those of them that are held by calls that hang, by what they do
	changed chan struct{}  // closed when a slot is free or a call hangs; nil: nobody waits
}

// enter waits for a slot. It fails at once when every slot is held by a call that
// hangs.
func (c *calls) enter(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.mu.Lock()
		if c.busy < maxCalls {
			c.busy++
			c.mu.Unlock()
			return nil
		}
		if names := slices.Sorted(maps.Keys(c.hung)); c.hungLocked() == maxCalls {
			c.mu.Unlock()
			return fmt.Errorf("%w, and no more than %d are made at once: %s", errHung, maxCalls, strings.Join(names, ", "))
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for other calls of the DNS provider: %w", context.Cause(ctx))
		}
	}
}

func (c *calls) hungLocked() (n int) {
	for _, h := range c.hung {
		n += h
	}
	return n
}

// hangs reports whether a call that does what is going on beyond its time.
func (c *calls) hangs(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hung[what] > 0
}

func (c *calls) tellLocked() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// A call is one that holds a slot.
type call struct {
	what        string
	hangs, over bool // guarded by calls.mu
}

func (c *calls) leave(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.over = true
	if k.hangs {
		if c.hung[k.what]--; c.hung[k.what] == 0 {
			delete(c.hung, k.what)
		}
	}
	c.busy--
	c.tellLocked()
}

func (c *calls) giveUp(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.over {
		return
	}
	if c.hung == nil {
		c.hung = map[string]int{}
	}
	k.hangs = true
	c.hung[k.what]++
	c.tellLocked()
}

// do calls f when there is a slot, for at most a limit, and returns what it returns:
// that it panicked or ended its goroutine is an error too. A call that goes on
// beyond its context is left alone and keeps its slot.
func do[T any](ctx context.Context, c *calls, what string, limit time.Duration, f func(ctx context.Context) (T, error)) (T, error) {
	var none, got T
	if err := c.enter(ctx); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v", errNoAnswer, limit))
	defer cancel()
	k := &call{what: what}
	done := guard.Call(nil, "the DNS provider", func() (err error) {
		defer c.leave(k)
		got, err = f(ctx)
		return err
	})
	select {
	case err := <-done:
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if err != nil {
			return none, err
		}
		return got, nil
	case <-ctx.Done():
		time.AfterFunc(hungAfter, func() { c.giveUp(k) })
		return none, context.Cause(ctx)
	}
}

// shared makes one call for all who ask at the same time: one is under way, at most
// one is to come, and nobody gets the answer of a call that began before he asked.
// The zero value is ready.
type shared[T any] struct {
	mu            sync.Mutex // guards the fields below, and the waiters of the rounds
	running, next *round[T]
}

type round[T any] struct {
	call    func(ctx context.Context) (T, error)
	ctx     context.Context
	cancel  context.CancelFunc
	waiters int
	done    chan struct{} // closed when value and err are there
	value   T
	err     error
}

// ask returns the answer of a call of f, or of the same by another who asked. The
// call ends when all who wait for it have left.
func (s *shared[T]) ask(ctx context.Context, f func(ctx context.Context) (T, error)) (T, error) {
	s.mu.Lock()
	if s.next == nil {
		s.next = &round[T]{call: f, done: make(chan struct{})}
		s.next.ctx, s.next.cancel = context.WithCancel(context.WithoutCancel(ctx))
	}
	r := s.next
	r.waiters++
	if s.running == nil {
		s.startLocked()
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.waiters--; r.waiters == 0 {
			r.cancel()
			if s.next == r {
				s.next = nil
			}
		}
		var none T
		return none, context.Cause(ctx)
	}
}

func (s *shared[T]) startLocked() {
	r := s.next
	s.running, s.next = r, nil
	go func() {
		r.value, r.err = r.call(r.ctx) // by do, which recovers and returns when ctx ends
		r.cancel()
		close(r.done)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = nil
		if s.next != nil {
			s.startLocked()
		}
	}()
}
