// Package schedule keeps one time for each of very many works, and calls each
// when it is due. Whoever has the work embeds its place in the queue, a [Task].
package schedule

import (
	"context"
	"errors"
	"math"
	"math/bits"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Never is a time for [Queue.Set]: the work does not wait.
const Never int64 = math.MaxInt64

const (
	// maxSleep is the longest time between two looks at the wall clock.
	maxSleep = time.Minute
	// retryAfter is when a work is due again whose Due panicked, in seconds.
	retryAfter = 60
	// setBack is by how many seconds the wall clock must have been set back for
	// all works to be due: less only delays them by as much.
	setBack = 120
)

// Work is what a [Queue] calls. It is usually a pointer to a struct that has a
// [Task] in it.
type Work interface {
	// Schedule returns the work's place in the queue: the same one each time, and
	// no other work's. The queue calls it with its lock held and often, so it
	// must do no more than return the address of a field.
	Schedule() *Task

	// Due is called when the work is due and has left the queue; it usually sets
	// its time anew. It must not block, because all others wait for it. It may
	// call the queue's methods but Run. It is also called when the wall clock
	// was found set back, so it decides itself whether there is something to do.
	Due()

	// String names the work for who is told of a panic.
	String() string
}

// Options of a Queue. They are read by [New] and not after.
type Options struct {
	// Panic is told of a panic in a work's Due, on the queue's goroutine; with
	// an error as value when Due ended its goroutine. Nil only counts.
	Panic func(w Work, value any, stack []byte)
}

// A Queue calls works when they are due by the wall clock. While nothing is due
// it does nothing but to read the clock once a minute: so long at most a jump of
// the clock, or the host's sleep, stays unnoticed. It is safe for concurrent
// use; make it with [New].
type Queue struct {
	opts Options
	wall func() time.Time
	wake chan struct{} // holds one value when Run should look again

	mu       sync.Mutex // guards what follows and the Task of each work
	works    works
	lastWake time.Time
	panics   int
}

// Health is the state of a Queue, for a check that it still works.
type Health struct {
	LastWake time.Time // the last look at the clock, a minute ago at most while Run runs and no Due hangs; zero before Run
	NextDue  time.Time // of the first that waits; zero when none waits
	Waiting  int
	Panics   int // of Due, since New
}

var errExited = errors.New("due ended its goroutine")

// New returns an empty Queue, which calls nothing until [Queue.Run].
func New(o Options) *Queue {
	return &Queue{
		opts: o,
		wall: func() time.Time { return time.Now().Round(0) },
		wake: make(chan struct{}, 1),
	}
}

// Run calls what is due, one at a time and always on one goroutine, until ctx
// ends; it returns when the last call has returned. It is called once.
func (q *Queue) Run(ctx context.Context) {
	for ctx.Err() == nil {
		done := make(chan struct{})
		go func() { // a goroutine that a Due may end
			defer close(done)
			q.loop(ctx)
		}()
		<-done
	}
}

func (q *Queue) loop(ctx context.Context) {
	timer := time.NewTimer(maxSleep)
	defer timer.Stop()
	for ctx.Err() == nil {
		w, sleep := q.next()
		if w != nil {
			q.call(w)
			continue
		}
		timer.Reset(sleep)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-q.wake:
		}
	}
}

// next takes out the first work if it is due, or returns when to look again.
func (q *Queue) next() (w Work, sleep time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.wall()
	if now.Unix() < q.lastWake.Unix()-setBack {
		q.works.setAll(now.Unix())
	}
	q.lastWake = now
	if len(q.works) == 0 {
		return nil, maxSleep
	}
	at := q.works[0].Schedule().at
	if at <= now.Unix() {
		return q.works.pop(), 0
	}
	if at-now.Unix() > int64(maxSleep/time.Second) {
		return nil, maxSleep
	}
	return nil, time.Unix(at, 0).Sub(now)
}

// call calls Due. A work that panics and has set no time is due again after a
// minute, so that none is lost.
func (q *Queue) call(w Work) {
	returned := false
	defer func() {
		if !returned {
			value := recover()
			if value == nil { // runtime.Goexit
				value = errExited
			}
			q.failed(w, value)
		}
	}()
	w.Due()
	returned = true
}

func (q *Queue) failed(w Work, value any) {
	stack := debug.Stack()
	q.mu.Lock()
	q.panics++
	if w.Schedule().index == 0 {
		q.setLocked(w, q.wall().Unix()+retryAfter)
	}
	q.mu.Unlock()
	if q.opts.Panic == nil {
		return
	}
	defer func() { _ = recover() }() // nobody is left to tell
	q.opts.Panic(w, value, stack)
}

// Set makes a work due at a time in Unix seconds, in place of its time until now
// if it has one. A past time is due at once, and Never takes the work out. Works
// that are due at the same second are called in any order.
func (q *Queue) Set(w Work, at int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.setLocked(w, at)
}

// SetNow makes works due now. Many at once cost less than each alone.
func (q *Queue) SetNow(ws ...Work) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.wall().Unix()
	if n := len(q.works) + len(ws); len(ws)*bits.Len(uint(n)) < n {
		for _, w := range ws {
			q.setLocked(w, now)
		}
		return
	}
	q.works = slices.Grow(q.works, len(ws))
	for _, w := range ws {
		t := w.Schedule()
		t.at = now
		if t.index == 0 {
			q.works.add(w)
		}
	}
	q.works.order()
	q.lookAgain()
}

// Remove takes a work out; one that does not wait is passed over. A Due that
// runs goes on.
func (q *Queue) Remove(w Work) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := w.Schedule(); t.index > 0 {
		q.works.remove(t)
	}
}

// Health returns the state now.
func (q *Queue) Health() Health {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := Health{LastWake: q.lastWake, Waiting: len(q.works), Panics: q.panics}
	if len(q.works) > 0 {
		h.NextDue = time.Unix(q.works[0].Schedule().at, 0)
	}
	return h
}

func (q *Queue) setLocked(w Work, at int64) {
	t := w.Schedule()
	if at == Never {
		if t.index > 0 {
			q.works.remove(t)
		}
		return
	}
	t.at = at
	if t.index == 0 {
		q.works.push(w)
	} else {
		q.works.fix(t)
	}
	if t.index == 1 {
		q.lookAgain() // it is the first
	}
}

func (q *Queue) lookAgain() {
	select {
	case q.wake <- struct{}{}:
	default: // it will look anyway
	}
}
