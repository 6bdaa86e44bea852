package schedule

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTaskIsInNoQueueUntilItIsSet(t *testing.T) {
	q, w := New(Options{}), &fakeWork{}
	check := func(when string) {
		t.Helper()
		q.Remove(w)
		_, due := q.Due(w)
		_, position := q.Position(w)
		if due || position || q.Len() != 1 {
			t.Errorf("%s: Due %v, Position %v, Len %d; want none and the other", when, due, position, q.Len())
		}
	}
	q.Set(&fakeWork{}, in(time.Hour)) // is at 0, as the zero Task might be taken to be
	check("before")
	q.Set(w, in(time.Minute))
	check("after")
	q.SetNow(w)
	check("once more")
}

func TestSetTakesAnyTime(t *testing.T) {
	latest, hence := time.Unix(0, math.MaxInt64), in(time.Hour)
	for name, row := range map[string]struct{ due, want time.Time }{
		"with a monotonic reading": {hence, hence.Round(0)},
		"in another zone":          {hence.In(time.FixedZone("", 3600)), hence.Round(0)},
		"the latest":               {latest, latest},
		"beyond the latest":        {latest.Add(1), latest},
		"far beyond the latest":    {time.Unix(math.MaxInt64/2, 0), latest},
		"the zero Time":            {time.Time{}, time.Unix(0, math.MinInt64)},
	} {
		q, w := New(Options{}), &fakeWork{}
		q.Set(w, row.due)
		if got, ok := q.Due(w); !ok || got != row.want { // not Equal: without the monotonic reading
			t.Errorf("%s: Due = %v, %v; want %v", name, got, ok, row.want)
		}
	}
}

func TestTimesAtTheEndsAreInOrder(t *testing.T) {
	inBubble(t, Options{Workers: 1}, func(t *testing.T, q *Queue, f *fakes) {
		q.Set(f.named("never"), time.Unix(math.MaxInt64/2, 0))
		q.Set(f.named("zero"), time.Time{})
		q.Set(f.named("soon"), in(time.Second))
		at(24 * time.Hour)
		f.want(t, "zero@0s", "soon@1s")
		if h := q.Health(); h.Waiting != 1 || !h.NextDue.Equal(time.Unix(0, math.MaxInt64)) || time.Since(h.LastWake) > DefaultMaxIdle {
			t.Errorf("Health = %+v", h)
		}
		q.Remove(f.named("never"))
		if h := q.Health(); !h.NextDue.IsZero() {
			t.Errorf("NextDue = %v with none that waits", h.NextDue)
		}
	})
}

func TestSetNowOfSeveral(t *testing.T) {
	inBubble(t, Options{Workers: 1}, func(t *testing.T, q *Queue, f *fakes) {
		f.do = func(context.Context, *fakeWork) { time.Sleep(time.Second) }
		runs, later, first, none := f.named("runs"), f.named("later"), f.named("first"), f.named("none")
		q.SetNow()
		q.SetNow(runs)
		at(0)
		q.Set(later, in(time.Hour))
		q.SetNow(first)
		q.SetNow(none, runs, later, first, none)
		if got := q.Len(); got != 4 {
			t.Errorf("Len = %d; want 4", got)
		}
		at(time.Minute)
		f.want(t, "runs@0s", "first@1s", "none@2s", "runs@3s", "later@4s")
	})
}

// entry is what a list knows of a Work that waits.
type entry struct {
	w      *fakeWork
	urgent bool
	due    time.Time
}

// list does what a Queue does that is not run, in the plainest way.
type list []entry // in the order in which they were set

func (l *list) remove(w *fakeWork) {
	*l = slices.DeleteFunc(*l, func(e entry) bool { return e.w == w })
}

func (l *list) set(e entry) {
	for _, old := range *l {
		if old.w == e.w && old.urgent == e.urgent && (e.urgent || old.due.Equal(e.due)) {
			return // keeps its place
		}
	}
	l.remove(e.w)
	*l = append(*l, e)
}

func (l list) inOrder() list {
	return slices.SortedStableFunc(slices.Values(l), func(a, b entry) int {
		switch {
		case a.urgent && b.urgent:
			return 0
		case a.urgent:
			return -1
		case b.urgent:
			return 1
		}
		return a.due.Compare(b.due)
	})
}

func TestOrderIsThatOfAList(t *testing.T) {
	q, f := New(Options{}), newFakes()
	var l list
	some := func() *fakeWork { return f.named(fmt.Sprint(rand.IntN(60))) }
	for range 5000 {
		w, other := some(), some()
		switch rand.IntN(10) {
		default:
			due := f.began.Add(time.Duration(rand.IntN(40)) * time.Minute)
			q.Set(w, due)
			l.set(entry{w: w, due: due})
		case 0, 1, 2:
			q.Remove(w)
			l.remove(w)
		case 3:
			q.SetNow(w, other, w)
			l.set(entry{w: w, urgent: true})
			l.set(entry{w: other, urgent: true})
		}
		if q.Len() != len(l) {
			t.Fatalf("Len = %d; want %d", q.Len(), len(l))
		}
		for i, e := range l.inOrder() {
			due, ok := q.Due(e.w)
			if got, _ := q.Position(e.w); got != i || !ok || !e.urgent && !due.Equal(e.due) {
				t.Fatalf("Position(%v) = %d, Due = %v; want %d, %v", e.w, got, due, i, e.due)
			}
		}
	}
	for i, e := range l.inOrder() {
		if got := q.waiting.pop(); got != Work(e.w) {
			t.Fatalf("%v is at %d; want %v", got, i, e.w)
		}
	}
}
