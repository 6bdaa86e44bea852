package certwright

import (
	"testing"
	"time"
)

// A call was abandoned while the clock was a year ahead.
func TestCallAbandonedByAClockThatWasAheadHoldsNothingUp(t *testing.T) {
	now := time.Now().Unix()
	s := &state{why: &trouble{stuck: map[string][]*flight{"x": {{lostAt: now + 365*24*60*60}}, "y": {{lostAt: now}}}}}
	if at := s.stuckUntil("x", now); at > now {
		t.Errorf("held up for %v", time.Duration(at-now)*time.Second)
	}
	if at := s.stuckUntil("y", now); at != now+stuckFor {
		t.Errorf("held up until %d", at)
	}
}

// A wish was met while the clock was a year ahead: it does not meet those after it.
func TestWishMetByAClockThatWasAheadMeetsNoOther(t *testing.T) {
	now := time.Now()
	c := &managed{}
	c.busy, c.why = bit(doObtain), &trouble{wished: now.Add(365 * 24 * time.Hour).UnixNano()}
	new(Manager).wishLocked(c, newWait(1), 0)
	if _, done := c.why.waiters[0].done(c, now); done {
		t.Error("Renew returns before anything was renewed")
	}
}
