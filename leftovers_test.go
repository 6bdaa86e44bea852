package certwright_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// However many clean-ups fail at once, all are tried again within minutes.
func TestManyCleanUpsThatFailAreTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		z := &fakeZone{cleanUp: func(context.Context, Challenge) error {
			if down.Load() {
				return errors.New("the provider is down")
			}
			return nil
		}}
		conf := newDNS(t, z)
		m := start(t, conf)
		if err := m.Manage(t.Context(), Spec{Names: numbered(50, "example.com")}); err != nil {
			t.Fatal(err)
		}
		if n := len(z.left()); n != 50 {
			t.Fatalf("%d records", n)
		}
		down.Store(false)
		time.Sleep(5 * time.Minute)
		noRest(t, z, conf.Storage)
	})
}

// However many certificates something is left of, the journal is listed once for all
// of them.
func TestJournalIsListedOnceForAllThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{}
		conf := newDNS(t, z)
		s := &countingStorage{Memory: conf.Storage.(*storage.Memory)}
		conf.Storage = s
		var specs []Spec
		for _, name := range numbered(30, "example.com") {
			specs = append(specs, Spec{Names: []string{name}})
		}
		leaveBehind(t, conf, z, specs...)
		conf.CleanInterval = -1
		s.take()
		start(t, conf)
		time.Sleep(5 * time.Minute)
		if n := s.take()["list v1/journal"]; n != 1 {
			t.Errorf("the journal was listed %d times for what is left of 30 certificates", n)
		}
		noRest(t, z, conf.Storage)
	})
}

// What a process that died left by a Solver that only a Spec has is cleaned up within
// minutes after that Spec is managed again, although its certificate is there.
func TestSolverOfASpecCleansUpAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{}
		conf := newDNS(t, z)
		alone := conf.Issuers[0].(*ACME)
		spec := Spec{Names: []string{"*.example.com"}, Issuers: []Issuer{alone}}
		conf.Issuers = []Issuer{&ACME{Directory: alone.Directory, HTTPClient: alone.HTTPClient, Account: "other"}}
		leaveBehind(t, conf, z, spec)
		m := start(t, conf)
		time.Sleep(20 * time.Second)
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		noRest(t, z, conf.Storage)
	})
}

// A Spec whose issuer has another account now cleans up with its own Solver, and not
// with one of the Config's, which is for other zones.
func TestTheSolverOfTheSameCertificateCleansUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z, others := &fakeZone{}, &fakeZone{}
		conf := newDNS(t, others)
		alone := *conf.Issuers[0].(*ACME)
		alone.Solvers, alone.Account = map[string]Solver{"dns-01": z}, "a"
		leaveBehind(t, conf, z, Spec{Names: []string{"*.example.com"}, Issuers: []Issuer{&alone}})
		renamed := alone
		renamed.Account = "b"
		m := start(t, conf)
		if err := m.Manage(t.Context(), Spec{Names: []string{"*.example.com"}, Issuers: []Issuer{&renamed}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if n := others.count("CleanUp"); n > 0 {
			t.Errorf("%d calls of another's", n)
		}
		noRest(t, z, conf.Storage)
	})
}

// A CleanUp of what a process that died has left may take longer than it is waited
// for: the same challenge is not presented again meanwhile, so that neither its record
// nor its place in the journal goes.
func TestPresentComesAfterASlowCleanUpOfTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{}
		conf := newDNS(t, z)
		var dead Storage
		z.wait = func(context.Context, Challenge) error {
			dead = copyOf(t, conf.Storage)
			return errors.New("the process is gone")
		}
		m := start(t, conf)
		_ = m.ManageSync(t.Context(), []string{"*.example.com"})
		closeManager(t, m)

		var once sync.Once
		z.cleanUp = func(ctx context.Context, _ Challenge) (err error) {
			once.Do(func() { err = waitFor(ctx, 40*time.Second) })
			return err
		}
		z.wait = func(ctx context.Context, _ Challenge) error {
			if err := waitFor(ctx, time.Minute); err != nil {
				return err
			}
			if left, keys := z.left(), journaled(t, dead); len(left) != 1 || len(keys) != 1 {
				t.Errorf("while it is waited for there are the records %q, journaled as %q", left, keys)
			}
			return nil
		}
		conf.Storage = dead
		m = start(t, conf)
		manage(t, m, "*.example.com")
		noRest(t, z, dead)
	})
}

// A CleanUp that takes longer than the lease is held for it counts all the same.
func TestSlowCleanUpCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &fakeZone{cleanUp: func(ctx context.Context, _ Challenge) error { return waitFor(ctx, 40*time.Second) }}
		conf := newDNS(t, z)
		m := start(t, conf)
		manage(t, m, "example.com")
		time.Sleep(5 * time.Minute)
		if n := z.count("CleanUp"); n > 2 {
			t.Errorf("%d clean-ups", n)
		}
		noRest(t, z, conf.Storage)
	})
}

// Clean-ups that hang cost a certificate their time once, not one after the other,
// and the next attempt neither.
func TestManyCleanUpsThatHangCostTheirTimeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		z := &fakeZone{cleanUp: func(ctx context.Context, _ Challenge) error {
			if !down.Load() {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}}
		conf := newDNS(t, z)
		m := start(t, conf)
		names := numbered(50, "example.com")
		began := time.Now()
		if err := m.Manage(t.Context(), Spec{Names: names}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the first certificate took %v", took)
		}
		began = time.Now()
		if err := m.Renew(t.Context(), names[0]); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("the next one took %v", took)
		}
		down.Store(false)
		time.Sleep(2 * time.Hour)
		noRest(t, z, conf.Storage)
	})
}
