package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// A Flight is one piece of work that may block. Its fields are not changed
// after Submit.
type Flight struct {
	// Name says for whom it flies and what it does, for Status.
	Name string

	// Need is how much it is needed: the smallest takes off first, and of
	// equals the one that was submitted first.
	Need int64

	// Context is the work's; it must be set. Its end cancels the flight, also
	// while it is queued.
	Context context.Context

	// Timeout is counted from take-off; zero or less is none.
	Timeout time.Duration

	// Token has the flight take one of the lane's tokens (SetRate) as it takes
	// off.
	Token bool

	// Do does the work on a goroutine of its own. Its context is Context with
	// Timeout; Sleep and Idle know the flight by it. A panic or a
	// runtime.Goexit is a result: a *PanicError.
	Do func(ctx context.Context) error

	// Done is called exactly once, on some goroutine and with no lock held. Its
	// error is that of Do, a *PanicError, or one that wraps ErrAbandoned (Do
	// goes on: it has ignored the end of its context); when Do was never
	// called, it is ErrClosed, ErrStopped, ErrFull or the cause of Context's end.
	Done func(err error)

	seq    uint64 // the order in which flights were submitted; 0: not yet
	need   int64
	index  int         // in its queue, plus one; 0 when it is not queued
	forget func() bool // has Context forget the flight, while it is queued
}

// A PanicError says that a call panicked or ended its goroutine.
type PanicError struct {
	Value any    // of the panic
	Stack []byte // of the goroutine
}

// Error does not have the stack in it.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value of the panic when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var errExited = errors.New("the call ended its goroutine")

// A trip is a flight that has taken off, until its goroutine ends.
type trip struct {
	lane   *Lane
	flight *Flight
	ctx    context.Context
	since  time.Time // take-off

	// What follows is guarded by Lane.mu.
	slot   bool
	token  bool          // took one, which it has not given back
	worked time.Time     // when it got its slot
	away   int           // calls of Sleep and Idle that have not ended
	ready  chan struct{} // closed when it gets its slot again; nil: it does not wait for it
	ended  time.Time     // when ctx ended; zero: it has not
	over   bool          // Done was called or is about to be
	lost   bool          // abandoned
}

// tripKey finds the trip in its context.
type tripKey struct{}

// boardLocked makes a trip of a flight that has left its queue, and has unlock
// start it.
func (l *Lane) boardLocked(f *Flight, now time.Time) *trip {
	t := &trip{lane: l, flight: f, since: now}
	l.giveSlotLocked(t, now)
	l.flying[t] = struct{}{}
	l.boarded = append(l.boarded, t)
	return t
}

// fly runs on the trip's goroutine, and then flies what may take off next.
func (t *trip) fly() {
	for t != nil {
		t = t.once()
	}
}

// once flies the trip, and returns one that the goroutine can go on with.
func (t *trip) once() (next *trip) {
	f := t.flight
	ctx, cancel := context.WithValue(f.Context, tripKey{}, t), context.CancelFunc(nil)
	if f.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.Timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	err, returned := error(nil), false
	defer func() {
		if !returned { // runtime.Goexit
			err = &PanicError{Value: errExited, Stack: debug.Stack()}
		}
		if next = t.land(err); next != nil && !returned {
			t.lane.opts.Go(next.fly)
		}
	}()
	t.ctx = ctx
	forget := context.AfterFunc(ctx, t.contextEnded)
	defer forget()
	err = call(ctx, f.Do)
	returned = true
	return nil // the deferred call sets it
}

func call(ctx context.Context, do func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return do(ctx)
}

// contextEnded begins the time after which the trip is abandoned.
func (t *trip) contextEnded() {
	l := t.lane
	l.mu.Lock()
	defer l.unlock()
	t.ended = time.Now()
	if !t.over {
		l.wakeLocked(t.ended.Add(l.opts.Grace))
	}
}

// land ends a trip on its goroutine. Its slot is another's only when Done has
// returned, so that a probe's Done can stop the lane first.
func (t *trip) land(err error) (next *trip) {
	l := t.lane
	l.mu.Lock()
	told := t.over
	t.over = true
	if _, ok := errors.AsType[*PanicError](err); ok {
		l.panics++
	}
	l.mu.Unlock()
	ended := true
	defer func() { // also when Done ends the goroutine
		l.mu.Lock()
		l.leaveLineLocked(t) // a goroutine of Do may have outlived it
		l.freeSlotLocked(t)
		delete(l.flying, t)
		if t.lost {
			l.lost--
		}
		l.probeEndedLocked(t)
		if next = l.unlockForOne(); next != nil && ended {
			l.opts.Go(next.fly)
		}
	}()
	if !told {
		l.tell(t.flight, err)
	}
	ended = false
	return nil
}

// abandonLocked gives up a trip whose goroutine goes on. It stays in flight.
func (l *Lane) abandonLocked(t *trip) {
	t.over, t.lost = true, true
	l.lost++
	l.freeSlotLocked(t)
	l.later = append(l.later, func() {
		l.tell(t.flight, fmt.Errorf("%w: %w", ErrAbandoned, context.Cause(t.ctx)))
		l.mu.Lock()
		defer l.unlock()
		l.probeEndedLocked(t)
	})
}

// tell calls a flight's Done.
func (l *Lane) tell(f *Flight, err error) {
	defer func() {
		if recover() != nil { // nobody is left to tell; the count shows it
			l.mu.Lock()
			defer l.mu.Unlock()
			l.panics++
		}
	}()
	f.Done(err)
}

func (l *Lane) giveSlotLocked(t *trip, now time.Time) {
	t.slot, t.worked = true, now
	l.working++
	l.wakeLocked(now.Add(l.opts.Slow))
}

func (l *Lane) freeSlotLocked(t *trip) {
	if t.slot {
		t.slot = false
		l.working--
	}
}
