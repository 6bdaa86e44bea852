// Package schedule runs a function for keys at their times: one queue in order
// of time, and a bounded number of workers that never sleep.
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
	// Workers is the most keys that run at once; zero or less is DefaultWorkers.
	Workers int

	// Run does the work for a key that is due. Its context ends with that of
	// [Queue.Run]. It may call the queue's methods but Run, and usually sets its
	// key anew: a key that was not set again leaves the queue when Run returns.
	// It must not be nil.
	Run func(ctx context.Context, key string)

	// Panic is told of a panic in Run, on the goroutine that ran, while the key
	// still counts as running. It may set the key again; a key that nobody set
	// or removed since is run again after MaxIdle, so that none is lost. It is
	// told too, with an error as value, when Run ends its goroutine. Nil only
	// counts.
	Panic func(key string, value any, stack []byte)

	// MaxIdle is the longest time between two looks at the wall clock, and so
	// the longest delay after the clock jumped or the host slept; zero or less
	// is DefaultMaxIdle.
	MaxIdle time.Duration
}

var errExited = errors.New("run ended its goroutine")

// A Queue holds keys, each with one time at which it is due, and runs them. A
// key never runs twice at once. A wake-up costs as much as there is due and not
// as much as there is in the queue. It is safe for concurrent use; make it with
// [New].
type Queue struct {
	opts Options
	now  func() time.Time
	wake chan struct{} // holds one value when the dispatcher should look again
	turn chan struct{} // holds one value while Run runs

	mu       sync.Mutex // guards what follows and all items
	items    map[string]*item
	waiting  waiting
	active   map[*item]struct{} // running now, at most opts.Workers
	workers  int
	seq      uint64
	lastWake time.Time
	panics   int
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
		items:  make(map[string]*item),
		active: make(map[*item]struct{}),
	}
}

// Run runs what is due until ctx ends, and returns when all that it began has
// returned. Keys that wait then stay in the queue. A second Run waits for the
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
		it := q.takeLocked(now)
		if it == nil {
			break
		}
		q.workers++
		wg.Go(func() { q.work(ctx, it) })
	}
	if len(q.waiting) == 0 || q.workers == q.opts.Workers {
		return q.opts.MaxIdle // a worker that ends its work looks for more itself
	}
	return max(0, min(q.opts.MaxIdle, q.waiting[0].due.Sub(now)))
}

// work runs a key, and then what is due, until nothing is.
func (q *Queue) work(ctx context.Context, it *item) {
	for it != nil {
		it = q.step(ctx, it)
	}
}

func (q *Queue) step(ctx context.Context, it *item) (next *item) {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit: this goroutine takes nothing more
			q.report(it.key, errExited)
			q.mu.Lock()
			defer q.mu.Unlock()
			q.endLocked(it, failed)
			q.leaveLocked()
		}
	}()
	end := q.call(ctx, it.key)
	returned = true

	q.mu.Lock()
	defer q.mu.Unlock()
	q.endLocked(it, end)
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

func (q *Queue) call(ctx context.Context, key string) (end ending) {
	defer func() {
		if v := recover(); v != nil {
			end = failed
			q.report(key, v)
		}
	}()
	q.opts.Run(ctx, key)
	return completed
}

func (q *Queue) report(key string, value any) {
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
	q.opts.Panic(key, value, stack)
}

// takeLocked takes the first key off the queue, when it is due, to be run.
func (q *Queue) takeLocked(now time.Time) *item {
	if len(q.waiting) == 0 || !q.waiting[0].ready(now) {
		return nil
	}
	it := q.waiting.pop()
	it.running, it.since = true, now
	q.active[it] = struct{}{}
	return it
}

// endLocked puts a key that ran back into the queue, or out of it.
func (q *Queue) endLocked(it *item, end ending) {
	delete(q.active, it)
	again := it.again
	if !again && end == failed && !it.removed {
		it.due, it.urgent, again = q.wallClock().Add(q.opts.MaxIdle), false, true
		it.seq = q.nextLocked()
	}
	it.running, it.again, it.removed = false, false, false
	if !again {
		delete(q.items, it.key)
		return
	}
	q.waiting.push(it)
}

// leaveLocked ends a worker. The dispatcher looks anew: with all workers busy
// it did not watch for the next key.
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
