package lane

import "time"

// probePatience is for how long a probe is waited for before another one flies too.
// It is longer than it takes to find out that a server never answers.
const probePatience = 2 * time.Minute

// Stop lets nothing take off before a time; what is in flight goes on. What is
// queued gets Done(ErrStopped): it may have somewhere else to go. What is
// submitted from then on waits. At the time one flight takes off as a probe,
// while the others wait; when it ends, all go on, unless Stop was called while it
// flew or by its Done. One that takes longer than two minutes, and may hang,
// is followed by another probe. Of two times that are given before there is a probe, the
// later counts. The wait is measured by the monotonic clock, so that setting the
// clock does not change it.
func (l *Lane) Stop(until time.Time) {
	l.mu.Lock()
	defer l.unlock()
	now := time.Now()
	at := now.Add(max(0, time.Until(until)))
	if l.probe != nil || at.After(l.until) {
		l.probe, l.until = nil, at
	}
	l.sendAllBackLocked(ErrStopped)
}

// Probe ends the wait of a stopped lane: the next flight is the probe.
func (l *Lane) Probe() {
	l.mu.Lock()
	defer l.unlock()
	if now := time.Now(); l.until.After(now) && l.probe == nil {
		l.until = now
	}
}

// Resume ends what Stop began: all take off again.
func (l *Lane) Resume() {
	l.mu.Lock()
	defer l.unlock()
	l.probe, l.until = nil, time.Time{}
}

// StoppedUntil returns the time of Stop, or zero when the lane is not stopped. A
// time that is past says that a probe flies, or that the next flight is one.
func (l *Lane) StoppedUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until.IsZero() {
		return time.Time{}
	}
	return time.Now().Add(time.Until(l.until)).Round(0) // also after the clock was set
}

// mayFlyLocked reports whether the breaker lets a flight take off now.
func (l *Lane) mayFlyLocked(now time.Time) bool {
	switch {
	case l.until.IsZero():
		return true
	case l.probe != nil:
		return l.isTimeLocked(l.probe.since.Add(probePatience), now)
	}
	return l.isTimeLocked(l.until, now)
}

// probeEndedLocked resumes when t is the probe and nobody has stopped the lane
// again. A probe whose owner cancelled it has shown nothing; another takes its
// place.
func (l *Lane) probeEndedLocked(t *trip) {
	if l.probe != t {
		return
	}
	l.probe = nil
	if t.flight.Context.Err() == nil {
		l.until = time.Time{}
	}
}
