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
