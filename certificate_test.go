package certwright

import (
	"errors"
	"reflect"
	"testing"

	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/revocation"
)

// A field that isZero forgets would be lost with the next change.
func TestTroubleThatSaysSomethingIsKept(t *testing.T) {
	set := map[string]func(*trouble){
		"gone":     func(t *trouble) { t.gone = ErrClosed },
		"waiters":  func(t *trouble) { t.waiters = []*waiter{{}} },
		"flights":  func(t *trouble) { t.flights[doStaple] = &flight{} },
		"tries":    func(t *trouble) { t.tries = map[string]*try{"ca": {}} },
		"orders":   func(t *trouble) { t.orders = map[string]*records.Order{"ca": {}} },
		"stuck":    func(t *trouble) { t.stuck = map[string][]*flight{"ca": {{}}} },
		"broken":   func(t *trouble) { t.broken = &records.Bundle{} },
		"staple":   func(t *trouble) { t.staple = &revocation.Staple{} },
		"standins": func(t *trouble) { t.standins = []*standin{{}} },
		"retry":    func(t *trouble) { t.retry = 1 },
		"err":      func(t *trouble) { t.err = errors.New("why") },
		"degraded": func(t *trouble) { t.degraded = "why" },
	}
	// These say something only beside one of the others.
	beside := map[string]bool{"failures": true, "since": true, "wished": true, "by": true}
	if !new(trouble).isZero() {
		t.Error("the zero value is not zero")
	}
	typ := reflect.TypeFor[trouble]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		if beside[name] {
			continue
		}
		if set[name] == nil {
			t.Errorf("no case for the field %s", name)
			continue
		}
		s := state{why: &trouble{}}
		set[name](s.why)
		if s.tidy(); s.why == nil {
			t.Errorf("one with %s is let go", name)
		}
	}
	s := state{why: &trouble{}}
	if s.tidy(); s.why != nil {
		t.Error("one that says nothing is kept")
	}
}
