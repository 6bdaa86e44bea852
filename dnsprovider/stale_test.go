package dnsprovider_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/libdns/libdns"
)

// A secondary server that still shows a value that was deleted does not keep the same
// value from being written again.
func TestAStaleServerDoesNotCount(t *testing.T) {
	w := newWriter("example.com")
	s, d := newSolver(w, w)
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	mustCleanUp(t, s, c)
	d.look = func(zone, name string) ([]dnsprobe.Answer, error) {
		return []dnsprobe.Answer{d.shown(zone, name), {Server: "ns2", Values: []string{"A"}}}, nil
	}
	c = newChallenge("example.com", "A")
	mustPresent(t, s, c)
	want(t, "records", w.records("example.com"), []string{"_acme-challenge A"})
	d.look = nil
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{})
}

// A write that has not returned may still have its effect: the value is not taken for
// gone meanwhile.
func TestAWriteThatIsLateIsCleanedUp(t *testing.T) {
	for _, hangs := range []time.Duration{2 * time.Minute, 61 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWriter("example.com")
			w.before = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "append") {
					time.Sleep(hangs) // and does not look at ctx
				}
				return nil
			}
			s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
			c := newChallenge("example.com", "A")
			wantError(t, s.Present(t.Context(), c.now()), "no answer within 1m0s")
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			wantError(t, s.CleanUp(ctx, c.now()), "has not returned")
			time.Sleep(2 * time.Minute)
			want(t, "records", w.records("example.com"), []string{"_acme-challenge A"})
			mustCleanUp(t, s, c)
			want(t, "records", w.records("example.com"), []string{})
		})
	}
}

// Another instance that had to write the values of a name anew gave ours another ID.
func TestARecordThatOthersHaveWrittenAnewIsDeleted(t *testing.T) {
	w := newWriter("example.com")
	w.ids = true
	s, _ := newSolver(w, &strictGetter{fakeGetter{fakeWriter: w}})
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	w.mu.Lock()
	w.zones["example.com."][0].ProviderData = 99
	w.mu.Unlock()
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{})
}

// strictGetter has an error for a record to be deleted that is not there.
type strictGetter struct{ fakeGetter }

func (g *strictGetter) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	gone, err := g.fakeGetter.DeleteRecords(ctx, zone, recs)
	if err == nil && len(gone) == 0 {
		return nil, errors.New("404: no such record")
	}
	return gone, err
}

// A lease that is lost while a record is written says nothing of the zone.
func TestALostLeaseIsNotTheZonesFault(t *testing.T) { synctest.Test(t, testLostLease) }

func testLostLease(t *testing.T) {
	w := newWriter("sub.example.com", "example.com")
	s, _ := newSolver(w, w)
	c := newChallenge("www.sub.example.com", "A")
	ctx, lose := context.WithCancelCause(t.Context())
	locks := 0
	c.Lock = func(context.Context, string) (certwright.Lease, error) {
		if locks++; locks > 1 {
			return fakeLease{t.Context(), func() {}}, nil
		}
		return fakeLease{ctx, func() {}}, nil
	}
	w.before = func(ctx context.Context, _ string) error {
		w.before = nil
		lose(errors.New("lease lost"))
		<-ctx.Done()
		time.Sleep(time.Second)
		return nil
	}
	wantError(t, s.Present(t.Context(), c.now()), "lease lost")
	time.Sleep(time.Minute)
	if calls := w.made("append"); slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "append example.com.") }) {
		t.Errorf("calls %q", calls)
	}
	mustCleanUp(t, s, c)
	want(t, "records", w.records("sub.example.com"), []string{})
	want(t, "records above", w.records("example.com"), []string{})
}

// A value that was deleted is not written anew for another at its name, although
// whether its deleting harmed others could not be seen.
func TestADeletedValueIsNotWrittenAnew(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, &fakeGetter{fakeWriter: w})
	a, b := newChallenge("example.com", "A"), newChallenge("example.com", "B")
	mustPresent(t, s, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	w.changed = func(string, []libdns.TXT) { cancel() }
	if err := s.CleanUp(ctx, a.now()); err == nil {
		t.Error("no error")
	}
	w.changed = nil
	mustCleanUp(t, s, b)
	want(t, "records", w.records("example.com"), []string{})
	mustCleanUp(t, s, a)
}
