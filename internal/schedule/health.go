package schedule

import "time"

// Health is the state of a Queue, for a check that it still works.
type Health struct {
	LastWake time.Time // the last look at the clock; zero before Run
	NextDue  time.Time // of the first waiting Work; zero when none waits
	Running  int
	Waiting  int
	// OldestRunning names the Work that has been running longest, since
	// OldestSince; both are zero when none runs.
	OldestRunning string
	OldestSince   time.Time
	Panics        int // since New
}

// Health returns the state now. While Run runs, LastWake is no older than
// Options.MaxIdle.
func (q *Queue) Health() Health {
	h, oldest := q.health()
	if oldest != nil {
		h.OldestRunning = oldest.String() // not under the lock
	}
	return h
}

// health returns the state, and the Work that has been running longest.
func (q *Queue) health() (h Health, oldest Work) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h = Health{LastWake: q.lastWake, Running: len(q.active), Waiting: len(q.waiting), Panics: q.panics}
	if len(q.waiting) > 0 {
		h.NextDue = moment(q.waiting.first().due)
	}
	for _, r := range q.active {
		if oldest == nil || r.since.Before(h.OldestSince) {
			oldest, h.OldestSince = r.work, r.since
		}
	}
	return h, oldest
}
