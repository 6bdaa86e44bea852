package schedule

import "time"

// Set makes a key due at a time of the wall clock, in place of its time until
// now if it has one; a time that is past is due at once. Keys of one time run in
// the order in which they were set. A key that runs now is run again at that
// time, but not before it has ended; only a [Queue.SetNow] during the run is
// stronger and stays.
func (q *Queue) Set(key string, due time.Time) {
	due = due.Round(0)
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.itemLocked(key)
	if it.running && it.again && it.urgent {
		return
	}
	if it.queued() && !it.urgent && it.due.Equal(due) {
		return // keeps its place
	}
	it.due, it.urgent = due, false
	q.placeLocked(it)
}

// SetNow makes a key due now and ahead of all that are not set in this way,
// however long they are due. A key that runs now is run again right after.
func (q *Queue) SetNow(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.itemLocked(key)
	if it.queued() && it.urgent {
		return // keeps its place
	}
	it.due, it.urgent = q.wallClock(), true
	q.placeLocked(it)
}

// Remove takes a key out. When it runs now, the run goes on and is the last. An
// unknown key is passed over.
func (q *Queue) Remove(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	if it == nil {
		return
	}
	if it.running {
		it.again, it.removed = false, true
		return
	}
	q.waiting.remove(it)
	delete(q.items, key)
}

// Due returns when a key is due next, and reports whether it is due at all: a
// key that runs and was not set again is not. For SetNow it is the time of the
// call.
func (q *Queue) Due(key string) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	if it == nil || !it.queued() {
		return time.Time{}, false
	}
	return it.due, true
}

// Len returns the number of keys that wait or run.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// Position returns how many waiting keys come before a key, and reports whether
// the key is in the queue. It is 0 for a key that runs. It takes time in
// proportion to its result.
func (q *Queue) Position(key string) (int, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[key]
	if it == nil {
		return 0, false
	}
	if it.running {
		return 0, true
	}
	return q.waiting.before(0, it), true
}

// Health is the state of a Queue, for a check that it still works.
type Health struct {
	LastWake time.Time // the last look at the clock; zero before Run
	NextDue  time.Time // of the first waiting key; zero when none waits
	Running  int
	Waiting  int
	// OldestRunning is the key that has been running longest, since OldestSince;
	// both are zero when none runs.
	OldestRunning string
	OldestSince   time.Time
	Panics        int // since New
}

// Health returns the state now. While Run runs, LastWake is no older than
// Options.MaxIdle.
func (q *Queue) Health() Health {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := Health{LastWake: q.lastWake, Running: len(q.active), Waiting: len(q.waiting), Panics: q.panics}
	if len(q.waiting) > 0 {
		h.NextDue = q.waiting[0].due
	}
	for it := range q.active {
		if h.OldestSince.IsZero() || it.since.Before(h.OldestSince) {
			h.OldestRunning, h.OldestSince = it.key, it.since
		}
	}
	return h
}

// itemLocked returns the item of a key, a new one if need be.
func (q *Queue) itemLocked(key string) *item {
	it := q.items[key]
	if it == nil {
		it = &item{key: key, index: -1}
		q.items[key] = it
	}
	return it
}

// placeLocked puts an item with a new time where it belongs.
func (q *Queue) placeLocked(it *item) {
	it.seq = q.nextLocked()
	switch {
	case it.running:
		it.again, it.removed = true, false
		return
	case it.index < 0:
		q.waiting.push(it)
	default:
		q.waiting.fix(it)
	}
	if it.index == 0 {
		q.wakeUp()
	}
}
