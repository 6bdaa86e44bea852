package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/certwright/certwright/dnsprovider"
)

func TestWhatIsAboutToBeAddedIsSavedBefore(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, w)
	c := newChallenge("example.com", "A")
	failed := errors.New("the lease is lost")
	c.Save = func(context.Context, []byte) error { return failed }
	if err := s.Present(t.Context(), c.now()); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	want(t, "calls", w.made(""), nil)
}

// A crash: another process has only what was saved (D3).
func TestACrashLeavesNothing(t *testing.T) {
	for _, gets := range []bool{true, false} {
		for _, added := range []bool{true, false} {
			t.Run(fmt.Sprintf("RecordGetter: %v, added: %v", gets, added), func(t *testing.T) {
				w := newWriter("example.com")
				w.put("example.com", "_acme-challenge", "foreign")
				var p dnsprovider.Provider = w
				if gets {
					p = &fakeGetter{fakeWriter: w}
				}
				s, _ := newSolver(w, p)
				c := newChallenge("example.com", "A")
				if added {
					mustPresent(t, s, c)
				} else {
					save := c.Save
					c.Save = func(ctx context.Context, b []byte) error {
						return errors.Join(save(ctx, b), errors.New("the process dies"))
					}
					if err := s.Present(t.Context(), c.now()); err == nil {
						t.Fatal("it lives")
					}
				}
				s, d := newSolver(w, p)
				d.zones = nil // nothing is searched for anew
				s.Zone = "other.example"
				mustCleanUp(t, s, c)
				mustCleanUp(t, s, c)
				want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
			})
		}
	}
}

func TestNothingPresentedIsNothingToCleanUp(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, w)
	mustCleanUp(t, s, newChallenge("example.com", "A"))
	want(t, "calls", w.made(""), nil)
}

// So is one of another kind of Solver. When its record has been deleted by hand all is
// well.
func TestAStateThatIsDamagedIsAnErrorThatSaysWhatToDo(t *testing.T) {
	w := newWriter("example.com")
	w.put("example.com", "_acme-challenge", "A")
	s, _ := newSolver(w, w)
	for _, state := range []string{"{", `[{"zone":"example.com","name":"example.org","value":"A"}]`, `[{}]`, "record-12"} {
		c := newChallenge("example.com", "A")
		c.state = []byte(state)
		wantError(t, s.CleanUp(t.Context(), c.now()), "by hand", "_acme-challenge.example.com")
	}
	want(t, "calls", w.made(""), nil)
	c := newChallenge("example.com", "A")
	c.state = []byte("record-12")
	w.zones["example.com."] = nil
	mustCleanUp(t, s, c)
}

// A State that cannot be read keeps nobody from presenting anew.
func TestPresentingOverADamagedState(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, w)
	c := newChallenge("example.com", "A")
	c.state = []byte("{")
	mustPresent(t, s, c)
	if !strings.Contains(c.log(), "reading the state of the challenge") {
		t.Errorf("log %q", c.log())
	}
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{})
}
