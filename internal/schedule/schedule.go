// Package schedule runs work at its times: one queue in order of time, and a
// bounded number of workers that never sleep. Whoever has the work embeds its
// place in the queue, a [Task], so that a queue of very many stays small.
package schedule

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"
)

// Defaults of [Options].
const (
	DefaultWorkers = 16
	DefaultMaxIdle = time.Minute
)

// Options of a Queue. They are read by [New] and not after.
type Options struct {
	// Workers is the most Works that run at once; zero or less is DefaultWorkers.
	Workers int

	// Panic is told of a panic in a Work's Run, on the goroutine that ran, while
	// the Work still counts as running. It may set the Work again; a Work that
	// nobody set or removed since is run again after MaxIdle, so that none is
	// lost. It is told too, with an error as value, when Run ends its goroutine.
	// Nil only counts.
	Panic func(w Work, value any, stack []byte)

	// MaxIdle is the longest time between two looks at the wall clock, and so
	// the longest delay after the clock jumped or the host slept; zero or less
	// is DefaultMaxIdle.
	MaxIdle time.Duration
}

var errExited = errors.New("run ended its goroutine")

// A Queue holds Works, each with one time at which it is due, and runs them. A
// Work never runs twice at once. A wake-up costs as much as there is due and not
// as much as there is in the queue. It is safe for concurrent use; make it with
// [New].
type Queue struct {
	opts Options
	now  func() time.Time
	wake chan struct{} // holds one value when the dispatcher should look again
	turn chan struct{} // holds one value while Run runs

	mu       sync.Mutex // guards what follows and the Task of each Work
	waiting  waiting
	active   map[*Task]active // running now, at most opts.Workers
	workers  int
	seq      uint64
	lastWake time.Time
	panics   int
}

// active is a Work that runs.
type active struct {
	work  Work
	since time.Time
}

// New returns an empty Queue, which does nothing until [Queue.Run].
func New(opts Options) *Queue {
	if opts.Workers <= 0 {
		opts.Workers = DefaultWorkers
	}
	if opts.MaxIdle <= 0 {
		opts.MaxIdle = DefaultMaxIdle
	}
	return &Queue{
		opts:   opts,
		now:    time.Now,
		wake:   make(chan struct{}, 1),
		turn:   make(chan struct{}, 1),
		active: make(map[*Task]active),
	}
}

// Run runs what is due until ctx ends, and returns when all that it began has
// returned. Works that wait then stay in the queue. A second Run waits for the
// first to end.
func (q *Queue) Run(ctx context.Context) {
	select {
	case q.turn <- struct{}{}:
		defer func() { <-q.turn }()
	case <-ctx.Done():
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(q.dispatch(ctx, &wg))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-q.wake:
		}
	}
}

// dispatch starts workers for what is due and returns the time to the next look.
func (q *Queue) dispatch(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.wallClock()
	q.lastWake = now
	for q.workers < q.opts.Workers {
		w := q.takeLocked(now)
		if w == nil {
			break
		}
		q.workers++
		wg.Go(func() { q.work(ctx, w) })
	}
	if len(q.waiting) == 0 || q.workers == q.opts.Workers {
		return q.opts.MaxIdle // a worker that ends its work looks for more itself
	}
	return max(0, min(q.opts.MaxIdle, moment(q.waiting.first().due).Sub(now)))
}

// work runs a Work, and then what is due, until nothing is.
func (q *Queue) work(ctx context.Context, w Work) {
	for w != nil {
		w = q.step(ctx, w)
	}
}

func (q *Queue) step(ctx context.Context, w Work) (next Work) {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit: this goroutine takes nothing more
			q.report(w, errExited)
			q.mu.Lock()
			defer q.mu.Unlock()
			q.endLocked(w, failed)
			q.leaveLocked()
		}
	}()
	end := q.call(ctx, w)
	returned = true

	q.mu.Lock()
	defer q.mu.Unlock()
	q.endLocked(w, end)
	if ctx.Err() == nil {
		next = q.takeLocked(q.wallClock())
	}
	switch {
	case next == nil:
		q.leaveLocked()
	case q.workers < q.opts.Workers:
		q.wakeUp() // what comes next is not what the dispatcher waits for
	}
	return next
}

// ending is how a run ended.
type ending int

const (
	completed ending = iota
	failed
)

func (q *Queue) call(ctx context.Context, w Work) (end ending) {
	defer func() {
		if v := recover(); v != nil {
			end = failed
			q.report(w, v)
		}
	}()
	w.Run(ctx)
	return completed
}

func (q *Queue) report(w Work, value any) {
	stack := debug.Stack()
	q.mu.Lock()
	q.panics++
	q.mu.Unlock()
	if q.opts.Panic == nil {
		return
	}
	defer func() {
		if recover() != nil { // nobody is left to tell; the count shows it
			q.mu.Lock()
			q.panics++
			q.mu.Unlock()
		}
	}()
	q.opts.Panic(w, value, stack)
}

// takeLocked takes the first Work off the queue, when it is due, to be run.
func (q *Queue) takeLocked(now time.Time) Work {
	if len(q.waiting) == 0 || !q.waiting.first().ready(nanoseconds(now)) {
		return nil
	}
	w := q.waiting.pop()
	t := w.Schedule()
	t.flags |= running
	q.active[t] = active{work: w, since: now}
	return w
}

// endLocked puts a Work that ran back into the queue, or out of it.
func (q *Queue) endLocked(w Work, end ending) {
	t := w.Schedule()
	delete(q.active, t)
	if end == failed && !t.is(again) && !t.is(removed) {
		t.due = nanoseconds(q.wallClock().Add(q.opts.MaxIdle))
		t.seq = q.nextLocked()
		t.flags = again
	}
	if !t.is(again) {
		t.flags = 0
		return
	}
	t.flags &= urgent
	q.waiting.push(w)
}

// leaveLocked ends a worker. The dispatcher looks anew: with all workers busy
// it did not watch for what comes next.
func (q *Queue) leaveLocked() {
	q.workers--
	q.wakeUp()
}

func (q *Queue) wakeUp() {
	select {
	case q.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (q *Queue) nextLocked() uint64 {
	q.seq++
	return q.seq
}

// wallClock leaves out the monotonic reading, which stands still while the host
// sleeps and does not follow when the clock is set.
func (q *Queue) wallClock() time.Time { return q.now().Round(0) }
