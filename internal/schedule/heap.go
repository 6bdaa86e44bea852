package schedule

import "container/heap"

// A Task is one work's place in a [Queue]. Its zero value is in no Queue. It may
// be in one Queue at a time, and only that Queue uses it. It must not be copied
// after first use.
type Task struct {
	_     noCopy
	at    int64 // Unix seconds
	index int32 // in the heap, plus one; 0 when it does not wait
}

// noCopy has go vet complain of copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// works is a heap of what waits, the first due at index 0.
type works []Work

func (h *works) push(w Work) { heap.Push((*heaped)(h), w) }

func (h *works) pop() Work { return heap.Pop((*heaped)(h)).(Work) }

func (h *works) fix(t *Task) { heap.Fix((*heaped)(h), int(t.index)-1) }

func (h *works) remove(t *Task) { heap.Remove((*heaped)(h), int(t.index)-1) }

// add puts a work at the end, where it is out of order until order is called.
func (h *works) add(w Work) { (*heaped)(h).Push(w) }

func (h *works) order() { heap.Init((*heaped)(h)) }

// setAll gives all the same time; then any order is one.
func (h works) setAll(at int64) {
	for _, w := range h {
		w.Schedule().at = at
	}
}

// heaped has the methods that package heap wants.
type heaped []Work

func (s heaped) Len() int { return len(s) }

func (s heaped) Less(i, j int) bool { return s[i].Schedule().at < s[j].Schedule().at }

func (s heaped) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].Schedule().index, s[j].Schedule().index = int32(i+1), int32(j+1)
}

func (s *heaped) Push(x any) {
	w := x.(Work)
	*s = append(*s, w)
	w.Schedule().index = int32(len(*s))
}

func (s *heaped) Pop() any {
	old := *s
	last := len(old) - 1
	w := old[last]
	old[last] = nil // for the garbage collector
	w.Schedule().index = 0
	*s = old[:last]
	return w
}
