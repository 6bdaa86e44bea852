package schedule

import (
	"container/heap"
	"time"
)

// An item is a key that waits or runs. The queue's mutex guards it.
type item struct {
	key    string
	due    time.Time // while running: of the next run, if again
	urgent bool      // set by SetNow
	seq    uint64    // the order in which keys were set
	index  int       // in the heap; -1 while running

	running bool
	since   time.Time // when it began to run
	again   bool      // set while running
	removed bool      // removed while running
}

// queued reports whether the item has a next run.
func (it *item) queued() bool {
	return it.index >= 0 || it.again
}

func (it *item) ready(now time.Time) bool {
	return it.urgent || !it.due.After(now)
}

func (it *item) less(other *item) bool {
	if it.urgent != other.urgent {
		return it.urgent
	}
	if !it.urgent && !it.due.Equal(other.due) {
		return it.due.Before(other.due)
	}
	return it.seq < other.seq
}

// waiting is a heap of the items that wait, the first due at index 0.
type waiting []*item

func (w *waiting) push(it *item) { heap.Push((*items)(w), it) }

func (w *waiting) pop() *item { return heap.Pop((*items)(w)).(*item) }

func (w *waiting) fix(it *item) { heap.Fix((*items)(w), it.index) }

func (w *waiting) remove(it *item) { heap.Remove((*items)(w), it.index) }

// before counts the items at i and below that come before it. No item comes
// before its parent, so the search ends at each one that does not count.
func (w waiting) before(i int, it *item) int {
	if i >= len(w) || !w[i].less(it) {
		return 0
	}
	return 1 + w.before(2*i+1, it) + w.before(2*i+2, it)
}

// items has the methods that package heap wants.
type items []*item

func (s items) Len() int { return len(s) }

func (s items) Less(i, j int) bool { return s[i].less(s[j]) }

func (s items) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *items) Push(x any) {
	it := x.(*item)
	it.index = len(*s)
	*s = append(*s, it)
}

func (s *items) Pop() any {
	old := *s
	last := len(old) - 1
	it := old[last]
	old[last] = nil // for the garbage collector
	it.index = -1
	*s = old[:last]
	return it
}
