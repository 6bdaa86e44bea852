package dnsprovider

import (
	"context"
	"errors"
	"fmt"
	"regexp"
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
	mu      sync.Mutex    // guards the fields below
	live    []*call       // each holds a slot
	changed chan struct{} // closed when a slot is free or a call hangs; nil: nobody waits
}

// A call is one of the provider.
type call struct {
	what  string // it does
	hangs bool   // it goes on beyond its time; guarded by calls.mu
}

// enter waits for a slot for k. It fails at once when every slot is held by a call
// that hangs.
func (c *calls) enter(ctx context.Context, k *call) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.mu.Lock()
		if len(c.live) < maxCalls {
			c.live = append(c.live, k)
			c.mu.Unlock()
			return nil
		}
		if names := c.hungLocked(); len(names) == maxCalls {
			c.mu.Unlock()
			return fmt.Errorf("%w, and no more than %d are made at once: %s", errHung, maxCalls, strings.Join(slices.Compact(names), ", "))
		}
		changed := c.changedLocked()
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for other calls of the DNS provider: %w", context.Cause(ctx))
		}
	}
}

// hungLocked is what the calls that hang do, sorted.
func (c *calls) hungLocked() (names []string) {
	for _, k := range c.live {
		if k.hangs {
			names = append(names, k.what)
		}
	}
	slices.Sort(names)
	return names
}

// hangs reports whether a call that does what is going on beyond its time.
func (c *calls) hangs(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.hungLocked(), what)
}

// returned waits for calls that do what and that nobody waits for any more. It
// reports whether all have returned; those that hang are not waited for.
func (c *calls) returned(ctx context.Context, what string) bool {
	for {
		c.mu.Lock()
		runs := slices.ContainsFunc(c.live, func(k *call) bool { return k.what == what })
		hangs := slices.Contains(c.hungLocked(), what)
		changed := c.changedLocked()
		c.mu.Unlock()
		if !runs || hangs {
			return !runs
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (c *calls) changedLocked() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

func (c *calls) tellLocked() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

func (c *calls) leave(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = slices.DeleteFunc(c.live, func(other *call) bool { return other == k })
	c.tellLocked()
}

func (c *calls) giveUp(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.hangs = true
	c.tellLocked()
}

// do calls f when there is a slot, for at most a limit, and returns what it returns:
// that it panicked or ended its goroutine is an error too. A call that goes on
// beyond its context is left alone and keeps its slot.
func do[T any](ctx context.Context, c *calls, what string, limit time.Duration, f func(ctx context.Context) (T, error)) (T, error) {
	var none, got T
	k := &call{what: what}
	if err := c.enter(ctx, k); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v", errNoAnswer, limit))
	defer cancel()
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
			return none, withoutQueries(err)
		}
		return got, nil
	case <-ctx.Done():
		time.AfterFunc(hungAfter, func() { c.giveUp(k) })
		return none, context.Cause(ctx)
	}
}

// query is what follows the "?" of a URL.
var query = regexp.MustCompile(`(https?://[^\s"'?]*\?)[^\s"']+`)

// withoutQueries returns err without the queries of URLs in its text: some providers
// have their key in them, and net/http names the URL.
func withoutQueries(err error) error {
	said := fmt.Sprint(err) // that panics with none whose Error does
	if text := query.ReplaceAllString(said, "${1}…"); text != said {
		return &toldError{text, err}
	}
	return err
}

// A toldError is an error with another text.
type toldError struct {
	text string
	err  error
}

func (e *toldError) Error() string { return e.text }

func (e *toldError) Unwrap() error { return e.err }

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
