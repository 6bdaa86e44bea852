package lane

import (
	"context"
	"time"
)

// takeOffLocked gives the free slots: to trips that want theirs back, and then
// to queued flights.
func (l *Lane) takeOffLocked() {
	if len(l.back) == 0 && len(l.queues[0]) == 0 && len(l.queues[1]) == 0 {
		return
	}
	now := time.Now()
	for l.working < l.opts.Slots && len(l.back) > 0 {
		t := l.back[0]
		l.back[0] = nil // for the garbage collector
		l.back = l.back[1:]
		l.giveSlotLocked(t, now)
		close(t.ready)
		t.ready = nil
	}
	for l.working < l.opts.Slots && len(l.flying) < l.opts.Most && l.mayFlyLocked(now) {
		f := l.nextLocked(now)
		if f == nil {
			return
		}
		l.queueOf(f).remove(f)
		f.forget()
		if f.Context.Err() != nil {
			l.sendBackLocked(context.Cause(f.Context), f)
			continue
		}
		t := l.boardLocked(f, now)
		if t.token = f.Token; t.token {
			l.takeTokenLocked(now)
		}
		if !l.until.IsZero() {
			l.probe = t
		}
	}
}

// nextLocked returns the queued flight that may take off first, or nil. One
// that has to wait for a token keeps none that needs no token.
func (l *Lane) nextLocked(now time.Time) *Flight {
	var first *Flight
	if q := l.queues[1]; len(q) > 0 && l.tokenLocked(now) {
		first = q[0]
	}
	if q := l.queues[0]; len(q) > 0 && (first == nil || q[0].before(first)) {
		first = q[0]
	}
	return first
}

// SetRate has flights with Token take off n at once and n within any per, the
// tokens coming back evenly. A token is taken at take-off, in the order of need.
// Tokens that were taken stay taken when the rate changes. Zero or less for
// either is no limit.
func (l *Lane) SetRate(n int, per time.Duration) {
	l.mu.Lock()
	defer l.unlock()
	if n <= 0 || per <= 0 {
		l.interval, l.burst, l.full = 0, 0, time.Time{}
		return
	}
	l.interval = max(1, per/time.Duration(n))
	l.burst = l.interval * time.Duration(n)
	if latest := time.Now().Add(l.burst); l.full.After(latest) {
		l.full = latest
	}
}

// tokenLocked reports whether there is a token; if not, tick looks again when
// there is.
func (l *Lane) tokenLocked(now time.Time) bool {
	if l.interval == 0 {
		return true
	}
	return l.isTimeLocked(l.full.Add(l.interval-l.burst), now)
}

func (l *Lane) takeTokenLocked(now time.Time) {
	if l.full.Before(now) {
		l.full = now
	}
	l.full = l.full.Add(l.interval)
}

// Refund gives the token back that ctx's flight took, for one that turns out to
// need none. It does nothing outside a flight, or when it is called again.
func Refund(ctx context.Context) {
	t, ok := ctx.Value(tripKey{}).(*trip)
	if !ok {
		return
	}
	l := t.lane
	l.mu.Lock()
	defer l.unlock()
	if t.token {
		t.token = false
		l.full = l.full.Add(-l.interval)
	}
}

// wakeLocked has tick called at a time, or before.
func (l *Lane) wakeLocked(at time.Time) {
	if !l.alarm.IsZero() && !at.Before(l.alarm) {
		return
	}
	l.alarm = at
	if l.timer == nil {
		l.timer = time.AfterFunc(time.Until(at), l.tick)
		return
	}
	l.timer.Reset(time.Until(at))
}

// isTimeLocked reports whether it is time; if not, tick looks again when it is.
func (l *Lane) isTimeLocked(at, now time.Time) bool {
	if at.After(now) {
		l.wakeLocked(at)
		return false
	}
	return true
}

// tick takes the slots of slow trips and abandons those that do not end. Unlock
// then looks at the tokens and at the breaker.
func (l *Lane) tick() {
	l.mu.Lock()
	defer l.unlock()
	l.alarm = time.Time{}
	now := time.Now()
	for t := range l.flying {
		if t.slot && l.isTimeLocked(t.worked.Add(l.opts.Slow), now) {
			l.freeSlotLocked(t)
		}
		if !t.over && !t.ended.IsZero() && l.isTimeLocked(t.ended.Add(l.opts.Grace), now) {
			l.abandonLocked(t)
		}
	}
}
