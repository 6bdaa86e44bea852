package lane

import (
	"slices"
	"time"
)

// Status is what a Lane does at a moment.
type Status struct {
	Name        string
	Running     int       // in flight and at work, the slow ones too
	Slow        int       // of those, how many work without a slot
	Parked      int       // in flight, gave their slot back, or wait for it again
	Queued      int       // have not taken off
	Abandoned   []string  // names of flights that do not return, sorted; nil: none
	Flying      []string  // names of the others in flight, the oldest first; nil: none
	OldestSince time.Time // when the first of Flying and Abandoned took off; zero: there are none
	Panics      int       // since New, those of Done too
}

// Status returns what the lane does now.
func (l *Lane) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Name:   l.opts.Name,
		Queued: len(l.queues[0]) + len(l.queues[1]),
		Panics: l.panics,
	}
	var trips []*trip
	for t := range l.flying {
		if s.OldestSince.IsZero() || t.since.Before(s.OldestSince) {
			s.OldestSince = t.since
		}
		switch {
		case t.lost:
			s.Abandoned = append(s.Abandoned, t.flight.Name)
			continue
		case t.away > 0 || t.ready != nil:
			s.Parked++
		default:
			s.Running++
			if !t.slot {
				s.Slow++
			}
		}
		trips = append(trips, t)
	}
	slices.Sort(s.Abandoned)
	slices.SortFunc(trips, func(a, b *trip) int { return a.since.Compare(b.since) })
	for _, t := range trips {
		s.Flying = append(s.Flying, t.flight.Name)
	}
	return s
}

// Waits returns when the lane's next token comes, for a queued flight that needs
// one while there is none, and zero for any other.
func (l *Lane) Waits(f *Flight) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.index == 0 || !f.Token || l.interval == 0 {
		return time.Time{}
	}
	if next := l.full.Add(l.interval - l.burst); next.After(time.Now()) {
		return next
	}
	return time.Time{}
}
