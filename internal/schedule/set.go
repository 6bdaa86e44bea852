package schedule

import "time"

// Set makes a Work due at a time of the wall clock, in place of its time until
// now if it has one; a time that is past, such as the zero Time, is due at once.
// Works of one time run in the order in which they were set. A Work that runs
// now is run again at that time, but not before it has ended; only a
// [Queue.SetNow] during the run is stronger and stays. Times before 1678 or
// after 2261 may count as the nearest that Unix nanoseconds can say.
func (q *Queue) Set(w Work, due time.Time) {
	at := nanoseconds(due)
	q.mu.Lock()
	defer q.mu.Unlock()
	t := w.Schedule()
	if t.is(running) && t.is(again) && t.is(urgent) {
		return
	}
	if t.queued() && !t.is(urgent) && t.due == at {
		return // keeps its place
	}
	t.due = at
	t.flags &^= urgent
	q.placeLocked(w, t)
}

// SetNow makes Works due now, in the order given, and ahead of all that are not
// set in this way, however long they are due. One that is already set in this
// way keeps its place, and one that runs now is run again right after. Many at
// once cost less than each alone.
func (q *Queue) SetNow(ws ...Work) {
	q.mu.Lock()
	defer q.mu.Unlock()
	unknown := 0
	for _, w := range ws {
		if !w.Schedule().known() {
			unknown++
		}
	}
	q.waiting.grow(unknown)
	now := nanoseconds(q.wallClock())
	for _, w := range ws {
		t := w.Schedule()
		if t.queued() && t.is(urgent) {
			continue // keeps its place
		}
		t.due = now
		t.flags |= urgent
		q.placeLocked(w, t)
	}
}

// Remove takes a Work out. When it runs now, the run goes on and is the last. A
// Work that is not in the queue is passed over.
func (q *Queue) Remove(w Work) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := w.Schedule()
	switch {
	case t.is(running):
		t.flags &^= again
		t.flags |= removed
	case t.index > 0:
		q.waiting.remove(t)
		t.flags = 0
	}
}

// Due returns when a Work is due next, in local time and without a monotonic
// reading, and reports whether it is due at all: a Work that runs and was not
// set again is not. For SetNow it is the time of the call.
func (q *Queue) Due(w Work) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := w.Schedule()
	if !t.queued() {
		return time.Time{}, false
	}
	return moment(t.due), true
}

// Len returns the number of Works that wait or run.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) + len(q.active)
}

// Position returns how many waiting Works come before a Work, and reports
// whether it is in the queue. It is 0 for a Work that runs. It takes time in
// proportion to its result.
func (q *Queue) Position(w Work) (int, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := w.Schedule()
	switch {
	case t.is(running):
		return 0, true
	case t.index > 0:
		return q.waiting.before(0, t), true
	}
	return 0, false
}

// placeLocked puts a Work with a new time, whose task is t, where it belongs.
func (q *Queue) placeLocked(w Work, t *Task) {
	t.seq = q.nextLocked()
	switch {
	case t.is(running):
		t.flags |= again
		t.flags &^= removed
		return
	case t.index == 0:
		q.waiting.push(w)
	default:
		q.waiting.fix(t)
	}
	if t.index == 1 {
		q.wakeUp() // it is the first
	}
}
