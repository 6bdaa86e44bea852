package certwright_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// TestRenewalAsksForTheSameAsTheFirstIssue compares what the CA is asked for at a first
// issue, a renewal that is due, a forced one, one after the stored certificate
// was lost, and one by a restarted Manager.
func TestRenewalAsksForTheSameAsTheFirstIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{Profiles: map[string]time.Duration{"shortlived": 6 * day, "other": day}})
		conf.Profile = "other"
		storage := storage.NewMemory()
		conf.Storage = storage
		spec := Spec{Names: []string{"a.example.com", "b.example.com"}, KeyTypes: []KeyType{P384}, Profile: "shortlived"}
		m := start(t, conf)
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * day) // due
		if err := m.Renew(t.Context(), "b.example.com"); err != nil {
			t.Fatal(err)
		}
		keys, err := storage.List(t.Context(), keyCerts)
		if err != nil || len(keys) != 1 {
			t.Fatalf("stored certificates are %v, %v; want one", keys, err)
		}
		if err := storage.Delete(t.Context(), keys[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * day) // due
		closeManager(t, m)
		m = start(t, conf)
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * day) // due
		orders := ca.Requests("newOrder")
		if len(orders) != 5 {
			t.Errorf("%d orders; want 5", len(orders))
		}
		for i, o := range orders {
			if got, want := orderAsked(t, o), orderAsked(t, orders[0]); got != want || o.Kid != orders[0].Kid {
				t.Errorf("order %d asks for %s as %s; want %s as %s", i, got, o.Kid, want, orders[0].Kid)
			}
		}
		for _, leaf := range ca.Certificates() {
			if d := leaf.NotAfter.Sub(leaf.NotBefore); d != 6*day {
				t.Errorf("a certificate lives for %v", d)
			}
		}
		now, err := storage.List(t.Context(), keyCerts)
		if err != nil || !slices.Equal(now, keys) {
			t.Errorf("stored certificates are %v, %v; want %v", now, err, keys)
		}
	})
}

// orderAsked is what a newOrder request asks for, but for what it replaces.
func orderAsked(t testing.TB, r fakeca.Request) string {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(r.Payload, &o); err != nil {
		t.Fatal(err)
	}
	delete(o, "replaces")
	return fmt.Sprint(o)
}

// Two names have an issuer each.
func TestIssuersOfASpecRenewItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "a")})
		b, other := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, "b")})
		m := start(t, conf)
		manage(t, m, "a.example.com")
		if err := m.Manage(t.Context(), Spec{Names: []string{"b.example.com"}, Issuers: other.Issuers}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * day)
		for name, ca := range map[string]*fakeca.CA{"a.example.com": a, "b.example.com": b} {
			if n := ca.Count("newOrder"); n != 2 {
				t.Errorf("%d orders at the CA of %s; want 2", n, name)
			}
			for _, o := range ca.Orders() {
				if o.Identifiers[0].Value != name {
					t.Errorf("an order for %s at the CA of %s", o.Identifiers[0].Value, name)
				}
			}
		}
	})
}

// What New was given is changed afterwards.
func TestConfigIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		conf.KeyTypes = []KeyType{P256}
		iss := conf.Issuers[0].(*ACME)
		m := start(t, conf)
		iss.Directory, iss.HTTPClient = "https://elsewhere.test/", nil
		conf.Issuers[0], conf.KeyTypes[0] = nil, "x"
		manage(t, m, "a.example.com")
		time.Sleep(70 * day)
		if n := ca.Count("newOrder"); n != 2 {
			t.Errorf("%d orders; want an issue and a renewal", n)
		}
	})
}

func TestWaitAndEventsTellTheStory(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		var events eventLog
		m := start(t, conf)
		go events.read(m.Subscribe(t.Context()))
		if err := m.Wait(t.Context(), name); !errors.Is(err, ErrNotManaged) {
			t.Errorf("Wait = %v; want ErrNotManaged", err)
		}
		remove := ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "")})
		if err := m.ManageAsync([]string{name}); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Wait(short, name); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v; want DeadlineExceeded", err)
		}
		remove()
		if err := m.Wait(t.Context(), "A.EXAMPLE.com."); err != nil {
			t.Fatal(err)
		}
		mustLeaf(t, m, name)
		if s := statusFor(t, m, name); s.State != StateValid || s.Attempts != 0 || s.LastError != "" {
			t.Errorf("status after Wait = %+v", s)
		}
		time.Sleep(70 * day)
		remove = ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "")})
		time.Sleep(100 * day)
		remove()
		synctest.Wait()
		checkStory(t, &events)
		closeManager(t, m)
		if err := m.Wait(t.Context(), name); !errors.Is(err, ErrClosed) {
			t.Errorf("Wait = %v; want ErrClosed", err)
		}
	})
}

// checkStory reads the events of TestWaitAndEventsTellTheStory.
func checkStory(t *testing.T, events *eventLog) {
	t.Helper()
	var story []EventKind
	for _, k := range events.kinds("a.example.com") {
		if k == EventRenewalInfo || len(story) > 0 && story[len(story)-1] == k {
			continue
		}
		story = append(story, k)
	}
	want := []EventKind{EventFailed, EventIssued, EventRenewed, EventFailed, EventExpired, EventFailed}
	if !slices.Equal(story, want) {
		t.Errorf("events are %v; want %v", story, want)
	}
	events.mu.Lock()
	defer events.mu.Unlock()
	for i, e := range events.list {
		if i > 0 && e.Time.Before(events.list[i-1].Time) {
			t.Errorf("event %d is before the one before it", i)
		}
		if e.Kind == EventFailed && (e.Err == nil || !e.Next.After(e.Time) || e.Attempt == 0) {
			t.Errorf("a failure without its reason, its number or what comes next: %+v", e)
		}
		if e.Kind == EventRenewed && (e.Serial == "" || e.Issuer == "" || e.NotAfter.IsZero()) {
			t.Errorf("a renewal without its certificate: %+v", e)
		}
	}
}

func TestStaticCertificatesBesideManagedOnes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		files, inFile := issuePair(t, ca, dir, "file.example.com")
		inMemory := tlsPair(t, ca, "memory.example.com")
		conf.Certificates = []StaticCertificate{{CertFile: files.cert, KeyFile: files.key}, {Certificate: inMemory}}
		m := start(t, conf)
		manage(t, m, "a.example.com", "memory.example.com")
		if !mustLeaf(t, m, "file.example.com").Equal(inFile) {
			t.Error("another certificate than the one in the file is served")
		}
		mustLeaf(t, m, "a.example.com")
		mustLeaf(t, m, "memory.example.com")
		if n := ca.Count("newOrder"); n != 2 {
			t.Errorf("%d orders; want 2 for the managed names", n)
		}
		if err := m.Renew(t.Context(), "file.example.com"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("Renew of a static certificate = %v; want ErrNotManaged", err)
		}
		if err := m.Unmanage("memory.example.com"); err != nil {
			t.Fatal(err)
		}
		if leaf := mustLeaf(t, m, "memory.example.com"); leaf.SerialNumber.Cmp(inMemory.Leaf.SerialNumber) != 0 {
			t.Error("the static certificate is not served once the name is not managed any more")
		}
		time.Sleep(2 * day)
		for _, o := range ca.Orders() {
			if strings.HasPrefix(o.Identifiers[0].Value, "file.") {
				t.Error("an order for a static certificate")
			}
		}
	})
}

// Two Managers share a process and nothing else.
func TestTwoManagersDoNotKnowOfEachOther(t *testing.T) {
	type side struct {
		m      *Manager
		ca     *fakeca.CA
		events eventLog
		names  []string
	}
	sides := map[string]*side{}
	for i, who := range []string{"a", "b"} {
		ca, conf := newFake(t, fakeca.Options{BaseURL: "https://" + testHost(t, who), Profiles: map[string]time.Duration{who: time.Duration(i+1) * 6 * day}})
		s := &side{ca: ca}
		conf.Profile, conf.Email, conf.Workers = who, who+"@example.com", i+1
		conf.KeyTypes = [][]KeyType{{P256}, {P384}}[i]
		conf.RenewalFraction, conf.DisableRenewalInfo = 0.3+float64(i)/10, i == 1
		conf.DefaultName = who + "0.example.com"
		conf.OnEvent = s.events.add
		s.m = start(t, conf)
		for n := range 20 {
			s.names = append(s.names, fmt.Sprintf("%s%d.example.com", who, n))
		}
		sides[who] = s
	}
	var wg sync.WaitGroup
	for _, s := range sides {
		wg.Go(func() { // both manage a name of the same spelling
			if err := s.m.ManageSync(t.Context(), append(slices.Clone(s.names), "both.example.com")); err != nil {
				t.Error(err)
			}
			if err := s.m.Renew(t.Context(), "both.example.com"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for who, s := range sides {
		if n := s.ca.Count("newOrder"); n != 22 {
			t.Errorf("%d orders at the CA of %s; want 22", n, who)
		}
		for _, o := range s.ca.Orders() {
			if v := o.Identifiers[0].Value; o.Profile != who || v != "both.example.com" && !strings.HasPrefix(v, who) {
				t.Errorf("the CA of %s was asked for %s with profile %q", who, v, o.Profile)
			}
		}
		if d := leafOf(s.m, ""); d == nil || d.DNSNames[0] != who+"0.example.com" {
			t.Errorf("the default certificate of %s is %v", who, d)
		}
		if n := s.events.count(EventIssued); n != 21 {
			t.Errorf("%d were told of to %s; want 21", n, who)
		}
	}
	closeManager(t, sides["a"].m)
	if err := sides["b"].m.Renew(t.Context(), "b0.example.com"); err != nil {
		t.Errorf("after the other was closed: %v", err)
	}
	if leafOf(sides["b"].m, "a0.example.com") != nil {
		t.Error("one Manager serves the other's name")
	}
}
