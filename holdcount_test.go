package certwright_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// A name that cannot be validated is asked for every minute: five failed
// validations an hour are what public CAs allow. (F22)
func TestFailedValidationsAreBoundedWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.err = &StepError{Issuer: "fake", Step: "challenge", Name: "a.example.com", Err: errors.New("no answer")}
		m := offline(t, f)
		for range 59 {
			if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
				t.Fatal("there is a certificate")
			}
			time.Sleep(time.Minute)
		}
		if n := f.count(); n > 4 {
			t.Errorf("%d failed validations within an hour", n)
		}
		time.Sleep(3 * time.Hour)
		if n := f.count(); n < 5 {
			t.Errorf("%d calls in four hours: it was given up", n)
		}
	})
}

// A certificate for two names has back-off of its own for one of them and then the
// CA's word against all of it: whoever waits passes the first, not the second.
func TestOwnBackOffDoesNotHideTheCAsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.err = &StepError{Issuer: "fake", Step: "challenge", Name: "a.example.com", Err: errors.New("no answer")}
		m := offline(t, f)
		try := func() error {
			return m.Manage(t.Context(), Spec{Names: []string{"a.example.com", "b.example.com"}})
		}
		for f.count() < 8 { // now the back-off is of hours
			if try() == nil {
				t.Fatal("there is a certificate")
			}
			time.Sleep(20 * time.Minute)
		}
		f.set(func() {
			f.err = &StepError{Issuer: "fake", Step: "order", Err: later(2 * time.Hour)}
		})
		n := f.count()
		for f.count() == n {
			_ = try()
			time.Sleep(20 * time.Minute)
		}
		if k := f.count(); k != n+1 {
			t.Errorf("it was asked %d times at once", k-n)
		}
		n = f.count()
		for range 4 {
			_ = try()
			time.Sleep(20 * time.Minute)
		}
		if k := f.count(); k != n {
			t.Errorf("it was asked %d times within the two hours that it asked for", k-n)
		}
	})
}

// Several certificates share a name that cannot be validated: its failures are
// counted whatever they are for, and the other names have their certificates. (F22)
func TestFailedValidationsAreBoundedWhateverSharesTheName(t *testing.T) {
	const bad, good = "bad.example.com", "good.example.com"
	for name, specs := range map[string][]Spec{
		"one":                  {{Names: []string{bad}}},
		"two key types":        {{Names: []string{bad}, KeyTypes: []KeyType{P256, P384}}},
		"sets":                 {{Names: []string{bad}}, {Names: []string{bad, good}}, {Names: []string{good, "a.example.com", bad}}},
		"sets and three types": {{Names: []string{bad, "a.example.com"}, KeyTypes: []KeyType{P256, P384}}, {Names: []string{bad}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards failed
				var failed []time.Time
				_, conf := newFake(t, fakeca.Options{Challenges: []string{"tls-alpn-01", "http-01", "dns-01"}, Validate: func(_ context.Context, ch fakeca.ChallengeInfo) error {
					if ch.Identifier.Value != bad {
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, time.Now())
					return fakeca.NewProblem("connection", 400, "no")
				}})
				if strings.Contains(name, "three types") {
					conf.Issuers[0].(*ACME).Solvers = map[string]Solver{"dns-01": breakingSolver{new(breaking)}}
				}
				m := start(t, conf)
				if m.Manage(t.Context(), append(specs, Spec{Names: []string{good}})...) == nil {
					t.Error("all have a certificate")
				}
				mustLeaf(t, m, good)
				time.Sleep(6 * time.Hour)
				mu.Lock()
				defer mu.Unlock()
				for i := range failed {
					if i >= 4 && failed[i].Sub(failed[i-4]) < time.Hour {
						t.Errorf("five failed validations within %v", failed[i].Sub(failed[i-4]))
					}
				}
				if len(failed) < 5 {
					t.Errorf("%d failed validations in six hours: it was given up", len(failed))
				}
			})
		})
	}
}

// A CA counts a name and its wildcard together, whether they are in one certificate or
// in two. The one that is validated has its certificate. (F22)
func TestFailedValidationsAreCountedWithTheWildcards(t *testing.T) {
	const bad, wild = "bad.example.com", "*.bad.example.com"
	for name, specs := range map[string][]Spec{
		"one":               {{Names: []string{bad, wild}}},
		"two":               {{Names: []string{bad}}, {Names: []string{wild}}},
		"two key types":     {{Names: []string{wild, bad}, KeyTypes: []KeyType{P256, P384}}},
		"wildcard is valid": {{Names: []string{bad}}, {Names: []string{wild}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards failed
				var failed []time.Time
				_, conf := newFake(t, fakeca.Options{Challenges: []string{"http-01", "dns-01"}, Validate: func(_ context.Context, ch fakeca.ChallengeInfo) error {
					if name == "wildcard is valid" && ch.Type == "dns-01" {
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, time.Now())
					return fakeca.NewProblem("connection", 400, "no")
				}})
				iss := conf.Issuers[0].(*ACME)
				iss.Solvers = map[string]Solver{"dns-01": breakingSolver{new(breaking)}}
				m := start(t, conf)
				if m.Manage(t.Context(), specs...) == nil && name != "wildcard is valid" {
					t.Error("all have a certificate")
				}
				time.Sleep(6 * time.Hour)
				mu.Lock()
				defer mu.Unlock()
				for i := range failed {
					if i >= 5 && failed[i].Sub(failed[i-5]) < time.Hour {
						t.Errorf("six failed validations within %v", failed[i].Sub(failed[i-5]))
					}
				}
				if name == "wildcard is valid" {
					mustLeaf(t, m, "www."+bad)
				} else if len(failed) < 6 {
					t.Errorf("%d failed validations in six hours: it was given up", len(failed))
				}
			})
		})
	}
}

// What an Issuer has to say is kept as far as it fits where it is stored.
func TestHoldOfALongErrorCanBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, mem := newFakeSigner(t), storage.NewMemory()
		f.err = errors.New(strings.Repeat("\u00e9", 1<<20))
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
			t.Fatal("there is a certificate")
		}
		keys, err := mem.List(t.Context(), keyHolds)
		if err != nil || len(keys) != 1 {
			t.Fatalf("stored are %v, %v", keys, err)
		}
		if n := len(mustLoad(t, mem, keys[0])); n > 64<<10 {
			t.Errorf("a hold of %d bytes is stored", n)
		}
	})
}

// Who waits has waited for another instance, or for another certificate of the
// name, and that has failed: he is told at once, and not when it is tried again. (F6)
func TestWhoHasWaitedForAnotherIsToldThatItFailed(t *testing.T) {
	for _, what := range []string{"instance", "certificate"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{Validate: func(context.Context, fakeca.ChallengeInfo) error { return errors.New("no") }})
				if what == "instance" {
					ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(9*time.Hour, "slow down")})
				}
				ca.On(fakeca.Rule{Delay: 25 * time.Second})
				first := Spec{Names: []string{"a.example.com"}}
				second, m := first, start(t, conf)
				ask := m
				if what == "instance" {
					ask = start(t, conf)
				} else {
					second.KeyTypes = []KeyType{P384}
				}
				done := make(chan error)
				go func() { done <- m.Manage(t.Context(), first) }()
				time.Sleep(time.Second)
				began := time.Now()
				if ask.Manage(t.Context(), second) == nil {
					t.Error("there is a certificate")
				}
				if took := time.Since(began); took > 10*time.Minute {
					t.Errorf("told after %v", took)
				}
				if <-done == nil {
					t.Error("there is a certificate")
				}
			})
		})
	}
}
