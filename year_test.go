package certwright_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// Profiles in the fake years.
const (
	sixDays   = "sixdays"   // 144 h
	sixDaysUp = "sixdaysup" // 160 h, as Let's Encrypt's "shortlived"
)

// script is what happens to the CA in the course of a fake year. Times are
// counted from the start; a zero one does not happen.
type script struct {
	length time.Duration
	names  int
	poll   time.Duration // how often the CA wants to be asked for windows

	moved            time.Duration // windows of the certificates issued until then move to an earlier time
	downFrom, downTo time.Duration // every endpoint answers 503
	revokedOn        time.Duration // a batch is revoked
	batch            int           // its size
	limitFrom        time.Duration // from the next order on newOrder answers 429 for an hour, with a Retry-After of an hour
	oddFrom, oddTo   time.Duration // windows make no sense
}

// longYear puts each trouble where it hurts: the CA goes down right before the
// two days in which every 90-day certificate becomes due by its moved window,
// and limits orders while a batch of revoked certificates is being replaced.
var longYear = script{
	length: 365 * day, names: 300, poll: day,
	moved:    30 * day,
	downFrom: 1308 * time.Hour, downTo: 1356 * time.Hour,
	revokedOn: 100 * day, batch: 60,
	limitFrom: 100*day + 2*time.Hour,
	oddFrom:   200 * day, oddTo: 207 * day,
}

// shortYear has the same troubles in two months.
var shortYear = script{
	length: 60 * day, names: 60, poll: 6 * time.Hour,
	moved:    10 * day,
	downFrom: 20 * day, downTo: 22 * day,
	revokedOn: 35 * day, batch: 30,
	limitFrom: 35*day + 2*time.Hour,
	oddFrom:   42 * day, oddTo: 49 * day,
}

// year is a fake year under way.
type year struct {
	t *testing.T
	script
	start    time.Time
	ca       *fakeca.CA
	managers []*Manager
	specs    []Spec

	mu        sync.Mutex           // guards the fields below
	isServing bool                 // every name had its first certificate
	revokedAt map[string]time.Time // by serial
	refused   map[string]time.Time // by name: when newOrder was answered with 429
	limitAt   time.Time            // the first of them
	limited   int                  // how many
	attempts  map[time.Time]int    // by minute
	failures  map[string]int       // failed attempts by name

	orders map[string][]order // by name; only for the test's goroutine
	seen   map[string]bool    // by order ID

	// Requests for renewal info and orders while the CA was down.
	pollsDown, ordersDown int
}

const (
	// keepCertificates is how many the CA remembers: more than are issued in a
	// month, and while the one that lives longest is in use.
	keepCertificates = 5000

	// goroutineSlack is how many more goroutines than at the start are no
	// leak, which would add up over the days: some workers' and the runtime's.
	goroutineSlack = 16 + 4
)

// run lets n Managers on one storage live through the year, and then checks
// what they did.
func (s script) run(t *testing.T, n int) {
	y := &year{
		t: t, script: s, start: time.Now(),
		revokedAt: map[string]time.Time{}, refused: map[string]time.Time{},
		attempts: map[time.Time]int{}, failures: map[string]int{},
		orders: map[string][]order{}, seen: map[string]bool{},
	}
	ca, conf := newFake(t, fakeca.Options{
		Profiles: map[string]time.Duration{sixDays: 144 * time.Hour, sixDaysUp: 160 * time.Hour},
		Backdate: time.Hour, AuthzReuse: true, NonceLifetime: time.Hour, KeepRequests: -1, KeepCertificates: keepCertificates, ARIRetryAfter: s.poll,
		ARI: func(leaf *x509.Certificate) *fakeca.Window { return y.window(leaf, time.Now()) },
	})
	y.ca = ca
	conf.OnEvent = y.event
	defer ca.On(fakeca.Rule{Endpoint: "newOrder", When: y.refuses, Problem: fakeca.RateLimited(time.Hour, "slow down")})()
	for i := range s.names {
		spec := Spec{Names: []string{fmt.Sprintf("n%03d.example.com", i)}}
		if i%2 == 0 {
			spec.Profile = []string{sixDays, sixDaysUp}[i/2%2]
		}
		y.specs = append(y.specs, spec)
	}
	var wg sync.WaitGroup
	for range n {
		m := startAlone(t, conf)
		y.managers = append(y.managers, m)
		wg.Go(func() {
			if err := m.Manage(context.Background(), y.specs...); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	y.mu.Lock()
	y.isServing = true
	y.mu.Unlock()
	y.live()
	for _, m := range y.managers {
		closeManager(t, m)
	}
	y.harvest()
	y.mu.Lock()
	defer y.mu.Unlock()
	y.checkOrders()
	y.checkPace()
	y.checkTraffic()
}

// live passes the time, hour by hour.
func (y *year) live() {
	goroutines := 0
	for at := time.Duration(0); at < y.length; at += time.Hour {
		switch at {
		case y.downFrom:
			y.pollsDown, y.ordersDown = -y.ca.Count("renewalInfo"), -y.ca.Count("newOrder")
			y.ca.Down(nil)
		case y.downTo:
			y.ca.Up()
			y.ordersDown += y.ca.Count("newOrder")
		case y.downTo + 2*time.Hour: // all have come back
			y.pollsDown += y.ca.Count("renewalInfo")
		case y.revokedOn:
			y.revokeBatch()
		}
		time.Sleep(time.Until(y.start.Add(at + time.Hour)))
		synctest.Wait()
		y.sample()
		if at%day != 0 {
			continue
		}
		if at%(30*day) == 0 {
			y.harvest()
		}
		switch n := runtime.NumGoroutine(); {
		case at == 0:
			goroutines = n
		case n > goroutines+goroutineSlack:
			y.t.Errorf("%v: %d goroutines, %d in the first hour", at, n, goroutines)
		}
	}
}

// sample looks at every name.
func (y *year) sample() {
	now := time.Now()
	for _, m := range y.managers {
		for _, s := range y.specs {
			y.mustServe(m, s.Names[0])
		}
		if now.Sub(y.start)%(25*time.Hour) == 0 { // another hour every day
			y.checkStatus(m, now)
		}
	}
}

// mustServe fails the test when a client would not accept what is served for a
// name.
func (y *year) mustServe(m *Manager, name string) *x509.Certificate {
	now := time.Now()
	cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		y.t.Errorf("%v: %v", now.Sub(y.start), err)
		return nil
	}
	if now.Before(cert.Leaf.NotBefore) || !now.Before(cert.Leaf.NotAfter) {
		y.t.Errorf("%v: the certificate served for %s is valid from %v to %v", now.Sub(y.start), name, cert.Leaf.NotBefore.Sub(y.start), cert.Leaf.NotAfter.Sub(y.start))
	}
	if cert.Leaf.DNSNames[0] != name {
		y.t.Errorf("%v: the certificate served for %s is for %s", now.Sub(y.start), name, cert.Leaf.DNSNames[0])
	}
	return cert.Leaf
}

// checkStatus compares what Status says with what is served and with what the
// schedule is about to do.
func (y *year) checkStatus(m *Manager, now time.Time) {
	list := m.Status()
	if len(list) != y.names {
		y.t.Errorf("Status has %d names, want %d", len(list), y.names)
	}
	var late []NameStatus
	for _, s := range list {
		if leaf := y.mustServe(m, s.Name); leaf != nil && s.Serial != fmt.Sprintf("%x", leaf.SerialNumber) {
			y.t.Errorf("%v: Status names the serial %s for %s, served is %x", now.Sub(y.start), s.Serial, s.Name, leaf.SerialNumber)
		}
		if s.Serial == "" || s.State == StateMissing || s.State == StatePending || s.State == StateExpired {
			y.t.Errorf("%v: the state of %s is %q", now.Sub(y.start), s.Name, s.State)
		}
		if s.NextAction == "" || s.NextAt.IsZero() {
			y.t.Errorf("%v: nothing is planned for %s", now.Sub(y.start), s.Name)
		}
		if s.NextAt.Before(now) && s.Doing == "" {
			late = append(late, s)
		}
	}
	if len(late) > 0 {
		y.t.Errorf("%v: by Status these were due, and nothing is being done: %+v", now.Sub(y.start), late)
	}
	if h := m.Health(); h.Managed != y.names || h.Waiting < y.names-h.Running || now.Sub(h.LastWake) > time.Minute {
		y.t.Errorf("%v: Health is %+v", now.Sub(y.start), h)
	}
}

// event is told of everything that happens.
func (y *year) event(e Event) {
	y.mu.Lock()
	defer y.mu.Unlock()
	switch e.Kind {
	case EventIssued, EventRenewed, EventFailed:
		y.attempts[e.Time.Truncate(time.Minute)]++
	case EventExpired, EventStorageDegraded:
		y.t.Errorf("%v: %s %s: %v", e.Time.Sub(y.start), e.Kind, e.Name, e.Err)
	}
	if e.Kind == EventFailed {
		y.failures[e.Name]++
		if e.Next.Before(e.Time) {
			y.t.Errorf("%v: %s is tried again in the past, at %v", e.Time.Sub(y.start), e.Name, e.Next)
		}
	}
	if y.isServing && e.Name != "" {
		for _, m := range y.managers {
			y.mustServe(m, e.Name)
		}
	}
}

// refuses reports whether a newOrder request is answered with 429, and fails
// the test when it comes within the hour that an earlier answer asked for.
func (y *year) refuses(r *fakeca.Request) bool {
	var ask struct{ Identifiers []fakeca.Identifier }
	if err := json.Unmarshal(r.Payload, &ask); err != nil {
		y.t.Error(err)
		return false
	}
	name := ask.Identifiers[0].Value
	y.mu.Lock()
	defer y.mu.Unlock()
	if at, ok := y.refused[name]; ok && r.Time.Sub(at) < time.Hour {
		y.t.Errorf("an order for %s comes %v after it was told to wait an hour", name, r.Time.Sub(at))
	}
	if r.Time.Before(y.start.Add(y.limitFrom)) {
		return false
	}
	if y.limitAt.IsZero() {
		y.limitAt = r.Time
	}
	if r.Time.Sub(y.limitAt) >= time.Hour {
		return false
	}
	y.refused[name] = r.Time
	y.limited++
	return true
}

// revokeBatch revokes what is served for the first names.
func (y *year) revokeBatch() {
	for _, s := range y.specs[:y.batch] {
		leaf := y.mustServe(y.managers[0], s.Names[0])
		if err := y.ca.Revoke(leaf.SerialNumber); err != nil {
			y.t.Error(err)
		}
		y.mu.Lock()
		y.revokedAt[leaf.SerialNumber.String()] = time.Now()
		y.mu.Unlock()
	}
}

// TestFakeYear lets one Manager keep 300 names for a year: half of them with
// certificates for six days, half for 90 days. Under the race detector there
// are fewer names.
func TestFakeYear(t *testing.T) {
	s := longYear
	switch {
	case testing.Short():
		s = shortYear
	case raceEnabled:
		s.names, s.batch = 20, 10
	}
	synctest.Test(t, func(t *testing.T) { s.run(t, 1) })
}

// TestFakeYearOfTwo lets two Managers share one storage: they make no more
// orders than one does.
func TestFakeYearOfTwo(t *testing.T) {
	s := shortYear
	if testing.Short() || raceEnabled {
		s.names, s.batch = 24, 12
	}
	synctest.Test(t, func(t *testing.T) { s.run(t, 2) })
}
