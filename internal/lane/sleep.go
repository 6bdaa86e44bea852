package lane

import (
	"context"
	"slices"
	"time"
)

// Sleep waits for d or until ctx ends, whose cause it then returns. In a flight
// it gives the slot back meanwhile, and takes one again, before any that have
// not taken off, before it returns. Outside it only waits.
func Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	back := Idle(ctx)
	defer back()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Idle gives the slot of ctx's flight back until back is called, which takes
// one again, before any that have not taken off: for waiting for a lease. When
// the flight's context ends, back returns without a slot. Of several calls of
// Idle and Sleep in one flight, the last to end takes the slot. Outside a flight
// it does nothing. It is called on the flight's goroutine or one that Do waits
// for; back may be called again, which does nothing.
func Idle(ctx context.Context) (back func()) {
	t, ok := ctx.Value(tripKey{}).(*trip)
	if !ok {
		return func() {}
	}
	t.leave()
	away := true
	return func() {
		if away {
			away = false
			t.comeBack()
		}
	}
}

func (t *trip) leave() {
	l := t.lane
	l.mu.Lock()
	defer l.unlock()
	t.away++
	l.freeSlotLocked(t)
}

// comeBack waits for a slot.
func (t *trip) comeBack() {
	ready := t.queueAgain()
	if ready == nil {
		return
	}
	select {
	case <-ready:
	case <-t.ctx.Done():
		t.leaveLine()
	}
}

// queueAgain returns nil when the trip need not wait.
func (t *trip) queueAgain() (ready <-chan struct{}) {
	l := t.lane
	l.mu.Lock()
	defer l.unlock()
	t.away--
	if t.away > 0 || t.slot || t.over || t.ready != nil {
		return nil
	}
	made := make(chan struct{})
	t.ready = made
	l.back = append(l.back, t)
	return made
}

// leaveLine has the trip go on without a slot, if it has not got one.
func (t *trip) leaveLine() {
	l := t.lane
	l.mu.Lock()
	defer l.unlock()
	l.leaveLineLocked(t)
}

func (l *Lane) leaveLineLocked(t *trip) {
	if i := slices.Index(l.back, t); i >= 0 {
		l.back = slices.Delete(l.back, i, i+1)
		t.ready = nil
	}
}
