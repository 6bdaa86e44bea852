package schedule

import (
	"container/heap"
	"slices"
)

// waiting is a heap of what waits, the first due at index 0. It has nothing
// beside the Works, so that each entry is small.
type waiting []Work

func (h waiting) first() *Task { return h[0].Schedule() }

// grow makes room for n more at once.
func (h *waiting) grow(n int) { *h = slices.Grow(*h, n) }

func (h *waiting) push(w Work) { heap.Push((*works)(h), w) }

func (h *waiting) pop() Work { return heap.Pop((*works)(h)).(Work) }

func (h *waiting) fix(t *Task) { heap.Fix((*works)(h), int(t.index)-1) }

func (h *waiting) remove(t *Task) { heap.Remove((*works)(h), int(t.index)-1) }

// before counts the tasks at i and below that come before t. None comes before
// its parent, so the search ends at each one that does not count.
func (h waiting) before(i int, t *Task) int {
	if i >= len(h) || !h[i].Schedule().less(t) {
		return 0
	}
	return 1 + h.before(2*i+1, t) + h.before(2*i+2, t)
}

// works has the methods that package heap wants.
type works []Work

func (s works) Len() int { return len(s) }

func (s works) Less(i, j int) bool { return s[i].Schedule().less(s[j].Schedule()) }

func (s works) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].Schedule().index, s[j].Schedule().index = int32(i+1), int32(j+1)
}

func (s *works) Push(x any) {
	w := x.(Work)
	*s = append(*s, w)
	w.Schedule().index = int32(len(*s))
}

func (s *works) Pop() any {
	old := *s
	last := len(old) - 1
	w := old[last]
	old[last] = nil // for the garbage collector
	w.Schedule().index = 0
	*s = old[:last]
	return w
}
