package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/dnsprobe"
)

type answers = []dnsprobe.Answer

func server(i int, values ...string) dnsprobe.Answer {
	return dnsprobe.Answer{Server: fmt.Sprintf("ns%d.example.com (192.0.2.%d:53)", i, i), Values: values}
}

func dead(i int, err error) dnsprobe.Answer {
	a := server(i)
	a.Err = err
	return a
}

func cached(i int, left time.Duration) dnsprobe.Answer {
	a := server(i)
	a.Cached = left
	return a
}

// What comes of what the servers show, and when.
func TestWaiting(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	timeout := errors.New("i/o timeout")
	always := func(a ...dnsprobe.Answer) func(time.Duration) (answers, error) {
		return func(time.Duration) (answers, error) { return a, nil }
	}
	after := func(d time.Duration, then answers, before ...dnsprobe.Answer) func(time.Duration) (answers, error) {
		return func(now time.Duration) (answers, error) {
			if now >= d {
				return then, nil
			}
			return before, nil
		}
	}
	for what, tt := range map[string]struct {
		look func(now time.Duration) (answers, error)
		took time.Duration
		err  []string // empty: nil
		warn []string // empty: none
	}{
		"all show it":                     {look: always(server(1, "A"), server(2, "other", "A"))},
		"one of two is dead":              {look: always(server(1, "A"), dead(2, timeout))},
		"one lacks it for a second":       {look: after(time.Second, answers{server(1, "A"), server(2, "A")}, server(1, "A"), server(2)), took: 1500 * time.Millisecond},
		"one lacks it for a minute":       {look: after(time.Minute, answers{server(1, "A"), server(2, "A")}, server(1, "A"), server(2, "B")), took: 65500 * time.Millisecond},
		"nobody answers for a while":      {look: after(9*time.Second, answers{server(1, "A")}, dead(1, refused)), took: 10 * time.Second},
		"one lacks it":                    {look: always(server(1, "A"), server(2)), took: 2 * time.Minute, err: []string{"ns2.example.com (192.0.2.2:53) shows no TXT record", "1 of 2 servers show it", `TXT "_acme-challenge.example.com" in zone "example.com", written with dnsprovider_test`, "2m0s", "raise Timeout"}},
		"one shows others":                {look: always(server(1, "B", "C")), took: 2 * time.Minute, err: []string{`shows "B", "C"`, "only one a name"}},
		"one lacks it, one is dead":       {look: always(server(1, "A"), server(2), dead(3, timeout)), took: 2 * time.Minute, err: []string{"192.0.2.2:53) shows no TXT record", "192.0.2.3:53) does not answer: i/o timeout"}},
		"one lacks it, one has it cached": {look: always(server(1), cached(2, time.Hour)), took: 2 * time.Minute, err: []string{"192.0.2.1:53) shows no", "negative caching", "1h0m0s"}},
		"all that lack it have it cached": {look: always(server(1, "A"), cached(2, 300*time.Second)), took: 2 * time.Minute, warn: []string{"negative caching", "5m0s", "the CA is asked"}},
		"two of three are dead":           {look: always(server(1, "A"), dead(2, timeout), dead(3, refused)), took: 2 * time.Minute, warn: []string{"192.0.2.2:53) does not answer: i/o timeout", "refused"}},
		"the only one is dead":            {look: always(dead(1, timeout)), took: 2 * time.Minute, warn: []string{"i/o timeout"}},
		"all refuse the connection":       {look: always(dead(1, refused), dead(2, refused)), took: 10 * time.Second, warn: []string{"refused"}},
		"nobody is known":                 {look: func(time.Duration) (answers, error) { return nil, errors.New("no NS records") }, took: 10 * time.Second, warn: []string{"not known whom to ask: no NS records"}},
		"there are no servers":            {look: always(), took: 10 * time.Second, warn: []string{"nobody to ask"}},
		"one lacks it, then all refuse":   {look: after(time.Second, answers{dead(1, refused)}, server(1)), took: 2 * time.Minute, warn: []string{"refused"}},
		"nobody is known, then one lacks it": {look: func(now time.Duration) (answers, error) {
			if now < 5*time.Second {
				return nil, errors.New("no network")
			}
			return answers{server(1)}, nil
		}, took: 2 * time.Minute, err: []string{"shows no TXT record"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWriter("example.com")
			s, d := newSolver(w, w)
			c := newChallenge("example.com", "A")
			mustPresent(t, s, c)
			start := time.Now()
			d.look = func(string, string) ([]dnsprobe.Answer, error) { return tt.look(time.Since(start)) }
			err := s.Wait(t.Context(), c.now())
			if took := time.Since(start); took != tt.took {
				t.Errorf("%s: it took %v, want %v", what, took, tt.took)
			}
			if len(tt.err) == 0 && err != nil {
				t.Errorf("%s: %v", what, err)
			} else if len(tt.err) > 0 {
				wantError(t, err, tt.err...)
			}
			for _, text := range tt.warn {
				if !strings.Contains(c.log(), text) || !strings.Contains(c.log(), "level=WARN") {
					t.Errorf("%s: log %q lacks %q", what, c.log(), text)
				}
			}
			if len(tt.warn) == 0 && c.log() != "" {
				t.Errorf("%s: log %q", what, c.log())
			}
			if said := c.progress(); (tt.took > 0) != (len(said) > 0) || len(said) > 0 && !strings.Contains(said[0], "waiting for TXT") {
				t.Errorf("%s: progress %q", what, said)
			}
			if ctx, cancel := context.WithCancel(t.Context()); len(tt.err)+len(tt.warn) > 0 {
				cancel()
				c.Log, c.Progress = nil, nil
				if err := s.Wait(ctx, c.now()); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: error %v after a cancellation", what, err)
				}
			} else {
				cancel()
			}
		})
	}
}

func TestDelayAndNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		s, d := newSolver(w, w)
		s.Delay, s.Timeout = 30*time.Second, 5*time.Second
		c := newChallenge("example.com", "A")
		mustPresent(t, s, c)
		d.look = func(string, string) ([]dnsprobe.Answer, error) { return answers{server(1)}, nil }
		start := time.Now()
		wantError(t, s.Wait(t.Context(), c.now()), "within 5s")
		if took := time.Since(start); took != 35*time.Second {
			t.Errorf("it took %v", took)
		}
		s.Timeout = -1
		start = time.Now()
		if err := s.Wait(t.Context(), c.now()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// The zone's servers are asked for what was written; resolvers for what the CA asks.
func TestWhatIsLookedFor(t *testing.T) {
	for _, resolvers := range []bool{false, true} {
		w := newWriter("acme.example")
		s, d := newSolver(w, w)
		want := "acme.example x.acme.example"
		if resolvers {
			s.Resolvers = []string{"192.0.2.53"}
			want = "acme.example _acme-challenge.example.com"
		}
		s.Target = "x.acme.example"
		c := newChallenge("example.com", "A")
		mustPresent(t, s, c)
		d.look = func(string, string) ([]dnsprobe.Answer, error) { return answers{server(1, "A")}, nil }
		if err := s.Wait(t.Context(), c.now()); err != nil {
			t.Error(err)
		}
		looks := d.lookedAt()
		if looks[len(looks)-1] != want || resolvers && len(looks) > 1 { // a look before would be kept by them
			t.Errorf("looks %q, want the last to be %q", looks, want)
		}
		// Another process has only the state.
		look := d.look
		next, d := newSolver(w, w)
		next.Resolvers, d.look = s.Resolvers, look
		if err := next.Wait(t.Context(), c.now()); err != nil {
			t.Error(err)
		}
		if looks := d.lookedAt(); looks[0] != want {
			t.Errorf("looks %q, want %q", looks, want)
		}
	}
}

// A hundred names wait side by side.
func TestAHundredNamesWaitOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		s, d := newSolver(w, w)
		start := time.Now()
		d.look = func(zone, name string) ([]dnsprobe.Answer, error) {
			if time.Since(start) < 20*time.Second {
				return answers{server(1)}, nil
			}
			return answers{d.shown(zone, name)}, nil
		}
		done := make(chan error)
		for i := range 100 {
			go func() {
				c := newChallenge(fmt.Sprintf("n%d.example.com", i), "A")
				if err := s.Present(t.Context(), c.now()); err != nil {
					done <- err
					return
				}
				done <- s.Wait(t.Context(), c.now())
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 26*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func persist(name, value string) *challenge {
	c := newChallenge(name, value)
	c.Type, c.DNSName = "dns-persist-01", "_validation-persist."+name
	return c
}

// dns-persist-01: what serves is left, what does not is added to, all stays.
func TestPersistRecordsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const value = "ca.example; accounturi=https://ca.example/acct/1"
		w := newWriter("example.com")
		w.put("example.com", "_validation-persist.a", "CA.example;policy=wildcard;accounturi=https://ca.example/acct/1")
		w.put("example.com", "_validation-persist.b", value+"; persistUntil=1")
		s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
		a, b := persist("a.example.com", value), persist("b.example.com", value)
		mustPresent(t, s, a, b)
		for _, c := range []*challenge{a, b} {
			if err := s.Wait(t.Context(), c.now()); err != nil {
				t.Error(err)
			}
		}
		mustCleanUp(t, s, a, b)
		want(t, "records", w.records("example.com"), []string{
			"_validation-persist.a CA.example;policy=wildcard;accounturi=https://ca.example/acct/1",
			"_validation-persist.b " + value,
			"_validation-persist.b " + value + "; persistUntil=1",
		})
		want(t, "deletes", w.made("delete"), nil)
	})
}

// dns-persist-01 by hand: looked at once, and told what differs.
func TestPersistRecordsByHand(t *testing.T) {
	const value = "ca.example; accounturi=https://ca.example/acct/1"
	w := newWriter("example.com", "acme.example")
	s, d := newSolver(w, nil)
	s.Provider = nil
	c := persist("example.com", value)
	w.put("example.com", "_validation-persist", "ca.example; accounturi=https://ca.example/acct/2")
	wantError(t, s.Present(t.Context(), c.now()), `"_validation-persist.example.com"`, "set by hand", `is for the account "https://ca.example/acct/2"`, `set it to "`+value+`"`)
	if n := len(d.lookedAt()); n != 1 {
		t.Errorf("%d looks", n)
	}
	w.put("example.com", "_validation-persist", value)
	mustPresent(t, s, c)
	if err := s.Wait(t.Context(), c.now()); err != nil {
		t.Error(err)
	}
	mustCleanUp(t, s, c)

	d.cnames["_validation-persist.example.com"] = "p.acme.example"
	wantError(t, s.Present(t.Context(), c.now()), "there is no TXT record")
	w.put("acme.example", "p", value)
	mustPresent(t, s, c)
	d.look = func(string, string) ([]dnsprobe.Answer, error) { return nil, errors.New("no network") }
	mustPresent(t, s, c)
	if !strings.Contains(c.log(), "no network") {
		t.Errorf("log %q", c.log())
	}
	s.Timeout = -1
	d.look = nil
	w.zones["acme.example."] = nil
	mustPresent(t, s, c)
	want(t, "calls", w.made(""), nil)
}
