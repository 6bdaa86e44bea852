package revocation

import (
	"math"
	"testing"
	"time"
)

func TestUsable(t *testing.T) {
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	good := Staple{Raw: []byte{1}, Status: Good, ThisUpdate: start, NextUpdate: start.Add(4 * time.Hour)}
	with := func(edit func(*Staple)) *Staple { s := good; edit(&s); return &s }
	for _, tt := range []struct {
		name   string
		staple *Staple
		now    time.Time
		want   bool
	}{
		{"nil", nil, start, false},
		{"zero", &Staple{}, start, false},
		{"begun", &good, start, true},
		{"responder's clock ahead", &good, start.Add(-5 * time.Minute), true},
		{"future", &good, start.Add(-5*time.Minute - 1), false},
		{"last moment", &good, start.Add(4*time.Hour - 1), true},
		{"ended", &good, start.Add(4 * time.Hour), false},
		{"revoked", with(func(s *Staple) { s.Status = Revoked }), start, false},
		{"unknown", with(func(s *Staple) { s.Status = Unknown }), start, false},
		{"empty", with(func(s *Staple) { s.Raw = nil }), start, false},
		{"open ended", with(func(s *Staple) { s.NextUpdate = time.Time{} }), start.Add(24*time.Hour - 1), true},
		{"open ended, old", with(func(s *Staple) { s.NextUpdate = time.Time{} }), start.Add(24 * time.Hour), false},
		{"leaf alive", with(func(s *Staple) { s.leafNotAfter = start.Add(time.Hour) }), start.Add(time.Hour - 1), true},
		{"leaf expired", with(func(s *Staple) { s.leafNotAfter = start.Add(time.Hour) }), start.Add(time.Hour), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Usable(tt.staple, tt.now); got != tt.want {
				t.Errorf("Usable = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRefreshAt(t *testing.T) {
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	hours := func(h float64) time.Time { return start.Add(time.Duration(h * float64(time.Hour))) }
	s := &Staple{ThisUpdate: start, NextUpdate: hours(100)}
	open := &Staple{ThisUpdate: start}
	for _, tt := range []struct {
		name     string
		staple   *Staple
		notAfter time.Time
		rnd      float64
		want     time.Time
	}{
		{"nil", nil, hours(1000), 0.5, time.Time{}},
		{"half", s, hours(1000), 0, hours(50)},
		{"jitter", s, hours(1000), 0.5, hours(55)},
		{"most", s, hours(1000), 1, hours(60)},
		{"rnd too small", s, hours(1000), -3, hours(50)},
		{"rnd too large", s, hours(1000), 7, hours(60)},
		{"rnd infinite", s, hours(1000), math.Inf(1), hours(60)},
		{"rnd not a number", s, hours(1000), math.NaN(), hours(50)},
		{"leaf ends first", s, hours(40), 0, hours(20)},
		{"leaf's end not known", s, time.Time{}, 0, hours(50)},
		{"leaf ended before", s, hours(-1), 0, hours(-1)},
		{"open ended", open, hours(1000), 0, hours(12)},
		{"open ended, short leaf", open, hours(6), 1, hours(3.6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := RefreshAt(tt.staple, tt.notAfter, tt.rnd); !got.Equal(tt.want) {
				t.Errorf("RefreshAt = %v, want %v", got, tt.want)
			}
		})
	}
}

// A thousand staples that a CA signed in the same second are asked for again in
// as many different moments.
func TestA7_RefreshesAreSpread(t *testing.T) {
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	s := &Staple{ThisUpdate: start, NextUpdate: start.Add(7 * 24 * time.Hour)}
	var buckets [10]int
	half, spread := start.Add(84*time.Hour), 168*time.Hour/10
	for i := range 1000 {
		at := RefreshAt(s, time.Time{}, float64(i)/1000)
		buckets[int(at.Sub(half)*10/spread)]++
	}
	for i, n := range buckets {
		if n < 90 || n > 110 {
			t.Errorf("tenth %d has %d refreshes of 1000", i, n)
		}
	}
}

func TestStatusString(t *testing.T) {
	for s, want := range map[Status]string{Good: "good", Revoked: "revoked", Unknown: "unknown", 0: "Status(0)"} {
		if got := s.String(); got != want {
			t.Errorf("String of %d = %q, want %q", int(s), got, want)
		}
	}
}
