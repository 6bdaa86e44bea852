package bind_test

import (
	"slices"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/bind"
)

func TestSecondariesRefreshWhenTold(t *testing.T) {
	start := time.Now()
	s := bind.Start(t, bind.Options{Zones: []string{"example.com", "example.net"}, Secondaries: 2})
	t.Logf("started in %v", time.Since(start))
	s.Update(t, "example.com", `_acme-challenge.example.com. 60 TXT "one"`, `_acme-challenge.example.com. 60 TXT "two"`)
	s.Update(t, "example.net", `a.example.net. 60 TXT "three"`)
	for i, want := range [][]string{{"one", "two"}, nil, nil} {
		if got := s.TXT(t, i, "_acme-challenge.example.com"); !slices.Equal(got, want) {
			t.Errorf("server %d has %q", i, got)
		}
	}
	s.Refresh(t, 1)
	for i, want := range [][]string{{"one", "two"}, {"one", "two"}, nil} {
		if got := s.TXT(t, i, "_acme-challenge.example.com"); !slices.Equal(got, want) {
			t.Errorf("server %d has %q after the refresh", i, got)
		}
	}
	if got := s.TXT(t, 1, "a.example.net"); !slices.Equal(got, []string{"three"}) {
		t.Errorf("server 1 has %q", got)
	}
	s.Stop(2)
	s.Refresh(t, 1)
}
