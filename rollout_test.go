package certwright_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// Two instances share a storage and have different issuers, as while a new
// configuration is rolled out: neither replaces what the other got over and over.
func TestInstancesWithDifferentIssuersMakeNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newOther(t, "a"), newOther(t, "b")
		a.atMost(mostOrders)
		b.atMost(mostOrders)
		mem := storage.NewMemory()
		one := offline(t, a.fakeSigner, func(c *Config) { c.Issuers, c.Storage = []Issuer{a}, mem })
		two := offline(t, a.fakeSigner, func(c *Config) { c.Issuers, c.Storage = []Issuer{b}, mem })
		manage(t, one, "a.example.com")
		manage(t, two, "a.example.com")
		time.Sleep(day)
		if n, k := a.count(), b.count(); n+k > 4 {
			t.Errorf("%d and %d orders in a day", n, k)
		}
		for range 100 {
			time.Sleep(day)
			for _, m := range []*Manager{one, two} {
				if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
					t.Fatal("an expired certificate is served")
				}
			}
		}
	})
}

// What an instance could not get, another one got: it is served, and nothing is
// said to fail any more.
func TestAnotherInstancesSuccessEndsTheFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		works, fails := newFakeSigner(t), newFakeSigner(t)
		mem := storage.NewMemory()
		one := offline(t, works, func(c *Config) { c.Storage = mem })
		two := offline(t, fails, func(c *Config) { c.Storage = mem })
		manage(t, one, "a.example.com")
		manage(t, two, "a.example.com")
		fails.set(func() { fails.err = errors.New("not here") })
		if two.Renew(t.Context(), "a.example.com") == nil {
			t.Fatal("it did not fail")
		}
		time.Sleep(time.Hour)
		if err := one.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if !mustLeaf(t, two, "a.example.com").Equal(mustLeaf(t, one, "a.example.com")) {
			t.Error("the other serves the replaced certificate")
		}
		if s := statusFor(t, two, "a.example.com"); s.State != StateValid || s.LastError != "" || two.Health().Failing != 0 {
			t.Errorf("Status says %+v", s)
		}
	})
}

// slowReader is a storage that takes a while to hand out what it has read.
type slowReader struct {
	*storage.Memory
	slow atomic.Bool
}

func (s *slowReader) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.Memory.Load(ctx, key)
	if s.slow.Load() && strings.HasPrefix(key, keyCerts) {
		return value, errors.Join(err, waitFor(ctx, 50*time.Second))
	}
	return value, err
}

// A certificate is replaced once more while another instance reads its record.
func TestChangeDuringAReadIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		s := &slowReader{Memory: storage.NewMemory()}
		one := offline(t, f, func(c *Config) { c.Storage = s.Memory })
		two := offline(t, f, func(c *Config) { c.Storage, c.Locker = s, s.Memory })
		manage(t, one, "a.example.com")
		manage(t, two, "a.example.com")
		time.Sleep(time.Minute)
		s.slow.Store(true)
		for range 2 {
			if err := one.Renew(t.Context(), "a.example.com"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(40 * time.Second)
		}
		time.Sleep(10 * time.Minute)
		if !mustLeaf(t, two, "a.example.com").Equal(mustLeaf(t, one, "a.example.com")) {
			t.Error("the replaced certificate is served")
		}
	})
}

// The same while it reads the record for the first time.
func TestChangeDuringTheFirstReadIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		s := &slowReader{Memory: storage.NewMemory()}
		one := offline(t, f, func(c *Config) { c.Storage = s.Memory })
		two := offline(t, f, func(c *Config) { c.Storage, c.Locker = s, s.Memory })
		manage(t, one, "a.example.com")
		time.Sleep(29 * time.Second) // two has looked for changes
		s.slow.Store(true)
		if err := two.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := one.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if !mustLeaf(t, two, "a.example.com").Equal(mustLeaf(t, one, "a.example.com")) {
			t.Error("the replaced certificate is served")
		}
	})
}

// Renew is called while another instance has held the lease for long.
func TestRenewOutlastsAnotherInstancesLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storage.NewMemory()
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		lease, err := mem.Lock(t.Context(), "issue/a.example.com+p256")
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(5*time.Minute, func() { _ = lease.Unlock(context.Background()) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.Renew(ctx, "a.example.com"); err != nil {
			t.Error(err)
		}
		if mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Error("it was not renewed")
		}
		if s := statusFor(t, m, "a.example.com"); s.State != StateValid || s.NextAction == ActionAwaitInstance {
			t.Errorf("Status says %+v", s)
		}
	})
}

// endedLeases hands out leases that are lost as soon as they are there, and says no
// more than that their contexts have ended.
type endedLeases struct {
	*storage.Memory
	n atomic.Int32
}

type endedLease struct {
	Lease
	ctx context.Context
}

func (l endedLease) Context() context.Context { return l.ctx }

func (e *endedLeases) Lock(ctx context.Context, name string) (Lease, error) {
	lease, err := e.Memory.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	if e.n.Add(1) > mostOrders {
		<-ctx.Done()
		return nil, errors.Join(context.Cause(ctx), lease.Unlock(ctx))
	}
	ended, cancel := context.WithCancel(lease.Context())
	cancel()
	return endedLease{lease, ended}, nil
}

// A lease is lost each time, without a cause.
func TestLeasesThatAreLostMakeNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.hook = func(ctx context.Context) error { return context.Cause(ctx) }
		e := &endedLeases{Memory: storage.NewMemory()}
		m := offline(t, f, func(c *Config) { c.Storage, c.Locker = e.Memory, e })
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := e.n.Load(); n > 100 {
			t.Errorf("%d leases in ten minutes", n)
		}
	})
}

// The issuer of a certificate is configured no more, and then again: its CA is
// asked when to renew.
func TestRenewalInfoIsAskedForOnceTheIssuerIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newOther(t, "a"), newOther(t, "b")
		var asked atomic.Int32
		a.inform = func(context.Context, *x509.Certificate) (RenewalInfo, error) {
			asked.Add(1)
			return RenewalInfo{}, ErrNoRenewalInfo
		}
		b.err = errors.New("down")
		m := offline(t, a.fakeSigner, func(c *Config) { c.Issuers, c.DisableRenewalInfo = []Issuer{a}, false })
		manage(t, m, "a.example.com")
		use := func(iss Issuer) {
			if err := m.Manage(t.Context(), Spec{Names: []string{"a.example.com"}, Issuers: []Issuer{iss}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * day)
		}
		use(b)
		n := asked.Load()
		use(a)
		if asked.Load() == n {
			t.Error("the CA is not asked any more")
		}
	})
}
