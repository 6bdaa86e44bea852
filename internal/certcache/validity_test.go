package certcache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/certcache"
)

func TestClockDecidesWhatIsServed(t *testing.T) { // F8
	c := certcache.New(0)
	exact, star := entry("exact", "www.example.com").during(time.Hour, 3*time.Hour), entry("star", "*.example.com").during(-time.Hour, 2*time.Hour)
	next := entry("next", "www.example.com").during(4*time.Hour, 9*time.Hour).ranked(1)
	all := []*held{exact, star, next}
	check := func(t *testing.T, what, want string, isValid bool) {
		t.Helper()
		r := c.Find("www.example.com", nil)
		if got := idOf(r.Cert, all); got != want || r.Valid != isValid {
			t.Errorf("%s: got %q, valid %v; want %q, %v", what, got, r.Valid, want, isValid)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		install(c, all...)
		for _, step := range []struct {
			after      time.Duration
			what, want string
			isValid    bool
		}{
			{0, "before the name's own is valid", "star", true},
			{time.Hour - time.Second, "a second before that", "star", true},
			{time.Second, "the name's own is valid", "exact", true},
			{time.Hour, "when the wildcard has ended", "exact", true},
			{time.Hour - time.Second, "a second before its own end", "exact", true},
			{time.Second, "none is valid, and one will be", "next", false},
			{time.Hour, "that is valid", "next", true},
			{24 * time.Hour, "all have ended", "exact", false},
		} {
			time.Sleep(step.after)
			check(t, step.what, step.want, step.isValid)
		}
	})
	// Another bubble's clock begins where the first did.
	synctest.Test(t, func(t *testing.T) {
		check(t, "the clock has jumped back", "star", true)
		time.Sleep(time.Hour)
		check(t, "an hour later", "exact", true)
	})
}

func TestWhatExpiredIsServedUntilItIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h := certcache.New(0), entry("old", "a.example", "192.0.2.1").during(-time.Hour, time.Minute)
		install(c, h)
		for _, after := range []time.Duration{0, time.Minute, 24 * time.Hour} {
			time.Sleep(after)
			if lookup(c, "a.example") != h.cert || sole(c, nil) != h.cert || soleIP(c, nil) != h.cert {
				t.Errorf("%v later, it is not found", after)
			}
		}
		renewed := entry("new", "a.example", "192.0.2.1")
		c.Serve(&h.Entry, renewed.served())
		if lookup(c, "a.example") != renewed.cert {
			t.Error("what replaced it is not found")
		}
	})
}
