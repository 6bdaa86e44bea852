// Package backoff decides how long to wait after a failure: by the number of
// failures so far, and by what a server asks for in Retry-After.
//
// It is pure: time and chance come in as arguments.
package backoff

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What the zero Policy stands for: waits of 1m, 2.5m, 6m15s, 16m, 39m, 1h38m,
// 4h4m and then 6h, each up to a fifth shorter by chance. A short trouble is
// over within minutes, and a lasting one costs no more than five failures in
// the first hour, which is what a large public CA lets a name fail.
const (
	DefaultFirst  = time.Minute
	DefaultMax    = 6 * time.Hour
	DefaultFactor = 2.5
	DefaultJitter = 0.2
)

// MaxRetryAfter is the longest wait that [ParseRetryAfter] returns. The longest
// limits of public CAs are counted by the week; what asks for more is a mistake
// or an attack.
const MaxRetryAfter = 7 * 24 * time.Hour

// A Policy says how waits grow from one failure to the next. A field at zero
// has its default. A Policy is a value and safe for concurrent use.
type Policy struct {
	// First is the wait after the first failure; zero or less is DefaultFirst.
	First time.Duration
	// Max is the longest wait; zero or less is DefaultMax. It holds for First too.
	Max time.Duration
	// Factor is what a wait is multiplied by for the next one; zero is
	// DefaultFactor, anything else below 1 is 1.
	Factor float64
	// Jitter is the part of a wait, 0 to 1, that chance may take away, so that
	// those who failed together do not come back together; zero is
	// DefaultJitter, negative is none.
	Jitter float64
}

// Delay returns the wait after failure number attempt, where 1 is the first. It
// is 0 for an attempt below 1, and otherwise between base·(1-Jitter) and base,
// where base is First·Factor^(attempt-1) and at most Max. The number rnd is
// drawn evenly from [0,1); numbers outside count as the nearer end.
func (p Policy) Delay(attempt int, rnd float64) time.Duration {
	if attempt < 1 {
		return 0
	}
	p = p.withDefaults()
	base := float64(p.Max)
	// The power may be +Inf, which is not below Max.
	if grown := float64(p.First) * math.Pow(p.Factor, float64(attempt-1)); grown < base {
		base = grown
	}
	return min(p.Max, time.Duration(base*(1-p.Jitter*clamp(rnd))))
}

func (p Policy) withDefaults() Policy {
	if p.First <= 0 {
		p.First = DefaultFirst
	}
	if p.Max <= 0 {
		p.Max = DefaultMax
	}
	switch {
	case p.Factor == 0:
		p.Factor = DefaultFactor
	case !(p.Factor >= 1): // NaN too
		p.Factor = 1
	}
	if p.Jitter == 0 {
		p.Jitter = DefaultJitter
	}
	p.Jitter = clamp(p.Jitter)
	return p
}

// clamp brings f into [0,1]; NaN becomes 0.
func clamp(f float64) float64 {
	if !(f > 0) {
		return 0
	}
	return min(f, 1)
}

// ParseRetryAfter reads the value of a Retry-After header (RFC 9110 §10.2.3):
// seconds, or an HTTP date, which is taken from now. The wait is between 0 and
// [MaxRetryAfter]; longer ones are cut to it. It reports false, and the caller
// waits by its own policy, when there is no value, when the value is neither,
// when it is negative, and when the date is past.
func ParseRetryAfter(h string, now time.Time) (time.Duration, bool) {
	h = strings.TrimSpace(h)
	if h == "" {
		return 0, false
	}
	if strings.Trim(h, "0123456789") == "" {
		seconds, err := strconv.ParseInt(h, 10, 64)
		// Digits only: the one error there can be is a number too large.
		if err != nil || seconds > int64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(h)
	if err != nil {
		return 0, false
	}
	wait := at.Sub(now)
	if wait < 0 {
		return 0, false
	}
	return min(wait, MaxRetryAfter), true
}
