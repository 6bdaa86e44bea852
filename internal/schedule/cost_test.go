package schedule

import (
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// many is how many tasks wait in the tests that count.
const many = 100_000

// countedWork counts how often the queue looks at it, and at it or any other
// that was made with it. To compare two tasks takes two looks, to swap them two
// more.
type countedWork struct {
	task  Task
	looks int
	all   *int
}

func (w *countedWork) Schedule() *Task {
	w.looks++
	*w.all++
	return &w.task
}

func (w *countedWork) Run(context.Context) {}

func (w *countedWork) String() string { return "counted" }

// newCounted makes works and the counter of looks at any of them.
func newCounted(n int) (works []Work, looks *int) {
	looks = new(int)
	for range n {
		works = append(works, &countedWork{all: looks})
	}
	return works, looks
}

// newLater has works wait in a new queue at times that are in no order, none of
// them due within an hour.
func newLater(works []Work) *Queue {
	q, r := New(Options{}), newRand()
	for _, w := range works {
		q.Set(w, someTime(r))
	}
	return q
}

// newRand is the same in each run, so that the counts are.
func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func someTime(r *rand.Rand) time.Time {
	return in(time.Hour + time.Duration(r.IntN(1_000_000))*time.Second)
}

func TestWaitingTaskIsSmall(t *testing.T) {
	task, entry := unsafe.Sizeof(Task{}), unsafe.Sizeof(waiting{nil}[0])
	if task > 24 || entry > 16 {
		t.Errorf("a Task has %d bytes and its entry in the queue %d; want 24 and 16 at most", task, entry)
	}
}

func TestWakeUpLooksAtTheFirstOnly(t *testing.T) {
	works, looks := newCounted(many)
	q := newLater(works)
	first := q.waiting[0].(*countedWork)
	*looks, first.looks = 0, 0
	var wg sync.WaitGroup
	q.dispatch(t.Context(), &wg)
	if *looks != first.looks || *looks > 2 {
		t.Errorf("%d looks, %d of them at the first; want 2 at the first and no more", *looks, first.looks)
	}
	if got := testing.AllocsPerRun(1000, func() { q.dispatch(t.Context(), &wg) }); got != 0 {
		t.Errorf("%v allocations; want 0", got)
	}
	if h := q.Health(); h.Running != 0 || h.Waiting != many {
		t.Errorf("Health = %+v", h)
	}
}

func TestSetLooksAtFew(t *testing.T) {
	works, looks := newCounted(many)
	q := newLater(works)
	// Two comparisons and a swap at each level on the way down, and a few looks
	// before and after.
	most := 6*bits.Len(many) + 10
	check := func(what string, set func()) {
		t.Helper()
		*looks = 0
		if set(); *looks > most {
			t.Errorf("%s: %d looks; want %d at most", what, *looks, most)
		}
	}
	last := in(2_000_000 * time.Second)
	check("the first becomes the last", func() { q.Set(q.waiting[0], last) })
	check("the last becomes the first", func() { q.Set(q.waiting[many-1], in(0)) })
	check("the last is set now", func() { q.SetNow(q.waiting[many-1]) })
	check("the first leaves", func() { q.Remove(q.waiting[0]) })
	check("one joins as the first", func() { q.SetNow(&countedWork{all: looks}) })
	r := newRand()
	for range 10_000 {
		w, due := works[r.IntN(many)], someTime(r)
		check("any moves", func() { q.Set(w, due) })
	}
	if got := testing.AllocsPerRun(1000, func() { q.Set(works[r.IntN(many)], someTime(r)) }); got != 0 {
		t.Errorf("%v allocations; want 0", got)
	}
}

func TestPositionLooksAtWhatIsBefore(t *testing.T) {
	works, looks := newCounted(many)
	q := newLater(works)
	for _, w := range []Work{q.waiting[0], q.waiting[1], q.waiting[1000]} {
		*looks = 0
		position, _ := q.Position(w)
		if *looks > 2*position+2 { // a heap of n has n+1 places below it
			t.Errorf("%d looks for position %d; want twice as many", *looks, position)
		}
	}
}

func TestSetNowOfManyInOrderMovesNone(t *testing.T) {
	works, looks := newCounted(many)
	q := New(Options{})
	q.SetNow(works...)
	if *looks > 5*many { // one comparison, with its parent, and three at itself
		t.Errorf("%d looks for %d tasks; want 5 each at most", *looks, many)
	}
	if !slices.Equal([]Work(q.waiting), works) {
		t.Error("they are in another order than the one in which they came")
	}
	got := testing.AllocsPerRun(3, func() {
		for _, w := range works {
			w.(*countedWork).task = Task{}
		}
		q.waiting = nil
		q.SetNow(works...)
	})
	if got > 2 { // one, and another that the race detector does not let Go leave out
		t.Errorf("%v allocations; want 1", got)
	}
}

func TestSetNowOfManyAmongManyIsLinear(t *testing.T) {
	for name, first := range map[string]int{"new": many, "all that wait": 0} {
		works, looks := newCounted(2 * many)
		q := newLater(works[:many])
		*looks = 0
		q.SetNow(works[first:][:many]...)
		if *looks > 16*many {
			t.Errorf("%s: %d looks for %d tasks; want 16 each at most", name, *looks, many)
		}
	}
}

func BenchmarkSet(b *testing.B) {
	q, works := newWaiting(100_000)
	r, begin := newRand(), time.Now()
	i := 0
	for b.Loop() {
		q.Set(works[i%len(works)], begin.Add(time.Duration(r.IntN(1_000_000))*time.Second))
		i++
	}
}

// newWaiting is newLater with works that count nothing.
func newWaiting(n int) (*Queue, []Work) {
	works := make([]Work, n)
	for i := range works {
		works[i] = &fakeWork{}
	}
	return newLater(works), works
}

// BenchmarkWakeUp takes the same time however many wait.
func BenchmarkWakeUp(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q, _ := newWaiting(n)
			var wg sync.WaitGroup
			b.ReportAllocs()
			for b.Loop() {
				q.dispatch(b.Context(), &wg)
			}
		})
	}
}

func BenchmarkSetNow100k(b *testing.B) {
	works := make([]fakeWork, 100_000)
	all := make([]Work, len(works))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range works {
			works[i] = fakeWork{}
			all[i] = &works[i]
		}
		q := New(Options{})
		b.StartTimer()
		q.SetNow(all...)
	}
}
