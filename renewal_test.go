package certwright

import (
	"testing"
	"time"

	"github.com/certwright/certwright/internal/records"
)

// living is a certificate of the tables that lives for so long from day 0 on.
func living(life time.Duration) *records.Bundle {
	b := lives(0, 0)
	b.NotAfter += int64(life / time.Second)
	b.End = b.NotAfter
	return b
}

// Without a suggestion of the CA, what is left at the renewal is a part of the
// life, give or take the spread.
func TestRenewsWithAPartOfTheLifeLeft(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct {
		life     time.Duration
		fraction float64
		left     float64
	}{
		{5 * time.Minute, 0, 2.0 / 5},
		{time.Hour, 0, 2.0 / 5},
		{day, 0, 2.0 / 5},
		{160 * time.Hour, 0, 2.0 / 5},
		{10*day - time.Second, 0, 2.0 / 5},
		{10 * day, 0, 1.0 / 3},
		{45 * day, 0, 1.0 / 3},
		{90 * day, 0, 1.0 / 3},
		{398 * day, 0, 1.0 / 3},
		{90 * day, 0.5, 0.5},
		{time.Hour, 0.1, 0.1},
	} {
		b := living(tt.life)
		at := renewalTime(b, nil, renewalPolicy{fraction: tt.fraction})
		left := float64(b.End-at) / tt.life.Seconds()
		second := 1 / tt.life.Seconds() // times are whole seconds
		if left < tt.left-second || left > tt.left+spread+second {
			t.Errorf("life %v, fraction %v: renewed with %.4f of it left; want %.4f to %.4f", tt.life, tt.fraction, left, tt.left, tt.left+spread)
		}
	}
}

// A chain that ends before its leaf is renewed for its own end.
func TestRenewsForTheEndOfTheChain(t *testing.T) {
	b := lives(0, 90)
	b.End = onDay(30)
	if at := renewalTime(b, nil, renewalPolicy{}); at < onDay(19) || at > onDay(20) {
		t.Errorf("renewed on day %v", float64(at-tableStart)/float64(aDay))
	}
}

// The window and the life disagree; one function decides.
func TestWindowGoesBeforeTheLife(t *testing.T) {
	byLife := renewalTime(lives(0, 90), nil, renewalPolicy{})
	for _, tt := range []struct {
		name       string
		start, end float64 // days
		stored     float64
		from, to   float64 // of the result
	}{
		{"window now, life far", 10, 11, 0, 10, 11},
		{"window over, life far", 5, 6, 0, 5, 6},
		{"window later than by life", 65, 70, 0, 65, 70},
		{"window at the very end", 88, 90, 0, 75, 75},
		{"window beyond the end", 80, 200, 0, 75, 75},
		{"window before the beginning", -5, -4, 0, 0.25, 0.25},
		{"window before it was stored", 1, 2, 30, 30.25, 30.25},
		{"stored after the end", 1, 2, 91, 90, 90},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := lives(0, 90)
			b.Stored = onDay(tt.stored)
			got := renewalTime(b, suggested(t, b, tt.start, tt.end), renewalPolicy{})
			if got < onDay(tt.from) || got > onDay(tt.to) {
				t.Errorf("renewed on %v; want day %v to %v (by life it is %v)", time.Unix(got, 0), tt.from, tt.to, time.Unix(byLife, 0))
			}
		})
	}
}

func suggested(t *testing.T, b *records.Bundle, start, end float64) *suggestion {
	t.Helper()
	s := newSuggestion(b, time.Unix(onDay(start), 0), time.Unix(onDay(end), 0))
	if s == nil {
		t.Fatal("the window was refused")
	}
	return s
}

func TestIsNeverRenewedAfterItsEnd(t *testing.T) {
	for _, life := range []float64{1.0 / 86400, 5.0 / 1440, 6, 90} {
		for _, stored := range []float64{-1, 0, life / 2, life, life + 1.0/86400, life + 30} {
			b := lives(0, life)
			b.Stored = onDay(stored)
			for _, s := range []*suggestion{nil, suggested(t, b, -1, -0.5), suggested(t, b, life/3, 40+life), suggested(t, b, 0, life)} {
				if at := renewalTime(b, s, renewalPolicy{}); at > b.End {
					t.Errorf("life %v, stored on day %v, window %+v: renewed %d s after the end", life, stored, s, at-b.End)
				}
			}
		}
	}
}

// RFC 9773 §4.2 (F24)
func TestWindowsThatMakeNoSense(t *testing.T) {
	b := lives(0, 90)
	at := func(day float64) time.Time { return time.Unix(onDay(day), 0) }
	for _, tt := range []struct {
		name       string
		start, end time.Time
		ok         bool
	}{
		{"plain", at(60), at(63), true},
		{"past", at(-9), at(-8), true},
		{"ends after the certificate", at(80), at(100), true},
		{"of a second", at(60), at(60).Add(time.Second), true},
		{"of no length", at(60), at(60), false},
		{"ends before it starts", at(63), at(60), false},
		{"starts with the end of the certificate", at(90), at(91), false},
		{"starts after the certificate", at(100), at(101), false},
		{"zero", time.Time{}, time.Time{}, false},
		{"without a start", time.Time{}, at(60), false},
		{"without an end", at(60), time.Time{}, false},
		{"of a thousand years", at(-365_000), at(60), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSuggestion(b, tt.start, tt.end)
			if (s != nil) != tt.ok {
				t.Fatalf("newSuggestion = %+v", s)
			}
			if s == nil {
				return
			}
			if s.selected < s.start || s.selected >= s.end || s.end > b.NotAfter {
				t.Errorf("selected %d in %d to %d", s.selected, s.start, s.end)
			}
			if again := newSuggestion(lives(0, 90), tt.start, tt.end); *again != *s {
				t.Errorf("another instance selects %d instead of %d", again.selected, s.selected)
			}
		})
	}
}

// The selected times of many windows are spread over them.
func TestSelectedTimesAreSpread(t *testing.T) {
	const n = 2000
	b := lives(0, 90)
	var tenths [10]int
	for i := range int64(n) {
		s := newSuggestion(b, time.Unix(onDay(40)+i, 0), time.Unix(onDay(50)+i, 0))
		tenths[(s.selected-s.start)/aDay]++
	}
	for i, got := range tenths {
		if got < n/20 || got > n*3/20 {
			t.Errorf("%d of %d were selected in tenth %d of their window", got, n, i)
		}
	}
}

func FuzzRenewalTime(f *testing.F) {
	f.Add(int64(90*aDay), int64(60*aDay), int64(61*aDay), int64(0), 0.0)
	f.Add(int64(300), -aDay, aDay, int64(1), 0.5)
	f.Fuzz(func(t *testing.T, life, start, end, stored int64, fraction float64) {
		const most = 1 << 40 // seconds, beyond what a certificate can say
		if life <= 0 || max(life, start, end, stored) > most || min(start, end, stored) < -most || !(fraction >= 0 && fraction < 1) {
			t.Skip()
		}
		b := lives(0, 0)
		b.End, b.NotAfter, b.Stored = b.End+life, b.NotAfter+life, b.Stored+stored
		s := newSuggestion(b, time.Unix(tableStart+start, 0), time.Unix(tableStart+end, 0))
		if at := renewalTime(b, s, renewalPolicy{fraction: fraction}); at > b.End {
			t.Errorf("renewed %d s after the end", at-b.End)
		}
	})
}

// RFC 9773 §4.3.2
func TestWhenRenewalInfoIsAskedForAgain(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct{ asked, life, want time.Duration }{
		{0, 90 * day, 6 * time.Hour},
		{time.Hour, 90 * day, time.Hour},
		{time.Second, 90 * day, time.Minute},
		{7 * day, 90 * day, day},
		{6 * time.Hour, day, 144 * time.Minute},
		{6 * time.Hour, time.Hour, 6 * time.Minute},
		{6 * time.Hour, 5 * time.Minute, 30 * time.Second},
		{6 * time.Hour, time.Second, 30 * time.Second},
	} {
		if got := refreshAfter(tt.asked, tt.life); got != tt.want {
			t.Errorf("refreshAfter(%v, %v) = %v; want %v", tt.asked, tt.life, got, tt.want)
		}
	}
}
