package certwright

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// Constants of the renewal policy. Everything is a fraction of a certificate's
// life, so that it is right for five minutes as for a year.
const (
	// shortLife is below what a certificate counts as short-lived. One that
	// lives for six days is renewed with 2/5 of its life left, so that it
	// outlives a CA that is down for two days.
	shortLife = 10 * 24 * time.Hour

	// spread is the part of a life over which renewals are spread, before the
	// planned time.
	spread = 1.0 / 50

	// backstop is the part of a life that must be left whatever window the CA
	// suggests.
	backstop = 1.0 / 6

	// longestSpacing bounds how long a new certificate is kept although the CA
	// says that its window has passed already.
	longestSpacing = 6 * time.Hour
)

// renewalPolicy is what Config says about renewal.
type renewalPolicy struct {
	fraction float64 // of the life that is left when a certificate is renewed; 0: 1/3, or 2/5 for a short life
}

func (p renewalPolicy) left(life time.Duration) float64 {
	switch {
	case p.fraction > 0:
		return p.fraction
	case life < shortLife:
		return 2.0 / 5
	}
	return 1.0 / 3
}

// window is a suggested renewal window that makes sense for a certificate,
// with the time that was selected in it.
type window struct {
	start, end, selected time.Time
}

// newWindow judges a suggested window (RFC 9773 §4.2): one that ends before it
// starts or begins after the certificate has expired is of no use. The
// selected time is uniform in the window and the same on every instance and
// after every restart, because it follows from the certificate and the window.
func newWindow(leaf certpem.Facts, start, end time.Time) (window, bool) {
	if start.IsZero() || end.IsZero() || !start.Before(end) || !start.Before(leaf.NotAfter) || end.Sub(start) > 10*365*24*time.Hour {
		return window{}, false
	}
	if end.After(leaf.NotAfter) {
		end = leaf.NotAfter
	}
	f := fraction(leaf, start.Unix(), end.Unix())
	return window{start: start, end: end, selected: start.Add(time.Duration(f * float64(end.Sub(start))))}, true
}

// fraction is a number in [0, 1) that follows from the certificate and salt.
func fraction(leaf certpem.Facts, salt ...int64) float64 {
	h := sha256.New()
	h.Write(leaf.RawIssuer)
	h.Write(leaf.Serial)
	for _, s := range salt {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(s)))
	}
	return float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) / (1 << 53)
}

// renewalTime is the one place that decides when a certificate is renewed. w is
// the CA's window, zero when there is none. stored is when the certificate came
// into storage: a new certificate is kept for a while whatever the CA says, so
// that an odd CA does not make an endless loop of orders.
//
// The result may be in the past: then the renewal is due.
func renewalTime(leaf certpem.Facts, w window, p renewalPolicy, stored time.Time) time.Time {
	life := leaf.Life()
	before := func(part float64) time.Time {
		return leaf.NotAfter.Add(-time.Duration(part * float64(life)))
	}
	at := before(p.left(life) + spread*fraction(leaf))
	if !w.selected.IsZero() {
		at = w.selected
		if latest := before(backstop); latest.Before(at) {
			at = latest
		}
	}
	if earliest := stored.Add(min(life/10, longestSpacing)); at.Before(earliest) {
		at = earliest
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	return at
}

// renewAt is when b is renewed.
func (c *job) renewAt(b *bundle, w window) time.Time {
	return renewalTime(c.facts(b), w, c.m.policy, b.stored())
}
