package records_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/records"
)

// A value that cannot be loaded for an hour counts as damaged, while others can
// be stored and loaded: an outage of the whole storage is none, and one that ends
// within the hour is forgotten (F4).
func TestValueThatCannotBeLoadedForAnHourIsDamaged(t *testing.T) {
	const id = "a.example+p256"
	broken := errors.New("input/output error")
	isDamaged := func(t *testing.T, r *records.Records) bool {
		t.Helper()
		_, err := r.LoadBundle(t.Context(), id, now)
		var damaged *records.DamagedError
		if !errors.Is(err, broken) {
			t.Fatalf("LoadBundle: %v", err)
		}
		return errors.As(err, &damaged)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStorage()
		r := records.New(s, records.Options{})
		one := func(verb, key string) error {
			if verb == "load" && key == "v1/certs/"+id+".pem" {
				return broken
			}
			return nil
		}
		all := func(string, string) error { return broken }
		for _, step := range []struct {
			fail func(verb, key string) error
			wait time.Duration
			want bool
		}{
			{one, 0, false},
			{one, 59 * time.Minute, false},
			{all, 2 * time.Minute, false},
			{one, 0, true},
			{one, time.Hour, true},
			{nil, 0, false},
			{one, 0, false},
			{one, 30 * time.Minute, false},
		} {
			time.Sleep(step.wait)
			s.fail = step.fail
			if step.fail == nil {
				if _, err := r.LoadBundle(t.Context(), id, now); errors.Is(err, broken) {
					t.Fatal(err)
				}
				continue
			}
			if got := isDamaged(t, r); got != step.want {
				t.Errorf("after %v: damaged: %v", step.wait, got)
			}
		}
	})
}
