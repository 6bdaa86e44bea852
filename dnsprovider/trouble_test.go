package dnsprovider_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/storage"
	"github.com/libdns/libdns"
)

// The first of two issuers cannot have its record written: the second issues, and
// nothing is left of either.
func TestTheSecondIssuerIssuesWhenTheFirstFailsAtDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		m := newManaged(t, w)
		broken := newWriter("example.com")
		broken.before = func(context.Context, string) error { return errors.New("401: bad token") }
		first, _ := newSolver(broken, broken)
		second, _ := newSolver(w, w)
		conf, other := m.config(first), m.config(second)
		other.Issuers[0].(*certwright.ACME).Account = "second"
		conf.Issuers = append(conf.Issuers, other.Issuers...)
		mgr := m.start(conf)
		if err := mgr.ManageSync(t.Context(), []string{"*.example.com"}); err != nil {
			t.Fatal(err)
		}
		broken.mu.Lock()
		broken.before = nil
		broken.mu.Unlock()
		time.Sleep(5 * time.Minute)
		want(t, "records", w.records("example.com"), []string{})
		want(t, "journal", m.journal(), nil)
	})
}

// Close and Unmanage in the middle of any call of a provider, which goes on for a
// while, leave no record: then, or after the next start.
func TestEndingInTheMiddleOfAnyCall(t *testing.T) {
	for _, what := range []string{"Close", "Unmanage"} {
		for at := 1; at <= 8; at++ {
			for _, stubborn := range []bool{false, true} {
				t.Run(fmt.Sprint(what, " in call ", at, ", stubborn: ", stubborn), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testEnding(t, what, int64(at), stubborn) })
				})
			}
		}
	}
}

func testEnding(t *testing.T, what string, at int64, stubborn bool) {
	w := newWriter("example.com")
	w.put("example.com", "_acme-challenge", "foreign")
	var calls atomic.Int64
	reached := make(chan struct{})
	w.before = func(ctx context.Context, _ string) error {
		if calls.Add(1) == at {
			close(reached)
			if stubborn {
				time.Sleep(30 * time.Second)
				return nil
			}
			return sleep(ctx, 30*time.Second)
		}
		return nil
	}
	m := newManaged(t, w)
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	mgr := m.start(m.config(s))
	if err := mgr.ManageAsync([]string{"*.example.com"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reached:
	case <-time.After(time.Hour):
		t.Skip("there are no so many calls")
	}
	if what == "Unmanage" {
		if err := mgr.Unmanage("*.example.com"); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
	} else {
		m.stop(mgr)
		if left := w.records("example.com"); len(left) != 1 && len(m.journal()) == 0 {
			t.Errorf("left are %q, and nothing is journaled", left)
		}
		s, _ = newSolver(w, &fakeGetter{fakeWriter: w})
		m.start(m.config(s))
		time.Sleep(5 * time.Minute)
	}
	want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
	want(t, "journal", m.journal(), nil)
}

// badProvider does in each method what a test wants.
type badProvider struct {
	*fakeGetter
	bad func(method string)
}

func (p *badProvider) String() string { p.bad("String"); return "bad" }

func (p *badProvider) ListZones(context.Context) ([]libdns.Zone, error) {
	p.bad("ListZones")
	return []libdns.Zone{{Name: "EXAMPLE.COM"}, {Name: ""}, {Name: "."}, {Name: "com"}, {Name: "*.example.com"}}, nil
}

func (p *badProvider) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	p.bad("GetRecords")
	list, err := p.fakeGetter.GetRecords(ctx, zone)
	return append(list, nil, (*libdns.TXT)(nil), libdns.RR{Type: "TXT"}, libdns.RR{}), err
}

func (p *badProvider) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.bad("AppendRecords")
	list, err := p.fakeGetter.AppendRecords(ctx, zone, recs)
	return append([]libdns.Record{nil, (*libdns.TXT)(nil), libdns.TXT{Name: "wrong", Text: "wrong"}}, list...), err
}

func (p *badProvider) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.bad("DeleteRecords")
	list, err := p.fakeGetter.DeleteRecords(ctx, zone, recs)
	return append([]libdns.Record{nil, (*libdns.TXT)(nil)}, list...), err
}

// A provider that panics once in any of its methods costs an attempt, never a record.
func TestAProviderThatPanicsInAnyMethod(t *testing.T) {
	for _, method := range []string{"", "String", "ListZones", "GetRecords", "AppendRecords", "DeleteRecords"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWriter("example.com")
				w.put("example.com", "_acme-challenge", "foreign")
				var n atomic.Int64
				p := &badProvider{&fakeGetter{fakeWriter: w}, func(m string) {
					if m == method && (n.Add(1) < 3 || m == "String") {
						panic("secret: no")
					}
				}}
				s, _ := newSolver(w, p)
				m := newManaged(t, w)
				mgr := m.start(m.config(s))
				if err := mgr.ManageAsync([]string{"*.example.com"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Hour)
				if st := mgr.Status(); st[0].NotAfter.IsZero() {
					t.Errorf("Status %+v", st)
				}
				want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
				want(t, "journal", m.journal(), nil)
			})
		})
	}
}

// Under a Seal nobody reads in storage what is presented, and a new key takes what an
// old one has sealed.
func TestTheJournalUnderASeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWriter("example.com")
		var down atomic.Bool
		w.before = func(_ context.Context, call string) error {
			if down.Load() {
				return errors.New("503")
			}
			return nil
		}
		m := newManaged(t, w)
		m.validated = func() { down.Store(true) }
		var keys []storage.SealKey
		sealed := func() certwright.Storage {
			secret := make([]byte, storage.SealKeySize)
			_, _ = rand.Read(secret)
			k, err := storage.NewSealKey(secret)
			if err != nil {
				t.Fatal(err)
			}
			keys = append([]storage.SealKey{k}, keys...)
			s, err := storage.Seal(m.storage, storage.SealOptions{Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s, _ := newSolver(w, w)
		conf := m.config(s)
		conf.Storage = sealed()
		mgr := m.start(conf)
		if err := mgr.ManageSync(t.Context(), []string{"*.example.com"}); err != nil {
			t.Fatal(err)
		}
		m.stop(mgr)
		left := m.journal()
		if len(left) != 1 {
			t.Fatalf("journal %q", left)
		}
		if b, err := m.storage.Load(t.Context(), left[0]); err != nil || strings.Contains(string(b), "acme") {
			t.Errorf("stored is %q, %v", b, err)
		}
		conf.Storage = sealed()
		s, _ = newSolver(w, w)
		conf.Issuers = m.config(s).Issuers
		mgr = m.start(conf)
		time.Sleep(24 * time.Hour)
		m.stop(mgr)
		keys = keys[:1]
		down.Store(false)
		var err error
		if conf.Storage, err = storage.Seal(m.storage, storage.SealOptions{Keys: keys}); err != nil {
			t.Fatal(err)
		}
		m.start(conf)
		time.Sleep(5 * time.Minute)
		want(t, "records", w.records("example.com"), []string{})
		want(t, "journal", m.journal(), nil)
	})
}

// Where there is no DNS at all a record is written when Zone says where, or the
// provider does, and the CA decides.
func TestNoDNSAtAll(t *testing.T) {
	for _, how := range []string{"Zone", "list", "Zone, no look", "nothing"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWriter("example.com")
				m := newManaged(t, w)
				s := &dnsprovider.Solver{Provider: w}
				s.Probe(noDNS{})
				switch how {
				case "Zone":
					s.Zone = "example.com"
				case "Zone, no look":
					s.Zone, s.Timeout = "example.com", -1
				case "list":
					s.Provider = &fakeLister{fakeWriter: w, list: []string{"example.com"}}
				}
				mgr := m.start(m.config(s))
				began := time.Now()
				err := mgr.ManageSync(t.Context(), []string{"*.example.com"})
				if how == "nothing" {
					wantError(t, err, "*.example.com", "no route to the resolver")
					return
				}
				if err != nil || time.Since(began) > 30*time.Second {
					t.Errorf("error %v after %v", err, time.Since(began))
				}
				time.Sleep(5 * time.Minute)
				want(t, "records", w.records("example.com"), []string{})
			})
		})
	}
}

type noDNS struct{}

var errNoRoute = errors.New("no route to the resolver")

func (noDNS) Follow(context.Context, string) ([]string, error) { return nil, errNoRoute }
func (noDNS) Zone(context.Context, string) (string, error)     { return "", errNoRoute }
func (noDNS) Look(context.Context, string, string) ([]dnsprobe.Answer, error) {
	return nil, errNoRoute
}
