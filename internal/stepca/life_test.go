package stepca_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
)

// shortLife is that of what is to be renewed while a test runs, some seconds later.
const shortLife = 45 * time.Second

// soon has certificates renewed when an eighth of their life is over.
func soon(conf Config) Config {
	conf.RenewalFraction = 0.88
	return conf
}

// TestRenewsShortLeaves: each certificate is replaced while it is good, by one
// order.
func TestRenewsShortLeaves(t *testing.T) {
	t.Parallel()
	renewals := 2
	if testing.Short() {
		renewals = 1
	}
	ca := newCA(t, options{leaf: shortLife})
	m := start(t, soon(ca.manager(t)))
	events := m.Subscribe(t.Context())
	manage(t, m, "a.test")
	for range renewals {
		await(t, events, EventRenewed)
		check(t, m, ca, "a.test")
	}
	closeManager(t, m)
	certificates := 1 + renewals
	for ev := range events { // a slow machine may have renewed once more
		if ev.Kind == EventRenewed {
			certificates++
		}
	}
	ca.expect(t, counts{"finalize": certificates})
}

// F9: what is served ends with its intermediate, and is renewed in time for that.
func TestIntermediateEndsBeforeTheLeaf(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{intermediate: shortLife})
	m := start(t, soon(ca.manager(t)))
	events := m.Subscribe(t.Context())
	manage(t, m, "a.test")
	first := status(t, m, "a.test")
	if left := time.Until(first.NotAfter); left > shortLife || first.RenewAt.After(first.NotAfter) {
		t.Errorf("it ends in %v and is renewed at %v", left, first.RenewAt)
	}
	ca.opt.intermediate = 0
	ca.restart(t)
	await(t, events, EventRenewed)
	check(t, m, ca, "a.test")
	if s := status(t, m, "a.test"); time.Until(s.NotAfter) < 30*time.Minute || s.State != StateValid {
		t.Errorf("with a new intermediate: %+v", s)
	}
	ca.expect(t, counts{"new-order": 2, "finalize": 2, "new-account": 1})
}

// An intermediate that goes on towards its end is no reason for an order each
// moment, and is told. With another one all is well again.
func TestIntermediateIsNotReplacedInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("an intermediate has to come near its end")
	}
	t.Parallel()
	ca := newCA(t, options{intermediate: shortLife})
	m := start(t, soon(ca.manager(t)))
	events := m.Subscribe(t.Context())
	manage(t, m, "a.test")
	failed := await(t, events, EventFailed)
	if n := ca.accepted("new-order"); n > 8 {
		t.Errorf("%d orders", n)
	}
	if !strings.Contains(failed.Err.Error(), "above the leaf ends") || time.Until(failed.Next) < 20*time.Second {
		t.Errorf("next at %v after %v", failed.Next, failed.Err)
	}
	ca.opt.intermediate = 0
	ca.restart(t)
	renew(t, m, "a.test")
	check(t, m, ca, "a.test")
}

// TestRenew gets a new certificate by one order more.
func TestRenew(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{})
	m := start(t, ca.manager(t))
	manage(t, m, "a.test", "b.test")
	before := status(t, m, "a.test")
	renew(t, m, "a.test")
	if after := status(t, m, "a.test"); after.Serial == before.Serial {
		t.Error("the certificate is the same")
	}
	check(t, m, ca, "a.test", "b.test")
	ca.expect(t, counts{"new-account": 1, "new-order": 3, "finalize": 3})
}

// TestRestarts: of the Manager while the CA is down, and of both.
func TestRestarts(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{})
	conf := ca.manager(t)
	m := start(t, conf)
	manage(t, m, "a.test")
	closeManager(t, m)

	ca.stop()
	m = start(t, conf)
	manage(t, m, "a.test")
	check(t, m, ca, "a.test")
	ca.start(t)
	manage(t, m, "a.test", "b.test")
	check(t, m, ca, "a.test", "b.test")
	ca.expect(t, counts{"new-account": 1, "new-order": 2, "finalize": 2})
	renew(t, m, "a.test")
	ca.expect(t, counts{"new-account": 1, "new-order": 3, "finalize": 3})
}

// stopped is a Solver that does not come to its end.
type stopped struct{ reached chan struct{} }

func (s stopped) Present(ctx context.Context, _ Challenge) error {
	close(s.reached)
	<-ctx.Done()
	return ctx.Err()
}

func (stopped) CleanUp(context.Context, Challenge) error { return nil }

// TestRestartsInTheMiddleOfAnOrder: both go on with it.
func TestRestartsInTheMiddleOfAnOrder(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{})
	s := stopped{make(chan struct{})}
	conf := ca.manager(t, func(a *ACME) { a.Solvers = map[string]Solver{"tls-alpn-01": s} })
	m := start(t, conf)
	if err := m.ManageAsync([]string{"a.test"}); err != nil {
		t.Fatal(err)
	}
	<-s.reached
	closeManager(t, m)
	ca.restart(t)
	next := ca.manager(t)
	next.Storage = conf.Storage
	m = start(t, next)
	manage(t, m, "a.test")
	check(t, m, ca, "a.test")
	ca.expect(t, counts{"new-account": 1, "new-order": 1, "finalize": 1})
}

// A reply that is lost costs no second order.
func TestLostReplies(t *testing.T) {
	for _, endpoint := range []string{"new-account", "challenge", "finalize", "certificate"} {
		t.Run(endpoint, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, options{})
			ca.lose = endpoint
			m := start(t, ca.manager(t))
			manage(t, m, "a.test")
			check(t, m, ca, "a.test")
			ca.expect(t, counts{"new-order": 1, "finalize": 1})
		})
	}
}

// TestCALosesItsDatabase: the account is registered again, once.
func TestCALosesItsDatabase(t *testing.T) {
	t.Parallel()
	ca := newCA(t, options{})
	conf := ca.manager(t)
	m := start(t, conf)
	manage(t, m, "a.test")
	ca.stop()
	if err := os.RemoveAll(filepath.Join(ca.dir, "db")); err != nil {
		t.Fatal(err)
	}
	ca.start(t)
	manage(t, m, "a.test", "b.test", "c.test")
	check(t, m, ca, "a.test", "b.test", "c.test")
	ca.expect(t, counts{"new-account": 2, "new-order": 3, "finalize": 3})
	closeManager(t, m)
	m = start(t, conf)
	manage(t, m, "a.test", "d.test")
	ca.expect(t, counts{"new-account": 2, "new-order": 4, "finalize": 4})
}
