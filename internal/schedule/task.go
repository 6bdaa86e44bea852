package schedule

import (
	"context"
	"math"
	"time"
)

// Work is what a [Queue] runs. It is usually a pointer to a struct that has a
// [Task] in it.
type Work interface {
	// Schedule returns the Work's place in the queue: the same one each time, and
	// no other Work's. The queue calls it with its lock held and often, so it
	// must do no more than return the address of a field.
	Schedule() *Task

	// Run does the work that is due. Its context ends with that of [Queue.Run].
	// It may call the queue's methods but Run, and usually sets its Work anew: a
	// Work that was not set again leaves the queue when Run returns.
	Run(ctx context.Context)

	// String names the Work, for [Health] and for whoever is told of a panic. It
	// may be called while Run runs.
	String() string
}

// A Task is one piece of work's place in a [Queue]. Its zero value is in no
// Queue. It may be in one Queue at a time, and only that Queue uses it. It must
// not be copied after first use.
type Task struct {
	_     noCopy
	due   int64  // Unix nanoseconds; while running: of the next run, if again
	seq   uint64 // the order in which tasks were set
	index int32  // in the heap, plus one; 0 when it does not wait
	flags flags
}

type flags uint8

const (
	urgent  flags = 1 << iota // set by SetNow
	running                   // in Queue.active
	again                     // set while running
	removed                   // removed while running
)

// noCopy has go vet complain of copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

func (t *Task) is(f flags) bool { return t.flags&f != 0 }

// known reports whether the task waits or runs.
func (t *Task) known() bool { return t.index > 0 || t.is(running) }

// queued reports whether the task has a next run.
func (t *Task) queued() bool { return t.index > 0 || t.is(again) }

func (t *Task) ready(now int64) bool { return t.is(urgent) || t.due <= now }

func (t *Task) less(other *Task) bool {
	if t.is(urgent) != other.is(urgent) {
		return t.is(urgent)
	}
	if !t.is(urgent) && t.due != other.due {
		return t.due < other.due
	}
	return t.seq < other.seq
}

// nanoseconds returns the Unix time of t, or the nearest that an int64 holds.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.Before(moment(math.MinInt64)):
		return math.MinInt64
	case t.After(moment(math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func moment(nanoseconds int64) time.Time { return time.Unix(0, nanoseconds) }
