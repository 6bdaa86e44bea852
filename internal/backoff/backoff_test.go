package backoff

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestDelayOfTheZeroPolicy(t *testing.T) {
	want := []time.Duration{
		0, time.Minute, 150 * time.Second, 375 * time.Second, 937500 * time.Millisecond, 2343750 * time.Millisecond,
		5859375 * time.Millisecond, 14648437500 * time.Microsecond, 6 * time.Hour, 6 * time.Hour,
	}
	for attempt, w := range want {
		if got := (Policy{}).Delay(attempt, 0); got != w {
			t.Errorf("Delay(%d, 0) = %v; want %v", attempt, got, w)
		}
		low := time.Duration(float64(w) * 0.8)
		if got := (Policy{}).Delay(attempt, 0.999999); got < low || got > low+w/1000 {
			t.Errorf("Delay(%d, 0.999999) = %v; want about %v", attempt, got, low)
		}
	}
}

func TestDelayFailsFiveTimesAnHourAtMost(t *testing.T) {
	for _, rnd := range []float64{0, 0.5, 1} {
		failures, at := 1, time.Duration(0)
		for {
			at += Policy{}.Delay(failures, rnd)
			if at >= 45*time.Minute {
				break
			}
			failures++
		}
		if failures > 5 {
			t.Errorf("rnd %v: %d failures in the first 45 minutes", rnd, failures)
		}
	}
}

func TestDelay(t *testing.T) {
	tests := []struct {
		name    string
		p       Policy
		attempt int
		rnd     float64
		want    time.Duration
	}{
		{"negative attempt", Policy{}, -3, 0, 0},
		{"factor one", Policy{First: time.Second, Factor: 1}, 9, 0, time.Second},
		{"factor below one", Policy{First: time.Second, Factor: 0.1}, 9, 0, time.Second},
		{"factor NaN", Policy{First: time.Second, Factor: math.NaN()}, 9, 0, time.Second},
		{"no jitter", Policy{First: time.Second, Jitter: -1}, 1, 0.9, time.Second},
		{"all jitter", Policy{First: time.Second, Jitter: 5}, 1, 1, 0},
		{"chance below", Policy{First: time.Second}, 1, -4, time.Second},
		{"chance above", Policy{First: time.Second}, 1, 4, 800 * time.Millisecond},
		{"chance NaN", Policy{First: time.Second}, 1, math.NaN(), time.Second},
		{"first above max", Policy{First: time.Hour, Max: time.Minute}, 1, 0, time.Minute},
		{"overflow", Policy{}, math.MaxInt, 0, DefaultMax},
		{"overflow of the longest", Policy{Max: math.MaxInt64}, math.MaxInt, 0, math.MaxInt64},
		{"negative fields", Policy{First: -1, Max: -1}, 1, 0, DefaultFirst},
	}
	for _, tt := range tests {
		got := tt.p.Delay(tt.attempt, tt.rnd)
		if d := got - tt.want; d < -time.Microsecond || d > time.Microsecond {
			t.Errorf("%s: Delay(%d, %v) = %v; want %v", tt.name, tt.attempt, tt.rnd, got, tt.want)
		}
	}
}

func TestR6_ParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		h    string
		want time.Duration
		ok   bool
	}{
		{"3600", time.Hour, true},
		{" 3600 ", time.Hour, true},
		{"0", 0, true},
		{"604800", MaxRetryAfter, true},
		{"99999999", MaxRetryAfter, true},
		{"99999999999999999999999999", MaxRetryAfter, true},
		{"9223372036854775807", MaxRetryAfter, true},
		{now.Add(time.Hour).Format(http.TimeFormat), time.Hour, true},
		{now.Add(time.Hour).Format(time.RFC850), time.Hour, true},
		{now.Add(time.Hour).Format(time.ANSIC), time.Hour, true},
		{now.Format(http.TimeFormat), 0, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", MaxRetryAfter, true},
		{now.Add(-time.Second).Format(http.TimeFormat), 0, false},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0, false},
		{"-1", 0, false},
		{"+5", 0, false},
		{"1.5", 0, false},
		{"1e9", 0, false},
		{"", 0, false},
		{"   ", 0, false},
		{"soon", 0, false},
		{"3600, 7200", 0, false},
		{"2026-03-01T13:00:00Z", 0, false},
	}
	for _, tt := range tests {
		got, ok := ParseRetryAfter(tt.h, now)
		if got != tt.want || ok != tt.ok {
			t.Errorf("ParseRetryAfter(%q) = %v, %v; want %v, %v", tt.h, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	f.Add("3600")
	f.Add("-1")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, h string) {
		wait, ok := ParseRetryAfter(h, now)
		if wait < 0 || wait > MaxRetryAfter || !ok && wait != 0 {
			t.Fatalf("ParseRetryAfter(%q) = %v, %v", h, wait, ok)
		}
	})
}
