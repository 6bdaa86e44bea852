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

func TestReplaces(t *testing.T) {
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	made := func(status Status, from, to int) *Staple { // hours
		return &Staple{Raw: []byte{1}, Status: status, ThisUpdate: start.Add(time.Duration(from) * time.Hour), NextUpdate: start.Add(time.Duration(to) * time.Hour)}
	}
	for _, tt := range []struct {
		name   string
		s, old *Staple
		want   bool
	}{
		{"nothing", made(Good, -2, 9), nil, true},
		{"itself", made(Good, -2, 9), made(Good, -2, 9), true},
		{"an older one", made(Good, -1, 9), made(Good, -2, 9), true},
		{"a newer one", made(Good, -2, 9), made(Good, -1, 9), false},
		{"a newer one that has ended", made(Good, -3, 9), made(Good, -2, 0), true},
		{"a newer one that lasts for less", made(Good, -3, 9), made(Good, -2, 1), false},
		{"an unknown", made(Good, -3, 9), made(Unknown, -2, 9), true},
		{"a good one by an unknown", made(Unknown, -1, 9), made(Good, -2, 9), false},
		{"a revoked one by an unknown", made(Unknown, -1, 9), made(Revoked, -2, 9), false},
		{"an ended one by an unknown", made(Unknown, -1, 9), made(Good, -2, -1), true},
		{"an unknown by an unknown", made(Unknown, -2, 9), made(Unknown, -1, 9), true},
		{"a good one by a revoked one", made(Revoked, -1, 9), made(Good, -2, 9), true},
		{"a newer revoked one", made(Good, -2, 9), made(Revoked, -1, 9), false},
		{"an older revoked one", made(Good, -1, 9), made(Revoked, -2, 9), true},
		{"a newer one without an end", made(Good, -3, 9), &Staple{Status: Good, ThisUpdate: start.Add(-time.Hour)}, false},
		{"a newer one without an end, a day later", made(Good, -30, 9), &Staple{Status: Good, ThisUpdate: start.Add(-24 * time.Hour)}, true},
	} {
		if got := tt.s.Replaces(tt.old, start); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
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
