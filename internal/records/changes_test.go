package records_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certwright/certwright/internal/records"
)

// poll is Poll for a test that expects no error.
func poll(t *testing.T, c *records.Changes) (ids []string, all bool) {
	t.Helper()
	ids, all, err := c.Poll(t.Context())
	check(t, err)
	return ids, all
}

func note(t *testing.T, c *records.Changes, ids ...string) {
	t.Helper()
	for _, id := range ids {
		c.Note(id)
	}
	check(t, c.Flush(t.Context()))
}

func TestChangesReachTheOthers(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	a, early := r.NewChanges("a"), r.NewChanges("early")
	note(t, a, "old")
	b := r.NewChanges("b")
	if ids, all := poll(t, b); len(ids) != 0 || all {
		t.Errorf("the first Poll: %v, %v", ids, all)
	}
	if ids, all := poll(t, early); !slices.Equal(ids, []string{"old"}) || all {
		t.Errorf("the first Poll of one that was there before: %v, %v", ids, all)
	}
	check(t, a.Flush(t.Context()))
	note(t, a, "x", "y", "x")
	note(t, a, "z")
	note(t, b, "mine")
	if ids, all := poll(t, b); !slices.Equal(ids, []string{"x", "y", "z"}) || all {
		t.Errorf("%v, %v", ids, all)
	}
	if ids, all := poll(t, b); len(ids) != 0 || all {
		t.Errorf("again: %v, %v", ids, all)
	}
	c := r.NewChanges("c") // later than b's first Poll
	note(t, c, "of a new one")
	if ids, all := poll(t, b); !slices.Equal(ids, []string{"of a new one"}) || all {
		t.Errorf("of a new instance: %v, %v", ids, all)
	}
	again := r.NewChanges("a") // the instance starts anew
	note(t, again, "after a start")
	if ids, all := poll(t, b); !slices.Equal(ids, []string{"after a start"}) || all {
		t.Errorf("after a start: %v, %v", ids, all)
	}
}

func TestManyChangesMeanAll(t *testing.T) {
	r := records.New(newFakeStorage(), records.Options{})
	a, b := r.NewChanges("a"), r.NewChanges("b")
	note(t, a, "first")
	poll(t, b)
	change := func(n int) {
		for i := range n {
			a.Note(fmt.Sprint(i))
		}
		check(t, a.Flush(t.Context()))
	}
	change(256)
	if ids, all := poll(t, b); len(ids) != 256 || all {
		t.Errorf("256: %d, %v", len(ids), all)
	}
	change(200)
	change(57)
	if ids, all := poll(t, b); len(ids) != 0 || !all {
		t.Errorf("257: %d, %v", len(ids), all)
	}
	change(1)
	if ids, all := poll(t, b); len(ids) != 1 || all {
		t.Errorf("one more: %d, %v", len(ids), all)
	}
	late := r.NewChanges("late")
	for i := range 300 {
		late.Note(fmt.Sprint(i))
	}
	check(t, late.Flush(t.Context()))
	if _, all := poll(t, b); !all {
		t.Error("300 of a new instance are not all")
	}
}

func TestChangesThatBeginAnewMeanAll(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	b := r.NewChanges("b")
	note(t, r.NewChanges("a"), "1", "2", "3")
	poll(t, b)
	delete(s.values, "v1/changes/a")
	note(t, r.NewChanges("a"), "4", "5")
	if _, all := poll(t, b); !all {
		t.Error("what is not known is not all")
	}
}

func TestChangesThatCannotBeStoredAreKept(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	a, b := r.NewChanges("a"), r.NewChanges("b")
	poll(t, b)
	full := errors.New("no space left")
	s.fail = func(verb, _ string) error { return map[string]error{"store": full}[verb] }
	a.Note("x")
	if err := a.Flush(t.Context()); !errors.Is(err, full) {
		t.Error(err)
	}
	a.Note("y")
	s.fail = nil
	check(t, a.Flush(t.Context()))
	if ids, all := poll(t, b); !slices.Equal(ids, []string{"x", "y"}) || all {
		t.Errorf("%v, %v", ids, all)
	}
}

func TestPollMakesUpForWhatItCouldNotRead(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	a, b := r.NewChanges("a"), r.NewChanges("b")
	note(t, a, "old")
	poll(t, b)
	down := errors.New("cannot be reached")
	tests := []struct {
		name string
		fail func(verb, key string) error
	}{
		{"list", func(verb, _ string) error { return map[string]error{"list": down}[verb] }},
		{"load", func(verb, _ string) error { return map[string]error{"load": down}[verb] }},
	}
	for _, tt := range tests {
		note(t, a, tt.name)
		s.fail = tt.fail
		if ids, all, err := b.Poll(t.Context()); !errors.Is(err, down) || len(ids) != 0 || all {
			t.Errorf("%s fails: %v, %v, %v", tt.name, ids, all, err)
		}
		s.fail = nil
		if ids, all := poll(t, b); !slices.Equal(ids, []string{tt.name}) || all {
			t.Errorf("%s works again: %v, %v", tt.name, ids, all)
		}
	}
	fresh := r.NewChanges("c") // whose first Poll cannot read a's
	s.fail = tests[1].fail
	if _, all, err := fresh.Poll(t.Context()); err == nil || all {
		t.Errorf("the first Poll: %v, %v", all, err)
	}
	s.fail = nil
	if _, all := poll(t, fresh); !all {
		t.Error("what a has changed meanwhile is not known, and it is not all")
	}
}

func TestDamagedChangesMeanAllOnce(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	a, b := r.NewChanges("a"), r.NewChanges("b")
	note(t, a, "x")
	poll(t, b)
	s.put("v1/changes/a", []byte("broken"))
	var damaged *records.DamagedError
	if _, all, err := b.Poll(t.Context()); !errors.As(err, &damaged) || !all {
		t.Errorf("%v, %v", all, err)
	}
	if ids, all := poll(t, b); len(ids) != 0 || all {
		t.Errorf("told twice: %v, %v", ids, all)
	}
	note(t, a, "y") // its owner knows what was there
	if _, all := poll(t, b); !all {
		t.Error("what was lost is not made up for")
	}
	note(t, a, "z")
	if ids, all := poll(t, b); !slices.Equal(ids, []string{"z"}) || all {
		t.Errorf("%v, %v", ids, all)
	}
}

func TestPollCostsOneListAndOneLoadForEachOther(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	b := r.NewChanges("b")
	note(t, b, "own")
	for _, name := range []string{"a", "c", "d"} {
		note(t, r.NewChanges(name), strings.Repeat("x", 9))
	}
	poll(t, b)
	clear(s.loads)
	s.lists = 0
	poll(t, b)
	if s.lists != 1 || len(s.loads) != 3 || s.loads["v1/changes/b"] != 0 {
		t.Errorf("%d lists, loads %v", s.lists, s.loads)
	}
}

func TestNoteMayBeCalledWhileOthersFlushAndPoll(t *testing.T) {
	r := records.New(newFakeStorage(), records.Options{})
	a, b := r.NewChanges("a"), r.NewChanges("b")
	poll(t, b)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				a.Note(fmt.Sprint(i, " ", j))
			}
		})
	}
	got := make(map[string]bool)
	for range 100 {
		check(t, a.Flush(t.Context()))
		ids, all := poll(t, b)
		if all {
			t.Error("all")
		}
		for _, id := range ids {
			got[id] = true
		}
	}
	wg.Wait()
	check(t, a.Flush(t.Context()))
	ids, _ := poll(t, b)
	for _, id := range ids {
		got[id] = true
	}
	if len(got) != 160 {
		t.Errorf("%d of 160 arrived", len(got))
	}
}
