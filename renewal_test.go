package certwright

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// testEpoch is when the certificates of these tables begin.
var testEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// factsOf are the facts of a certificate that has no DER.
func factsOf(leaf *x509.Certificate) certpem.Facts {
	return certpem.Facts{Serial: leaf.SerialNumber.Bytes(), RawIssuer: leaf.RawIssuer, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
}

// certOf is a leaf that lives from testEpoch on.
func certOf(life time.Duration) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(4711), RawIssuer: []byte("issuer"), NotBefore: testEpoch, NotAfter: testEpoch.Add(life)}
}

// TestA8_RenewalByFraction is about a CA without a suggestion: what is left at
// the renewal is a part of the life, give or take the spread.
func TestA8_RenewalByFraction(t *testing.T) {
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
		leaf := certOf(tt.life)
		at := renewalTime(factsOf(leaf), window{}, renewalPolicy{fraction: tt.fraction}, testEpoch)
		left := float64(leaf.NotAfter.Sub(at)) / float64(tt.life)
		if left < tt.left-1e-9 || left > tt.left+spread {
			t.Errorf("life %v, fraction %v: renewed with %.4f of it left; want %.4f to %.4f", tt.life, tt.fraction, left, tt.left, tt.left+spread)
		}
	}
}

// TestA5_WindowOrLifetime has the window and the life disagree; one function
// decides.
func TestA5_WindowOrLifetime(t *testing.T) {
	leaf := certOf(90 * day)
	byLife := renewalTime(factsOf(leaf), window{}, renewalPolicy{}, testEpoch)
	at := func(days float64) time.Time { return testEpoch.Add(time.Duration(days * float64(day))) }
	for _, tt := range []struct {
		name       string
		start, end time.Time
		stored     time.Time
		from, to   time.Time // of the result
	}{
		{"window now, life far", at(10), at(11), at(0), at(10), at(11)},
		{"window over, life far", at(5), at(6), at(0), at(5), at(6)},
		{"window later than by life", at(65), at(70), at(0), at(65), at(70)},
		{"window at the very end", at(88), at(90), at(0), at(75), at(75)},
		{"window beyond the end", at(80), at(200), at(0), at(75), at(75)},
		{"window before the beginning", at(-5), at(-4), at(0), at(0.25), at(0.25)},
		{"window before it was stored", at(1), at(2), at(30), at(30.25), at(30.25)},
		{"stored after the end", at(1), at(2), at(91), at(90), at(90)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, ok := newWindow(factsOf(leaf), tt.start, tt.end)
			if !ok {
				t.Fatal("the window was refused")
			}
			got := renewalTime(factsOf(leaf), w, renewalPolicy{}, tt.stored)
			if got.Before(tt.from) || got.After(tt.to) {
				t.Errorf("renewed at %v; want %v to %v (by life it is %v)", got, tt.from, tt.to, byLife)
			}
		})
	}
}

// TestA4_RenewalTimeOfTheExpired is never after the end, whatever there is.
func TestA4_RenewalTimeOfTheExpired(t *testing.T) {
	for _, life := range []time.Duration{time.Second, 5 * time.Minute, 6 * day, 90 * day} {
		leaf := certOf(life)
		for _, stored := range []time.Duration{-day, 0, life / 2, life, life + time.Second, life + 30*day} {
			for _, w := range []window{{}, mustWindow(t, leaf, -day, -time.Hour), mustWindow(t, leaf, life/3, 40*day+life), mustWindow(t, leaf, 0, life)} {
				at := renewalTime(factsOf(leaf), w, renewalPolicy{}, testEpoch.Add(stored))
				if at.After(leaf.NotAfter) {
					t.Errorf("life %v, stored after %v, window %v: renewed %v after the end", life, stored, w, at.Sub(leaf.NotAfter))
				}
			}
		}
	}
}

func mustWindow(t *testing.T, leaf *x509.Certificate, start, end time.Duration) window {
	t.Helper()
	w, ok := newWindow(factsOf(leaf), testEpoch.Add(start), testEpoch.Add(end))
	if !ok {
		t.Fatal("the window was refused")
	}
	return w
}

func TestNewWindow(t *testing.T) {
	leaf := certOf(90 * day)
	at := func(days int) time.Time { return testEpoch.Add(time.Duration(days) * day) }
	for _, tt := range []struct {
		name       string
		start, end time.Time
		ok         bool
	}{
		{"plain", at(60), at(63), true},
		{"past", at(-9), at(-8), true},
		{"ends after the certificate", at(80), at(100), true},
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
			w, ok := newWindow(factsOf(leaf), tt.start, tt.end)
			if ok != tt.ok {
				t.Fatalf("newWindow = %v, %v", w, ok)
			}
			if !ok {
				if w != (window{}) {
					t.Errorf("a refused window is %v", w)
				}
				return
			}
			if w.selected.Before(w.start) || !w.selected.Before(w.end) || w.end.After(leaf.NotAfter) {
				t.Errorf("selected %v in %v to %v", w.selected, w.start, w.end)
			}
			if again, _ := newWindow(factsOf(leaf), tt.start, tt.end); again != w {
				t.Errorf("another instance selects %v instead of %v", again.selected, w.selected)
			}
		})
	}
}

// TestFraction draws for many certificates: the numbers are even in [0, 1), and
// differ with each input.
func TestFraction(t *testing.T) {
	const n = 20_000
	var buckets [10]int
	for i := range n {
		leaf := certOf(day)
		leaf.SerialNumber = big.NewInt(int64(i))
		f := fraction(factsOf(leaf), 1, 2)
		if f < 0 || f >= 1 {
			t.Fatalf("fraction = %v", f)
		}
		buckets[int(f*10)]++
	}
	for i, got := range buckets {
		if got < n/10*8/10 || got > n/10*12/10 {
			t.Errorf("%d of %d draws are in tenth %d", got, n, i)
		}
	}
	leaf, other := certOf(day), certOf(day)
	other.RawIssuer = []byte("another")
	if a := fraction(factsOf(leaf), 1); a == fraction(factsOf(leaf), 2) || a == fraction(factsOf(leaf)) || a == fraction(factsOf(other), 1) {
		t.Error("fraction does not depend on all of its input")
	}
}

func FuzzRenewalTime(f *testing.F) {
	f.Add(int64(90*day), int64(60*day), int64(61*day), int64(0), 0.0)
	f.Add(int64(5*time.Minute), int64(-day), int64(day), int64(time.Second), 0.5)
	f.Fuzz(func(t *testing.T, life, start, end, stored int64, frac float64) {
		if life <= 0 || !(frac >= 0 && frac < 1) {
			t.Skip()
		}
		leaf := certOf(time.Duration(life))
		w, _ := newWindow(factsOf(leaf), testEpoch.Add(time.Duration(start)), testEpoch.Add(time.Duration(end)))
		at := renewalTime(factsOf(leaf), w, renewalPolicy{fraction: frac}, testEpoch.Add(time.Duration(stored)))
		if at.After(leaf.NotAfter) {
			t.Errorf("renewed %v after the end", at.Sub(leaf.NotAfter))
		}
	})
}

func TestRefreshAfter(t *testing.T) {
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
