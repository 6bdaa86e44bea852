package certcache_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certcache"
)

func TestSole(t *testing.T) {
	c := certcache.New(0)
	all := []*held{
		entry("second", "a.example", "b.example").ranked(1),
		entry("first", "b.example", "a.example"),
		entry("other", "a.example"),
		entry("old", "a.example", "b.example").during(-3*time.Hour, -2*time.Hour),
	}
	check := func(step, want string) {
		t.Helper()
		if got := idOf(sole(c, nil), all); got != want {
			t.Errorf("%s: Sole = %q; want %q", step, got, want)
		}
	}
	check("empty", "")
	install(c, all[3])
	check("one, expired", "old")
	install(c, all[0])
	check("same names", "second")
	install(c, all[1])
	check("same names, in another order", "first")
	install(c, all[2])
	check("a part of the names", "")
	c.Remove(&all[2].Entry)
	check("same names again", "first")
	c.Remove(&all[0].Entry, &all[1].Entry, &all[3].Entry)
	check("empty again", "")
}

func TestSoleCountsWildcardsAsNames(t *testing.T) {
	c := certcache.New(0)
	all := []*held{entry("star", "*.a.example"), entry("both", "a.example", "*.a.example"), entry("too", "a.example", "*.a.example").ranked(1), entry("c", "c.example")}
	for _, step := range []struct {
		serve, stop int
		want        string
	}{
		{0, -1, "star"},
		{1, -1, ""},
		{2, 0, "both"},
		{-1, 1, "too"},
		{3, -1, ""},
		{-1, 2, "c"},
		{0, 3, "star"},
	} {
		if step.serve >= 0 {
			install(c, all[step.serve])
		}
		if step.stop >= 0 {
			c.Serve(&all[step.stop].Entry, nil)
		}
		if got := idOf(sole(c, nil), all); got != step.want {
			t.Errorf("after %+v: Sole = %q; want %q", step, got, step.want)
		}
	}
}

func TestSoleAmongPending(t *testing.T) {
	c := certcache.New(0)
	for i := range 1000 {
		c.Add(&certcache.Entry{Names: []string{fmt.Sprintf("host-%d.example", i)}})
	}
	all := []*held{entry("a", "a.example"), entry("b", "b.example")}
	install(c, all...)
	if sole(c, nil) != nil {
		t.Error("Sole finds one of two")
	}
	c.Remove(&all[0].Entry)
	if got := idOf(sole(c, nil), all); got != "b" {
		t.Errorf("Sole = %q; want b", got)
	}
}

func TestSoleIP(t *testing.T) {
	c := certcache.New(0)
	all := []*held{entry("name", "a.example"), entry("ip", "192.0.2.1", "b.example"), entry("same", "192.0.2.1").ranked(1), entry("ip6", "2001:db8::1")}
	byID := make(map[string]*held)
	for _, h := range all {
		byID[h.id] = h
	}
	for _, step := range []struct {
		install, remove, want string
	}{
		{"name", "", ""},
		{"ip", "", "ip"},
		{"same", "", "ip"},
		{"ip6", "", ""},
		{"", "ip", ""},
		{"", "ip6", "same"},
		{"", "same", ""},
	} {
		if h := byID[step.install]; h != nil {
			install(c, h)
		}
		if h := byID[step.remove]; h != nil {
			c.Remove(&h.Entry)
		}
		if got := idOf(soleIP(c, nil), all); got != step.want {
			t.Errorf("after %+v: SoleIP = %q; want %q", step, got, step.want)
		}
	}
}
