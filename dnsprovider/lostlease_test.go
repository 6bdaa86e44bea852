package dnsprovider_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// losing is a Locker whose leases are lost when a test wants it.
type losing struct {
	storage.Locker
	mu   sync.Mutex
	held []*lostLease
}

type lostLease struct {
	certwright.Lease
	ctx  context.Context
	lose context.CancelCauseFunc
}

func (l *lostLease) Context() context.Context { return l.ctx }

func (l *losing) Lock(ctx context.Context, name string) (certwright.Lease, error) {
	inner, err := l.Locker.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	lease := &lostLease{Lease: inner}
	lease.ctx, lease.lose = context.WithCancelCause(inner.Context())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, lease)
	return lease, nil
}

// loseAll ends all leases, which others can take then.
func (l *losing) loseAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range l.held {
		lease.lose(storage.ErrLeaseLost)
		_ = lease.Unlock(context.Background())
	}
	l.held = nil
}

// An instance loses its leases in the middle of any of its provider's calls, and
// another goes on with the order: nothing is left.
func TestLeasesLostInTheMiddleOfAnyCall(t *testing.T) {
	for _, slow := range []time.Duration{0, 5 * time.Second, 20 * time.Second} {
		for at := 1; at <= 8; at++ {
			t.Run(fmt.Sprint("call ", at, " of ", slow), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testLostLeases(t, slow, int64(at)) })
			})
		}
	}
}

func testLostLeases(t *testing.T, slow time.Duration, at int64) {
	w := newWriter("example.com")
	w.put("example.com", "_acme-challenge", "foreign")
	m := newManaged(t, w)
	lock := &losing{Locker: m.storage}
	var calls atomic.Int64
	w.before = func(ctx context.Context, _ string) error {
		if calls.Add(1) == at {
			lock.loseAll()
		}
		return sleep(ctx, slow)
	}
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	conf := m.config(s)
	conf.Locker = lock
	mgr := m.start(conf)
	if err := mgr.ManageAsync([]string{"*.example.com"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	s, _ = newSolver(w, &fakeGetter{fakeWriter: w})
	mgr = m.start(m.config(s))
	began := time.Now()
	if err := mgr.ManageSync(t.Context(), []string{"*.example.com"}); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Minute {
		t.Errorf("took %v", took)
	}
	time.Sleep(2 * time.Hour)
	want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
	want(t, "journal", m.journal(), nil)
	if n := len(m.ca.Orders()); n != 1 {
		t.Errorf("%d orders", n)
	}
}
