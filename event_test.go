package certwright_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestSubscriptionEndsWithItsContextAndWithTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		ctx, cancel := context.WithCancel(t.Context())
		short, long := m.Subscribe(ctx), m.Subscribe(t.Context())
		manage(t, m, "a.example.com")
		cancel()
		synctest.Wait()
		manage(t, m, "b.example.com")
		if got := namesOf(short, EventIssued); got != "a.example.com" {
			t.Errorf("issued until the context ended: %q", got)
		}
		for range long { // F80: a reader that closes the Manager
			if err := m.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := <-m.Subscribe(t.Context()); ok {
			t.Error("a closed Manager has an event")
		}
	})
}

// namesOf reads events until ch is closed and returns the names of those of a kind.
func namesOf(ch <-chan Event, kind EventKind) string {
	var names []string
	for e := range ch {
		if e.Kind == kind {
			names = append(names, e.Name)
		}
	}
	return strings.Join(names, " ")
}

// F80
func TestOnEventThatFailsCostsNothingElse(t *testing.T) {
	for how, fail := range map[string]func(){
		"panic":  func() { panic("no luck") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, conf := newFake(t, fakeca.Options{})
				log, logs := observed(slog.LevelWarn)
				calls := 0
				conf.Logger, conf.OnEvent = log, func(Event) { calls++; fail() }
				m := start(t, conf)
				manage(t, m, "a.example.com", "b.example.com", "c.example.com")
				if err := m.Unmanage("a.example.com", "b.example.com"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // until all is told
				events := m.Subscribe(t.Context())
				closeManager(t, m)
				if _, ok := <-events; ok {
					t.Error("an event after the last one")
				}
				kinds := map[string]int{}
				for _, line := range logs.All() {
					kinds[line.Fields["event"]]++
				}
				if kinds["issued"] != 1 || kinds["unmanaged"] != 1 || calls < 5 {
					t.Errorf("%d calls, log lines by event: %v", calls, kinds)
				}
			})
		})
	}
}

// What a start loads is the Manager's own, and what another instance renewed is not.
func TestAdoptedIsToldOnlyOfWhatOthersIssued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		first := start(t, conf)
		manage(t, first, "a.example.com", "b.example.com")
		closeManager(t, first)

		var events eventLog
		conf.OnEvent = events.add
		a, b := start(t, conf), start(t, conf)
		manage(t, a, "a.example.com", "b.example.com")
		manage(t, b, "a.example.com", "b.example.com")
		synctest.Wait()
		if n := events.count(EventAdopted); n != 0 {
			t.Errorf("%d certificates were adopted at a start", n)
		}
		time.Sleep(70 * day)
		synctest.Wait()
		if r, n := events.count(EventRenewed), events.count(EventAdopted); r != 2 || n != 2 {
			t.Errorf("%d renewed and %d adopted; want one of each for either name", r, n)
		}
	})
}
