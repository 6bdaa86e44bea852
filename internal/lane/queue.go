package lane

import "container/heap"

// before reports whether f takes off before other: it has the smaller need, or
// the same and was submitted first.
func (f *Flight) before(other *Flight) bool {
	if f.need != other.need {
		return f.need < other.need
	}
	return f.seq < other.seq
}

// waiting is a heap of queued flights, the first to take off at index 0.
type waiting []*Flight

func (h *waiting) push(f *Flight) { heap.Push((*flights)(h), f) }

func (h *waiting) fix(f *Flight) { heap.Fix((*flights)(h), f.index-1) }

func (h *waiting) remove(f *Flight) { heap.Remove((*flights)(h), f.index-1) }

// flights has the methods that package heap wants.
type flights []*Flight

func (s flights) Len() int { return len(s) }

func (s flights) Less(i, j int) bool { return s[i].before(s[j]) }

func (s flights) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i+1, j+1
}

func (s *flights) Push(x any) {
	f := x.(*Flight)
	*s = append(*s, f)
	f.index = len(*s)
}

func (s *flights) Pop() any {
	old := *s
	last := len(old) - 1
	f := old[last]
	old[last] = nil // for the garbage collector
	f.index = 0
	*s = old[:last]
	return f
}
