package schedule

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

const many = 100_000

func TestWaitingWorkIsSmall(t *testing.T) {
	if got := unsafe.Sizeof(Task{}); got != 16 {
		t.Errorf("a Task has %d bytes; want 16", got)
	}
}

func newWaiting(n int) (*Queue, []Work) {
	q, r := New(Options{}), rand.New(rand.NewPCG(1, 2))
	ws := make([]Work, n)
	for i := range ws {
		ws[i] = &fakeWork{}
		q.Set(ws[i], r.Int64N(1_000_000))
	}
	return q, ws
}

func TestSetAllocatesNothing(t *testing.T) {
	q, ws := newWaiting(many)
	r := rand.New(rand.NewPCG(3, 4))
	if got := testing.AllocsPerRun(1000, func() {
		w := ws[r.IntN(many)]
		q.Set(w, r.Int64N(1_000_000))
		q.Remove(w)
		q.SetNow(w)
	}); got != 0 {
		t.Errorf("%v allocations; want 0", got)
	}
}

// countedWork counts how often the queue looks at it or another.
type countedWork struct {
	fakeWork
	looks *int
}

func (w *countedWork) Schedule() *Task {
	*w.looks++
	return &w.Task
}

func TestSetNowOfManyIsLinear(t *testing.T) {
	looks := 0
	ws := make([]Work, 2*many)
	for i := range ws {
		ws[i] = &countedWork{looks: &looks}
	}
	q := New(Options{})
	for i, w := range ws[:many] {
		q.Set(w, math.MaxInt64/2-int64(i))
	}
	for name, some := range map[string][]Work{"new": ws[many:], "all that wait": ws[:many]} {
		looks = 0
		q.SetNow(some...)
		if looks > 16*many {
			t.Errorf("%s: %d looks for %d works; want 16 each at most", name, looks, many)
		}
	}
}

// FuzzOrder does what the input says with a queue and with a list.
func FuzzOrder(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte("set, set again, remove, take out, set now"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		q := New(Options{})
		ws := make([]*fakeWork, 16)
		for i := range ws {
			ws[i] = &fakeWork{}
		}
		list := make(map[*fakeWork]int64)
		for len(ops) >= 2 {
			op, arg := ops[0], int64(ops[1])
			w := ws[op%16]
			ops = ops[2:]
			switch op / 16 % 8 {
			case 0:
				q.Remove(w)
				delete(list, w)
			case 1:
				q.Set(w, Never)
				delete(list, w)
			case 2:
				q.SetNow(w, ws[arg%16])
				now := w.at
				list[w], list[ws[arg%16]] = now, now
			case 3:
				some := []Work{}
				for _, w := range ws[:arg%16] {
					some = append(some, w)
				}
				q.SetNow(some...)
				for _, w := range ws[:arg%16] {
					list[w] = w.at
				}
			case 4:
				if len(q.works) > 0 {
					takeFirst(t, q, list)
				}
			default:
				q.Set(w, arg-128)
				list[w] = arg - 128
			}
			if len(q.works) != len(list) {
				t.Fatalf("%d wait; want %d", len(q.works), len(list))
			}
		}
		for len(list) > 0 {
			takeFirst(t, q, list)
		}
	})
}

// takeFirst compares the first of the queue with the least of the list.
func takeFirst(t *testing.T, q *Queue, list map[*fakeWork]int64) {
	t.Helper()
	var times []int64
	for _, at := range list {
		times = append(times, at)
	}
	w := q.works.pop().(*fakeWork)
	at, ok := list[w]
	if !ok || at != w.at || at != slices.Min(times) || w.index != 0 {
		t.Fatalf("the first is due at %d (waits: %v, at %d, index %d); want %d", w.at, ok, at, w.index, slices.Min(times))
	}
	delete(list, w)
}

func BenchmarkSet(b *testing.B) {
	q, ws := newWaiting(many)
	r := rand.New(rand.NewPCG(3, 4))
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		q.Set(ws[i%many], r.Int64N(1_000_000))
		i++
	}
}

func BenchmarkSetNow100k(b *testing.B) {
	q, ws := newWaiting(many)
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range ws {
			*w.Schedule() = Task{}
		}
		q.works = q.works[:0]
		q.SetNow(ws...)
	}
}
