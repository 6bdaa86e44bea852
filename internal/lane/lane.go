// Package lane runs what blocks. A [Lane] is for one thing that may hang or
// refuse: a storage, one issuer, one host. It bounds how much works there at
// once, lets the most needed go first, and holds all back while it is down.
package lane

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Defaults of [Options].
const (
	DefaultSlots = 16
	DefaultMost  = 256
	DefaultSlow  = 2 * time.Second
	DefaultGrace = 10 * time.Second
)

// Results of a Flight that its Do did not give.
var (
	// ErrClosed is the result of a flight that had not taken off at Close.
	ErrClosed = errors.New("not started: closing down")
	// ErrStopped is the result of a queued flight that was sent back because
	// the lane was stopped.
	ErrStopped = errors.New("not started: what it needs is down")
	// ErrFull is the result of a flight that found as many abandoned ones as may
	// be in flight at all.
	ErrFull = errors.New("not started: as many calls as may run do not return although they were told to")
	// ErrAbandoned is the result of a flight that did not return within
	// Options.Grace after its context had ended. The error with it is the
	// context's cause.
	ErrAbandoned = errors.New("abandoned: the call did not return after its context had ended")
)

// Options of a Lane. They are read by [New] and not after.
type Options struct {
	// Name says what the lane is for, in Status.
	Name string

	// Slots is how many flights work at once; zero or less is DefaultSlots.
	Slots int

	// Most is how many are in flight in all, with those that gave their slot
	// back, are slow or abandoned; zero or less is DefaultMost.
	Most int

	// Slow is how long a flight may keep a slot. Then it is slow: its slot goes
	// to another, and it goes on. So n flights that hang delay the others by
	// n / Slots × Slow at most, unless n reaches Most. A lane whose flights take
	// milliseconds wants a tenth of the default. Zero or less is DefaultSlow.
	Slow time.Duration

	// Grace is how long a flight may take to return after its context has
	// ended; then it is abandoned. Zero or less is DefaultGrace.
	Grace time.Duration

	// Go runs a function on a new goroutine, which it must always do. It is
	// called with no lock of the lane held. Nil is a plain go statement.
	Go func(func())
}

// A Lane runs flights: at most Options.Slots at once that work, at most
// Options.Most in all. It is safe for concurrent use; make it with [New].
type Lane struct {
	opts Options

	mu      sync.Mutex // guards what follows, what is unexported of each Flight, and trips
	queues  [2]waiting // queued flights: those that need no token, those that do
	flying  map[*trip]struct{}
	working int     // trips that have a slot
	lost    int     // trips that were abandoned
	back    []*trip // trips that want a slot again, the first in line first
	seq     uint64
	panics  int
	closed  bool

	later   []func() // what unlock starts
	boarded []*trip  // what has taken off and unlock starts

	timer *time.Timer // calls tick
	alarm time.Time   // when timer fires; zero: it does not

	until time.Time // nothing takes off before; zero: not stopped
	probe *trip     // flies to see whether until was long enough

	interval time.Duration // one token each; zero: tokens are not counted
	burst    time.Duration // interval × the tokens there are at most
	full     time.Time     // when all tokens are there again
}

// New returns a Lane on which nothing flies. It has no goroutine of its own.
func New(o Options) *Lane {
	if o.Slots <= 0 {
		o.Slots = DefaultSlots
	}
	if o.Most <= 0 {
		o.Most = DefaultMost
	}
	if o.Slow <= 0 {
		o.Slow = DefaultSlow
	}
	if o.Grace <= 0 {
		o.Grace = DefaultGrace
	}
	if o.Go == nil {
		o.Go = func(f func()) { go f() }
	}
	return &Lane{opts: o, flying: make(map[*trip]struct{})}
}

// Submit queues a flight, which takes off as soon as it may. It never blocks
// and never calls Do or Done itself. A flight is submitted once in its life; a
// second time panics.
func (l *Lane) Submit(f *Flight) {
	l.mu.Lock()
	defer l.unlock()
	if f.seq != 0 {
		panic("lane: flight " + f.Name + " submitted twice")
	}
	l.seq++
	f.seq, f.need = l.seq, f.Need
	if l.closed {
		l.sendBackLocked(ErrClosed, f)
		return
	}
	f.forget = context.AfterFunc(f.Context, func() { l.cancelQueued(f) })
	l.queueOf(f).push(f)
}

// Raise has a queued flight fly sooner: need counts in place of its Need when
// it is smaller. It does nothing to a flight that is not queued.
func (l *Lane) Raise(f *Flight, need int64) {
	l.mu.Lock()
	defer l.unlock()
	if f.index > 0 && need < f.need {
		f.need = need
		l.queueOf(f).fix(f)
	}
}

// Ahead returns how many queued flights go before f, as far as is known now. It
// is 0 for a flight that is not queued. It takes time in proportion to all that
// are queued.
func (l *Lane) Ahead(f *Flight) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.index == 0 {
		return 0
	}
	n := 0
	for _, q := range l.queues {
		for _, other := range q {
			if other.before(f) {
				n++
			}
		}
	}
	return n
}

// Close lets nothing take off any more. Queued flights, and those submitted
// later, get Done(ErrClosed) on a goroutine. What is in flight goes on: whoever
// owns the contexts ends them, best after Close.
func (l *Lane) Close() {
	l.mu.Lock()
	defer l.unlock()
	l.closed = true
	l.sendAllBackLocked(ErrClosed)
}

// unlock has take off what may, unlocks, and starts what was left to start.
func (l *Lane) unlock() {
	if t := l.unlockForOne(); t != nil {
		l.opts.Go(t.fly)
	}
}

// unlockForOne is unlock for a goroutine that may be used on: it returns a trip
// that the caller flies, nil when there is none. A goroutine whose stack has grown
// is worth more than a new one.
func (l *Lane) unlockForOne() *trip {
	l.takeOffLocked()
	if l.lost >= l.opts.Most {
		l.sendAllBackLocked(ErrFull)
	}
	later, boarded := l.later, l.boarded
	l.later, l.boarded = nil, nil
	l.mu.Unlock()
	for _, f := range later {
		l.opts.Go(f)
	}
	if len(boarded) == 0 {
		return nil
	}
	for _, t := range boarded[1:] {
		l.opts.Go(t.fly)
	}
	return boarded[0]
}

// queueOf returns the queue for a flight.
func (l *Lane) queueOf(f *Flight) *waiting {
	if f.Token {
		return &l.queues[1]
	}
	return &l.queues[0]
}

// cancelQueued sends back a flight whose context has ended, when it is still
// queued.
func (l *Lane) cancelQueued(f *Flight) {
	l.mu.Lock()
	defer l.unlock()
	if f.index > 0 {
		l.queueOf(f).remove(f)
		l.sendBackLocked(context.Cause(f.Context), f)
	}
}

func (l *Lane) sendAllBackLocked(err error) {
	for i, q := range l.queues {
		for _, f := range q {
			f.index = 0
			f.forget()
		}
		l.sendBackLocked(err, q...)
		l.queues[i] = nil
	}
}

// sendBackLocked has unlock tell flights that are in no queue any more that
// they do not fly.
func (l *Lane) sendBackLocked(err error, fs ...*Flight) {
	if len(fs) == 0 {
		return
	}
	l.later = append(l.later, func() {
		for _, f := range fs {
			l.tell(f, err)
		}
	})
}
