package certwright_test

import (
	"crypto/x509"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// pollLag is how old a Manager's knowledge of a window may be: it asks when the
// CA wants it, but ten times in a life, and a tenth later at random, or takes
// what another one was told some 20 minutes after that. After an error it asks
// again within 1.1 hours.
func (y *year) pollLag(leaf *x509.Certificate) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return min(y.poll, life/10)*11/10 + 2*time.Hour
}

// window is what the CA suggests for leaf at a time: half of a short life, two
// thirds of a long one, as Let's Encrypt does, and what the script makes of it.
func (y *year) window(leaf *x509.Certificate, now time.Time) *fakeca.Window {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := leaf.NotAfter.Add(-life / 3)
	if life < 10*day {
		at = leaf.NotAfter.Add(-life / 2)
	}
	since := now.Sub(y.start)
	if y.oddFrom <= since && since < y.oddTo {
		return y.oddWindow(leaf)
	}
	if leaf.NotBefore.Before(y.start.Add(y.moved)) && y.moved <= since {
		at = at.Add(-life / 20)
	}
	return &fakeca.Window{Start: at.Add(-life / 100), End: at.Add(life / 100)}
}

// oddWindow is one that makes no sense; that of the first name begins and ends
// before the certificate does, which means at once, for ever.
func (y *year) oddWindow(leaf *x509.Certificate) *fakeca.Window {
	at, after := leaf.NotBefore.Add(day), leaf.NotAfter
	if leaf.DNSNames[0] == y.specs[0].Names[0] {
		return &fakeca.Window{Start: at.Add(-3 * day), End: at.Add(-2 * day)}
	}
	odd := []fakeca.Window{
		{Start: at, End: at.Add(-time.Hour)},
		{Start: at, End: at},
		{Start: after, End: after.Add(day)},
		{Start: at, End: at.AddDate(20, 0, 0)},
		{},
	}
	return &odd[int(leaf.SerialNumber.Bytes()[0])%len(odd)]
}

// order is an order that the CA accepted, with its certificate.
type order struct {
	made time.Time
	leaf *x509.Certificate
}

// revoked is when the certificate of o was revoked, zero when it was not.
func (y *year) revoked(o order) time.Time {
	return y.revokedAt[o.leaf.SerialNumber.String()]
}

// harvest notes the orders that the CA has accepted and not yet forgotten.
func (y *year) harvest() {
	leaves := map[string]*x509.Certificate{}
	for _, leaf := range y.ca.Certificates() {
		leaves[leaf.SerialNumber.String()] = leaf
	}
	for _, o := range y.ca.Orders() {
		name := o.Identifiers[0].Value
		switch {
		case y.seen[o.ID]:
			continue
		case o.Serial == nil && time.Since(o.Created) < time.Minute: // being worked on
			continue
		case o.Serial == nil:
			y.t.Errorf("an order for %s, made at %v, has no certificate: it is %s", name, o.Created.Sub(y.start), o.Status)
		default:
			y.orders[name] = append(y.orders[name], order{made: o.Created, leaf: leaves[o.Serial.String()]})
		}
		y.seen[o.ID] = true
	}
}

// What the documentation says of when a certificate is renewed, in parts of its
// life: what is left of it by the policy, by how much it may be earlier, how much
// is left whatever the CA suggests, and how long it is kept at least.
const (
	leftOfShort = 2.0 / 5
	leftOfLong  = 1.0 / 3
	renewSpread = 1.0 / 50
	leftAtLeast = 1.0 / 6
	keptAtLeast = 1.0 / 10
	mostKept    = 6 * time.Hour
)

// span is from when until when something is due.
type span struct{ from, to time.Time }

// mid is in the middle of s.
func (s span) mid() time.Time { return s.from.Add(s.to.Sub(s.from) / 2) }

// notBefore returns s with what lies before a time moved to it.
func (s span) notBefore(at time.Time) span {
	if s.from.Before(at) {
		s.from = at
	}
	if s.to.Before(at) {
		s.to = at
	}
	return s
}

// suggested is what the CA suggests for o at a time, as far as it makes sense,
// and else what it has suggested before; nil when it never made sense.
func (y *year) suggested(o order, at time.Time) *fakeca.Window {
	w := y.window(o.leaf, at)
	if w.Start.IsZero() || !w.Start.Before(w.End) || !w.Start.Before(o.leaf.NotAfter) || w.End.Sub(w.Start) > 10*365*day {
		if o.made.Before(y.start.Add(y.oddFrom)) {
			return y.window(o.leaf, y.start.Add(y.oddFrom-1))
		}
		return nil
	}
	return w
}

// dueBy is when the policy has o renewed if the CA goes on to suggest what it
// suggested at a time.
func (y *year) dueBy(o order, at time.Time) span {
	life := o.leaf.NotAfter.Sub(o.leaf.NotBefore)
	before := func(part float64) time.Time { return o.leaf.NotAfter.Add(-time.Duration(part * float64(life))) }
	var due span
	if w := y.suggested(o, at); w != nil {
		last := before(leftAtLeast)
		due = span{w.Start, w.End}
		if last.Before(due.to) {
			due.to = last
		}
		if last.Before(due.from) {
			due.from = last
		}
	} else {
		left := leftOfLong
		if life < 10*day {
			left = leftOfShort
		}
		due = span{before(left + renewSpread), before(left)}
	}
	return due.notBefore(o.made.Add(min(time.Duration(keptAtLeast*float64(life)), mostKept)))
}

// ideal is when the certificate of an order had to be replaced: by the policy
// with a knowledge of the CA's windows that is never old, with a CA that is
// always up, and at once when it was revoked.
func (y *year) ideal(o order) span {
	var due span
	changes := []time.Duration{0, y.moved, y.oddFrom, y.oddTo, 1000 * day}
	for i, from := range changes[:len(changes)-1] {
		until := y.start.Add(changes[i+1])
		due = y.dueBy(o, y.start.Add(from)).notBefore(o.made).notBefore(y.start.Add(from))
		if o.made.Before(until) && due.to.Before(until) {
			break
		}
	}
	if revoked := y.revoked(o); !revoked.IsZero() && revoked.Before(due.to) {
		due = span{revoked, revoked}.notBefore(o.made.Add(mostKept))
	}
	return due
}

// checkOrders compares the orders for each name with the policy.
//
// The ideal count is taken from the certificates really issued: each of them
// says for how long the policy keeps it, so their chain without any delay says
// how many belong into the year. What the CA's troubles delayed may cost one.
// Beside the count, each renewal must have been due, and not be late by more
// than the trouble of its time explains.
func (y *year) checkOrders() {
	if len(y.orders) != y.names {
		y.t.Errorf("the CA had orders for %d names, want %d", len(y.orders), y.names)
	}
	total := 0
	for name, list := range y.orders {
		total += len(list)
		end := y.start.Add(y.length)
		ideal, at, last := 1, list[0].made, time.Duration(0)
		for i := 0; ; i++ {
			if i < len(list) {
				last = y.ideal(list[i]).mid().Sub(list[i].made)
			}
			if at = at.Add(last); at.After(end) {
				break
			}
			ideal++
		}
		if d := len(list) - ideal; d < -1 || d > 1 {
			y.t.Errorf("%d orders for %s, ideal are %d", len(list), name, ideal)
		}
		for i := range list {
			next := end
			if i+1 < len(list) {
				next = list[i+1].made
				y.checkNotEarly(name, list[i], next)
			}
			y.checkNotLate(name, list[i], next)
		}
	}
	y.t.Logf("%d orders for %d names in %v", total, y.names, y.length)
}

// checkNotEarly fails the test when o was not due by any window that the
// Manager may have known when it was replaced.
func (y *year) checkNotEarly(name string, o order, next time.Time) {
	if revoked := y.revoked(o); !revoked.IsZero() && !next.Before(revoked) {
		return
	}
	for _, at := range []time.Time{next, next.Add(-y.pollLag(o.leaf))} {
		if !next.Before(y.dueBy(o, at).from) {
			return
		}
	}
	y.t.Errorf("the certificate for %s of %v was replaced at %v, but was due at %v", name, o.made.Sub(y.start), next.Sub(y.start), y.ideal(o).from.Sub(y.start))
}

// checkNotLate fails the test when o was replaced, or the year ended, later than
// it should have been.
func (y *year) checkNotLate(name string, o order, next time.Time) {
	due := y.ideal(o).to
	lag := y.pollLag(o.leaf)
	until := due.Add(lag)
	// A trouble delays what falls into it, or is found out in it, to its end
	// and the next attempt after that.
	if end := y.start.Add(y.downTo); until.After(y.start.Add(y.downFrom)) && due.Before(end) {
		until = end.Add(6*time.Hour + lag)
	}
	if until.After(y.limitAt) && due.Before(y.limitAt.Add(time.Hour)) {
		until = until.Add(2 * time.Hour)
	}
	if next.After(until) {
		y.t.Errorf("the certificate for %s of %v was due at %v and replaced at %v", name, o.made.Sub(y.start), due.Sub(y.start), next.Sub(y.start))
	}
}

// checkPace fails the test when too much was tried in one minute, or too often
// for one name.
//
// The densest time is that in which the CA is down: up to 15 times in two days
// each name is tried. A minute may have five times the mean of that, and six
// more, because the mean for few names is far below one. A failure counts for
// each Manager that tells of it. Once the CA is found to be up again, a quarter
// of an hour after it is at most, all that has become due goes at once, and each
// name once.
func (y *year) checkPace() {
	mean := float64(15*y.names) / (2 * day).Minutes()
	limit := (6 + int(5*mean)) * len(y.managers)
	var peak time.Time
	back := 0
	for at, n := range y.attempts {
		switch since := at.Sub(y.start); {
		case since <= time.Minute:
		case y.downTo <= since && since < y.downTo+20*time.Minute:
			back += n
		case n > y.attempts[peak]:
			peak = at
		}
	}
	y.t.Logf("the busiest minute, at %v, had %d attempts of %d allowed; %d came when the CA was back", peak.Sub(y.start), y.attempts[peak], limit, back)
	if y.attempts[peak] > limit {
		y.t.Errorf("%d attempts in the minute at %v, want at most %d", y.attempts[peak], peak.Sub(y.start), limit)
	}
	if most := y.names*len(y.managers) + limit; back > most {
		y.t.Errorf("%d attempts when the CA was back, want at most %d", back, most)
	}
	// While the CA is down one name asks for all, each 12 minutes at the shortest:
	// whichever needs it most, so that it may be the same one each time. Each
	// Manager does so, and tells of it. Before that is known, some names have tried
	// each for itself.
	most, all := 0, 0
	for _, n := range y.failures {
		most, all = max(most, n), all+n
	}
	probes := int((y.downTo - y.downFrom) / (12 * time.Minute))
	if limit := (probes + 3*y.limited + 16) * len(y.managers); all < 5 || all > limit {
		y.t.Errorf("%d failures in two days, want 5 to %d", all, limit)
	}
	if y.limited == 0 {
		y.t.Error("no order was refused with 429: the script misses its aim")
	}
	y.t.Logf("%d failures, %d of one name at most, %d orders refused with 429", all, most, y.limited)
}

// checkTraffic fails the test when the CA was asked for more than there was
// to ask.
func (y *year) checkTraffic() {
	orders, failures, polls := 0, 0, 0
	for _, s := range y.specs {
		name := s.Names[0]
		orders += len(y.orders[name])
		failures += y.failures[name]
		life := y.orders[name][0].leaf.NotAfter.Sub(y.orders[name][0].leaf.NotBefore)
		polls += int(y.length/min(y.poll, life/10)) + len(y.orders[name])
	}
	n := len(y.managers)
	down := y.downTo - y.downFrom
	for _, want := range []struct {
		endpoint string
		most     int
		why      string
	}{
		{"newAccount", 1, "there is one account"},
		{"newOrder", orders + y.limited + y.ordersDown, "none is lost but those refused with 429 or by a CA that is down"},
		{"finalize", orders, "one an order"},
		{"cert", orders, "one an order"},
		{"newNonce", orders + 3*failures, "one an order, when the last request is long ago, and three tries while the CA is down"},
		{"directory", n * (int(y.length/(12*time.Hour)) + 3*int(down/(5*time.Minute)) + 10), "two a day, and three tries every five minutes while the CA is down"},
		{"renewalInfo", polls + y.pollsDown, "as often as the CA wants it, by one Manager, and once for a new certificate"},
	} {
		got := y.ca.Count(want.endpoint)
		y.t.Logf("%-12s %7d requests, at most %d", want.endpoint, got, want.most)
		if got > want.most {
			y.t.Errorf("%d requests to %s, want at most %d: %s", got, want.endpoint, want.most, want.why)
		}
	}
	if most := 3 * n * y.names * (int(down/time.Hour) + 2); y.pollsDown > most {
		y.t.Errorf("%d requests to renewalInfo while the CA was down, want at most %d: three tries an hour for each name", y.pollsDown, most)
	}
	if got := y.ca.Accounts(); got != 1 {
		y.t.Errorf("%d accounts, want 1", got)
	}
}
