package certwright_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// TestClockIsLookedAtEveryMinute has nothing due for weeks: a clock that is set,
// or a host that wakes up, is still noticed within a minute, and Health shows
// it. That the time is read from the wall clock then is the schedule's test.
func TestClockIsLookedAtEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		conf.DisableRenewalInfo, conf.CleanInterval = true, -1
		m := startAlone(t, conf)
		manage(t, m, "a.example.com", "b.example.com", "c.example.com")
		synctest.Wait()
		first := m.Health()
		next := statusFor(t, m, "a.example.com").NextAt
		for _, s := range m.Status() {
			if s.NextAt.Before(next) {
				next = s.NextAt
			}
		}
		if !first.NextDue.Equal(next) || time.Until(next) < 50*day {
			t.Errorf("Health says that work is next due at %v, Status says %v", first.NextDue, next)
		}
		for range 1000 {
			time.Sleep(77 * time.Minute)
			synctest.Wait()
			h := m.Health()
			if since := time.Since(h.LastWake); since > time.Minute || since < 0 {
				t.Fatalf("the schedule last looked at the clock %v ago", since)
			}
			if h.Running != 0 || h.Waiting != 3 || h.Managed != 3 || h.Failing != 0 || h.Oldest != 0 || h.Panics != 0 {
				t.Fatalf("Health is %+v", h)
			}
			if want := first.NextDue; time.Now().Before(want) && !h.NextDue.Equal(want) {
				t.Fatalf("work is next due at %v, was %v before", h.NextDue, want)
			}
		}
	})
}

// TestOutageAtAnyMoment takes the CA down for two days, each time at another
// moment in the life of certificates for six days: none expires, with the CA's
// windows and without.
func TestOutageAtAnyMoment(t *testing.T) {
	step := 6 * time.Hour
	if testing.Short() {
		step = 21 * time.Hour
	}
	for from := 54 * time.Hour; from <= 96*time.Hour; from += step {
		for _, noARI := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,NoARI=%v", from, noARI), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { outage(t, from, noARI) })
			})
		}
	}
}

func outage(t *testing.T, from time.Duration, noARI bool) {
	ca, conf := newFake(t, fakeca.Options{
		DefaultLifetime: 6 * day, NoARI: noARI,
		ARI: func(leaf *x509.Certificate) *fakeca.Window { // as Let's Encrypt does
			half := leaf.NotBefore.Add(3 * day)
			return &fakeca.Window{Start: half.Add(-90 * time.Minute), End: half.Add(90 * time.Minute)}
		},
	})
	m := startAlone(t, conf)
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("n%d.example.com", i))
	}
	manage(t, m, names...)
	began, first := time.Now(), mustLeaf(t, m, names[0])
	for at := time.Duration(0); at < 8*day; at += time.Hour {
		switch at {
		case from:
			ca.Down(nil)
		case from + 2*day:
			ca.Up()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, n := range names {
			if leaf := mustLeaf(t, m, n); !time.Now().Before(leaf.NotAfter) {
				t.Fatalf("after %v the certificate for %s has expired", time.Since(began), n)
			}
		}
	}
	if !time.Now().After(first.NotAfter) {
		t.Error("the test ended before the first certificates did")
	}
	// The second renewal may be due or not yet, depending on the outage.
	if got := len(ca.Orders()); got < 2*len(names) || got > 3*len(names) {
		t.Errorf("%d orders for %d names in eight days, want 2 or 3 each", got, len(names))
	}
}

// TestOutageOfStorageSaysLittle has storage fail for two days, in which renewals
// become due: a line for each name and few hours, and not each retry. (F85)
func TestOutageOfStorageSaysLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{})
		s := newFaulty(storage.NewMemory())
		log, logs := observed(slog.LevelWarn)
		conf.Storage, conf.Logger, conf.CleanInterval = s, log, -1
		m := startAlone(t, conf)
		names := numbered(3, "example.com")
		manage(t, m, names...)
		time.Sleep(60 * day)
		logs.TakeAll()
		s.set(func(call) fault { return fault{err: errors.New("input/output error")} })
		time.Sleep(2 * day)
		if n := logs.Len(); n < len(names) || n > len(names)*24 {
			t.Errorf("%d lines in two days: %v", n, logs.All())
		}
		s.set(nil)
	})
}
