package certwright

import (
	"testing"
)

// It looks at the queue alone, which is slow to overflow from outside (F85).
func TestSlowSubscriberLosesEventsAndCostsOthersNone(t *testing.T) {
	const more = eventsKept/2 + 7
	var e events
	slow, quick := e.subscribe(t.Context()), e.subscribe(t.Context())
	sent := 0
	emit := func(n int) {
		for range n {
			sent++
			e.emit(Event{Kind: EventIssued, Attempt: sent})
			if got := <-quick; got.Kind != EventIssued || got.Attempt != sent || got.Time.IsZero() {
				t.Fatalf("event %d is %+v", sent, got)
			}
		}
	}
	emit(eventsKept)
	if got := <-slow; got.Attempt != 1 {
		t.Fatalf("the first event is %+v", got)
	}
	emit(2*eventsKept + more) // too much twice, and told of once
	if got := <-slow; got.Kind != EventDropped || got.Attempt+len(slow)+1 != sent {
		t.Fatalf("%+v before %d others of %d", got, len(slow), sent)
	}
	for n := sent - len(slow) + 1; n <= sent; n++ {
		if got := <-slow; got.Kind != EventIssued || got.Attempt != n {
			t.Fatalf("got %+v; want event %d", got, n)
		}
	}
	emit(1)
	if got := <-slow; got.Attempt != sent || got.Kind != EventIssued {
		t.Errorf("after it has caught up, a subscriber is told %+v", got)
	}
}
