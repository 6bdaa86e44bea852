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
	OldestSince time.Time // when the first of Flying took off; zero: none flies
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
	if len(trips) > 0 {
		s.OldestSince = trips[0].since
	}
	return s
}
