package dnsprovider_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/libdns/libdns"
)

// pageGetter shows the first records of a zone only, or what there was a while ago.
type pageGetter struct {
	*fakeGetter
	page int
	late time.Duration

	kept []libdns.Record
	at   time.Time
}

func (g *pageGetter) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	list, err := g.fakeGetter.GetRecords(ctx, zone)
	if g.late > 0 { // a cache
		if time.Since(g.at) < g.late {
			return g.kept, nil
		}
		g.kept, g.at = list, time.Now()
	}
	return list[:min(len(list), g.page)], err
}

// A provider whose list of records is cut at a page, or is behind what was written,
// costs no certificate, and leaves nothing.
func TestListsOfRecordsThatLack(t *testing.T) {
	for what, p := range map[string]func(w *fakeWriter) dnsprovider.Provider{
		"all": func(w *fakeWriter) dnsprovider.Provider {
			return &pageGetter{fakeGetter: &fakeGetter{fakeWriter: w}, page: 0}
		},
		"ours": func(w *fakeWriter) dnsprovider.Provider {
			return &pageGetter{fakeGetter: &fakeGetter{fakeWriter: w}, page: 2}
		},
		"one of ours": func(w *fakeWriter) dnsprovider.Provider {
			return &pageGetter{fakeGetter: &fakeGetter{fakeWriter: w}, page: 3}
		},
		"what is late": func(w *fakeWriter) dnsprovider.Provider {
			return &pageGetter{fakeGetter: &fakeGetter{fakeWriter: w}, page: 100, late: 7 * time.Second}
		},
	} {
		for _, quiet := range []bool{false, true} {
			t.Run(what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWriter("example.com")
					w.quiet = quiet
					w.rejects = quiet
					w.put("example.com", "_acme-challenge", "foreign")
					m := newManaged(t, w)
					s, _ := newSolver(w, p(w))
					mgr := m.start(m.config(s))
					if err := mgr.Manage(t.Context(), certwright.Spec{Names: []string{"example.com", "*.example.com"}}); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Hour)
					want(t, "records", w.records("example.com"), []string{"_acme-challenge foreign"})
					want(t, "journal", m.journal(), nil)
				})
			})
		}
	}
}

// So does one after a crash.
func TestListsOfRecordsThatLackAfterACrash(t *testing.T) {
	w := newWriter("example.com")
	s, _ := newSolver(w, &pageGetter{fakeGetter: &fakeGetter{fakeWriter: w}, page: 1})
	c := newChallenge("example.com", "A")
	mustPresent(t, s, c)
	s, _ = newSolver(w, &pageGetter{fakeGetter: &fakeGetter{fakeWriter: w}, page: 1})
	mustCleanUp(t, s, c)
	want(t, "records", w.records("example.com"), []string{})
}
