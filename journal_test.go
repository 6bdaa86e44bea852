package certwright_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// fakeZone is a Solver whose records lie in a map, as a DNS provider's do. Hooks
// run before a call; a nil one does nothing.
type fakeZone struct {
	present, wait, cleanUp func(ctx context.Context, ch Challenge) error

	mu      sync.Mutex
	records map[string]bool // "name value"
	calls   []string        // "Present name", …
	states  []string        // of each CleanUp
}

func (z *fakeZone) called(what string, ch Challenge) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.calls = append(z.calls, what+" "+ch.Name)
}

func (z *fakeZone) Present(ctx context.Context, ch Challenge) error {
	z.called("Present", ch)
	if err := ch.Save(ctx, []byte("state of "+ch.DNSValue)); err != nil {
		return err
	}
	z.mu.Lock()
	if z.records == nil {
		z.records = map[string]bool{}
	}
	z.records[ch.DNSName+" "+ch.DNSValue] = true
	z.mu.Unlock()
	return do(ctx, z.present, ch)
}

func (z *fakeZone) Wait(ctx context.Context, ch Challenge) error {
	z.called("Wait", ch)
	return do(ctx, z.wait, ch)
}

func (z *fakeZone) CleanUp(ctx context.Context, ch Challenge) error {
	z.called("CleanUp", ch)
	z.mu.Lock()
	z.states = append(z.states, string(ch.State))
	z.mu.Unlock()
	if err := do(ctx, z.cleanUp, ch); err != nil {
		return err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records, ch.DNSName+" "+ch.DNSValue)
	return nil
}

func do(ctx context.Context, f func(context.Context, Challenge) error, ch Challenge) error {
	if f == nil {
		return nil
	}
	return f(ctx, ch)
}

func (z *fakeZone) left() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Sorted(maps.Keys(z.records))
}

func (z *fakeZone) count(what string) (n int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, c := range z.calls {
		if strings.HasPrefix(c, what) {
			n++
		}
	}
	return n
}

// newDNS returns a CA that offers one DNS type, and a Config that solves it with z.
func newDNS(t *testing.T, z Solver) Config {
	t.Helper()
	_, conf := newFake(t, fakeca.Options{Challenges: []string{"dns-01"}})
	conf.Issuers[0].(*ACME).Solvers = map[string]Solver{"dns-01": z}
	return conf
}

func journaled(t *testing.T, s Storage) []string {
	t.Helper()
	keys, err := s.List(t.Context(), "v1/journal")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// copyOf is what a process leaves that dies now: its storage without its locks.
func copyOf(t *testing.T, s Storage) Storage {
	t.Helper()
	out := storage.NewMemory()
	keys, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		mustStore(t, out, key, mustLoad(t, s, key))
	}
	return out
}

// leaveBehind has a process end whose clean-ups all fail: of each Spec there is one
// record left, in z and in the journal. From then on z cleans up.
func leaveBehind(t *testing.T, conf Config, z *fakeZone, specs ...Spec) {
	t.Helper()
	z.cleanUp = func(context.Context, Challenge) error { return errors.New("no") }
	m := start(t, conf)
	if err := m.Manage(t.Context(), specs...); err != nil {
		t.Fatal(err)
	}
	closeManager(t, m)
	if left, keys := z.left(), journaled(t, conf.Storage); len(left) != len(specs) || len(keys) != len(specs) {
		t.Fatalf("left are %q, %q", left, keys)
	}
	z.cleanUp = nil
}

func noRest(t *testing.T, z *fakeZone, s Storage) {
	t.Helper()
	if left, keys := z.left(), journaled(t, s); len(left)+len(keys) > 0 {
		t.Errorf("left are the records %q, journaled as %q", left, keys)
	}
}

// Everything of an order is presented before any of it is waited for, and all is
// waited for at the same time.
func TestAllOfAnOrderArePresentedAndThenWaitedForSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{
			present: func(ctx context.Context, _ Challenge) error { return waitFor(ctx, time.Second) },
			wait:    func(ctx context.Context, _ Challenge) error { return waitFor(ctx, time.Minute) },
		}
		conf := newDNS(t, z)
		m := start(t, conf)
		names := append(numbered(49, "example.com"), "*.example.com")
		began := time.Now()
		if err := m.Manage(t.Context(), Spec{Names: names}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Minute+10*time.Second {
			t.Errorf("took %v", took)
		}
		z.mu.Lock()
		calls := z.calls
		z.mu.Unlock()
		for i, call := range calls {
			if what, _, _ := strings.Cut(call, " "); what != []string{"Present", "Wait", "CleanUp"}[i/50] {
				t.Fatalf("call %d is %s", i, call)
			}
		}
		noRest(t, z, conf.Storage)
	})
}

// A process dies at each point between Present and CleanUp: whoever issues next has
// what was presented cleaned up first, with what Present saved. (D3)
func TestWhatAProcessThatDiedPresentedIsCleanedUpFirst(t *testing.T) {
	for _, at := range []string{"present", "wait", "cleanUp"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := &fakeZone{}
				conf := newDNS(t, z)
				var dead Storage
				var once sync.Once
				hook := func(context.Context, Challenge) error {
					once.Do(func() { dead = copyOf(t, conf.Storage) })
					return errors.New("the process is gone")
				}
				switch at {
				case "present":
					z.present = hook
				case "wait":
					z.wait = hook
				default:
					z.cleanUp = hook
				}
				m := start(t, conf)
				_ = m.ManageSync(t.Context(), []string{"*.example.com"})
				closeManager(t, m)
				record := z.left()
				z.present, z.wait, z.cleanUp, z.calls, z.states = nil, nil, nil, nil, nil
				z.records = map[string]bool{"_acme-challenge.example.com foreign": true}
				for _, r := range record {
					z.records[r] = true
				}
				next := conf
				next.Storage = dead
				m = start(t, next)
				manage(t, m, "*.example.com")
				if z.calls[0] != "CleanUp example.com" || !strings.HasPrefix(z.states[0], "state of ") {
					t.Errorf("calls %q with states %q", z.calls, z.states)
				}
				if left := z.left(); !slices.Equal(left, []string{"_acme-challenge.example.com foreign"}) || len(journaled(t, dead)) > 0 {
					t.Errorf("left are %q, %q", left, journaled(t, dead))
				}
			})
		})
	}
}

// What a process that died left of a name that nobody manages any more is cleaned
// up within minutes of the next start, as is what one without its issuer left.
func TestWhatIsLeftOfOtherNamesIsCleanedUp(t *testing.T) {
	for name, change := range map[string]func(conf *Config, z Solver){
		"same":          func(*Config, Solver) {},
		"other account": func(c *Config, _ Solver) { c.Issuers[0].(*ACME).Account = "other" },
		"other CA": func(c *Config, z Solver) {
			c.Issuers = []Issuer{&ACME{Directory: LetsEncryptStaging, Solvers: map[string]Solver{"dns-01": z}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := &fakeZone{}
				conf := newDNS(t, z)
				leaveBehind(t, conf, z, Spec{Names: []string{"example.com"}})
				change(&conf, z)
				start(t, conf)
				time.Sleep(5 * time.Minute)
				noRest(t, z, conf.Storage)
			})
		})
	}
}

// A clean-up that fails costs the certificate nothing and is tried again, not too
// often, until it succeeds; so is one whose Solver comes back.
func TestCleanUpThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{cleanUp: func(context.Context, Challenge) error { return errors.New("the provider is down") }}
		conf := newDNS(t, z)
		m := start(t, conf)
		manage(t, m, "example.com")
		time.Sleep(6 * time.Hour)
		if n := z.count("CleanUp"); n < 6 || n > 20 {
			t.Errorf("%d clean-ups in six hours", n)
		}
		closeManager(t, m)

		without := conf
		without.Issuers = []Issuer{&ACME{Directory: conf.Issuers[0].(*ACME).Directory, HTTPClient: conf.Issuers[0].(*ACME).HTTPClient}}
		var logs *fakeLogs
		without.Logger, logs = observed(slog.LevelWarn)
		m = start(t, without)
		time.Sleep(25 * time.Hour)
		told := func(l logLine) bool { return l.Fields["record"] == "_acme-challenge.example.com" }
		if len(journaled(t, conf.Storage)) != 1 || !slices.ContainsFunc(logs.All(), told) {
			t.Errorf("journaled are %q; told is %v", journaled(t, conf.Storage), logs.All())
		}
		closeManager(t, m)

		z.cleanUp = nil
		start(t, conf)
		time.Sleep(5 * time.Minute)
		noRest(t, z, conf.Storage)
	})
}

// A CleanUp that does not return is not called again meanwhile, however often it
// is tried.
func TestCleanUpThatHangsIsCalledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		z := &fakeZone{cleanUp: func(context.Context, Challenge) error { <-end; return nil }}
		conf := newDNS(t, z)
		m := start(t, conf)
		began := time.Now()
		manage(t, m, "example.com")
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the certificate took %v", took)
		}
		time.Sleep(6 * time.Hour)
		if n := z.count("CleanUp"); n != 1 {
			t.Errorf("%d calls", n)
		}
		close(end)
		time.Sleep(2 * time.Hour)
		noRest(t, z, conf.Storage)
	})
}

// Names whose records take long to be seen, or whose provider hangs, keep no others
// waiting.
func TestSlowDNSCostsOthersNothing(t *testing.T) {
	for _, hook := range []string{"present", "wait"} {
		t.Run(hook, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := func(ctx context.Context, ch Challenge) error {
					if strings.HasPrefix(ch.Name, "good") {
						return nil
					}
					<-ctx.Done()
					return context.Cause(ctx)
				}
				z := &fakeZone{}
				if hook == "wait" {
					z.wait = slow
				} else {
					z.present = slow
				}
				m := start(t, newDNS(t, z))
				if err := m.ManageAsync(numbered(100, "slow.example.com")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				began := time.Now()
				manage(t, m, "good.example.com")
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// Nothing is presented that is not in the journal. When the journal alone cannot be
// stored for an hour it is gone without.
func TestNothingIsPresentedThatIsNotJournaled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{}
		conf := newDNS(t, z)
		s := newFaulty(conf.Storage.(*storage.Memory))
		s.set(func(c call) fault {
			if c.op == "store" && strings.HasPrefix(c.key, "v1/journal/") {
				return fault{err: errors.New("disk full")}
			}
			return fault{}
		})
		conf.Storage = s
		m := start(t, conf)
		err := m.ManageSync(t.Context(), []string{"example.com"})
		if err == nil || z.count("Present") > 0 || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("ManageSync = %v after %d calls of Present", err, z.count("Present"))
		}
		time.Sleep(4 * time.Hour)
		mustLeaf(t, m, "example.com")
	})
}

// What a Solver is given works while its call runs: a lease, a word for Status, a
// logger that says what it is about; and what comes late is refused.
func TestWhatASolverIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late Challenge
		var m *Manager
		z := &fakeZone{}
		z.wait = func(ctx context.Context, ch Challenge) error {
			late = ch
			one, err := ch.Lock(ctx, "txt/"+ch.DNSName)
			if err != nil {
				return err
			}
			began := time.Now()
			if two, err := ch.Lock(ctx, "txt/"+ch.DNSName); err == nil || time.Since(began) > 3*time.Minute {
				t.Errorf("a second lease: %v, %v after %v", two, err, time.Since(began))
			}
			ch.Progress("ns2 lacks it")
			ch.Log.Warn("slow")
			if s := fmt.Sprintf("%+v", m.Status()); !strings.Contains(s, "ns2 lacks it") {
				t.Errorf("Status = %s", s)
			}
			return one.Unlock(ctx)
		}
		conf := newDNS(t, z)
		var logs *fakeLogs
		conf.Logger, logs = observed(slog.LevelWarn)
		m = start(t, conf)
		manage(t, m, "example.com")
		told := func(l logLine) bool {
			return l.Message == "slow" && l.Fields["name"] == "example.com" && l.Fields["challenge"] == "dns-01" && l.Fields["issuer"] != ""
		}
		if !slices.ContainsFunc(logs.All(), told) {
			t.Errorf("told is %v", logs.All())
		}
		if err := late.Save(context.Background(), []byte("late")); err == nil {
			t.Error("what comes late is stored")
		}
		noRest(t, z, conf.Storage)
	})
}

// Close and Unmanage in the middle of a wait leave no record.
func TestNoRecordOutlivesCloseOrUnmanage(t *testing.T) {
	for what, end := range map[string]func(t *testing.T, m *Manager){
		"Close": func(t *testing.T, m *Manager) { closeManager(t, m) },
		"Unmanage": func(t *testing.T, m *Manager) {
			if err := m.Unmanage("*.example.com"); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Minute) // a flight is abandoned whose clean-up takes long, and comes back without its lease
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := &fakeZone{
					wait: func(ctx context.Context, _ Challenge) error {
						<-ctx.Done()
						return context.Cause(ctx)
					},
					cleanUp: func(ctx context.Context, _ Challenge) error { return waitFor(ctx, 10*time.Second) },
				}
				conf := newDNS(t, z)
				m := start(t, conf)
				if err := m.ManageAsync([]string{"*.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if len(z.left()) != 1 || len(journaled(t, conf.Storage)) != 1 {
					t.Fatalf("nothing is presented: %q", z.left())
				}
				end(t, m)
				noRest(t, z, conf.Storage)
			})
		})
	}
}

// A damaged entry of the journal stops nothing, and is told and removed; one of a
// newer version stays.
func TestDamagedJournalStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{}
		conf := newDNS(t, z)
		leaveBehind(t, conf, z, Spec{Names: []string{"example.com"}})
		key := journaled(t, conf.Storage)[0]
		value := string(mustLoad(t, conf.Storage, key))
		newer := key[:len(key)-4] + "0000"
		mustStore(t, conf.Storage, newer, []byte(strings.Replace(value, "certwright journal 1", "certwright journal 9", 1)))
		mustStore(t, conf.Storage, key, []byte(value[:len(value)/2]))
		m := start(t, conf)
		if err := m.Renew(t.Context(), "example.com"); !errors.Is(err, ErrNotManaged) {
			t.Fatal(err)
		}
		manage(t, m, "example.com")
		if err := m.Renew(t.Context(), "example.com"); err != nil {
			t.Fatal(err)
		}
		if keys := journaled(t, conf.Storage); !slices.Equal(keys, []string{newer}) {
			t.Errorf("journaled are %q", keys)
		}
	})
}
