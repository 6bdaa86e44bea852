package certwright

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/guard"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/schedule"
)

// leftovers cleans up what is left of challenges whose certificates nobody issues
// now: of processes that died, and of clean-ups that failed.
type leftovers struct {
	m    *Manager
	task schedule.Task
	busy atomic.Bool

	mu      sync.Mutex    // guards the fields below
	pause   time.Duration // from the last look to the next; 0: nothing is left
	planned bool          // the next look is in the schedule
}

const (
	leftoversFirst = time.Minute // from the start, and after the first failure
	leftoversMost  = time.Hour
)

// Schedule implements schedule.Work.
func (l *leftovers) Schedule() *schedule.Task { return &l.task }

// String names the work in errors of the schedule.
func (l *leftovers) String() string { return "clean-up of challenges that were left" }

// soon plans a look, unless one is planned: after twice as long each time.
func (l *leftovers) soon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.planned || l.m.ctx.Err() != nil {
		return
	}
	l.planned = true
	l.pause = min(max(2*l.pause, leftoversFirst), leftoversMost)
	pause := l.pause/2 + time.Duration(rand.Float64()*float64(l.pause)/2)
	l.m.queue.Set(l, time.Now().Add(pause).Unix())
}

// Due implements schedule.Work.
func (l *leftovers) Due() {
	l.mu.Lock()
	l.planned = false
	l.mu.Unlock()
	if !l.busy.CompareAndSwap(false, true) {
		l.soon()
		return
	}
	l.m.spawn(func() {
		defer l.busy.Store(false)
		isLeft := true
		err := <-guard.Call(nil, "the storage", func() error {
			isLeft = l.m.cleanUpLeft(l.m.ctx)
			return nil
		})
		if err != nil {
			l.m.log.Error("challenges that were left could not be cleaned up", "err", err)
		}
		if isLeft || err != nil {
			l.soon()
			return
		}
		l.mu.Lock()
		l.pause = 0
		l.mu.Unlock()
	})
}

// cleanUpLeft cleans up what is left of challenges of any certificate whose lease
// is free, and reports whether anything may still be left.
func (m *Manager) cleanUpLeft(ctx context.Context) (isLeft bool) {
	defer m.calls.begin("the clean-up of challenges that were left")()
	list, err := m.listJournal(ctx)
	if err != nil {
		return true
	}
	byID := map[string][]records.Entry{}
	for _, e := range list {
		byID[e.ID] = append(byID[e.ID], e)
	}
	for id, list := range byID {
		if ctx.Err() != nil {
			break
		}
		lease, err := m.lockWithin(ctx, records.IssueLock(id), cleanPatience)
		if err != nil { // who has it cleans up
			isLeft = true
			continue
		}
		isLeft = m.newJournal(lease.Context(), id).open(lease.Context(), list) > 0 || isLeft
		m.unlock(ctx, lease)
	}
	return isLeft
}
