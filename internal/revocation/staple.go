// Package revocation learns from a CA whether a certificate was revoked.
//
// Today it speaks OCSP (RFC 6960): it asks the responders that a leaf names,
// verifies what they answer and says when to ask again, so that a server can
// staple the answer (RFC 6066 §8). It keeps no state and starts no goroutine:
// when to ask, how many at once and where to keep an answer is the caller's
// business. Whatever else tells of revocation reports it as a Status, a time
// and a CRLReason too.
package revocation

import (
	"math"
	"strconv"
	"time"
)

// Status is what a CA says of a certificate (RFC 6960 §2.2). The zero Status
// is none of those below.
type Status int

const (
	// Good means that the CA does not consider the certificate revoked. Only
	// such an answer is stapled.
	Good Status = iota + 1
	// Revoked means that the certificate must be replaced.
	Revoked
	// Unknown means that the responder does not know the certificate, which is
	// common in the first minutes after it was issued.
	Unknown
)

// String returns the status in lower case, as a log shows it.
func (s Status) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	case Unknown:
		return "unknown"
	}
	return "Status(" + strconv.Itoa(int(s)) + ")"
}

const (
	// clockSkew is how far a responder's clock may be ahead of ours.
	clockSkew = 5 * time.Minute
	// openEnded is how long a response without nextUpdate is used. Such a
	// response promises nothing (RFC 6960 §4.2.2.1), so it is kept no longer
	// than the most patient clients keep it.
	openEnded = 24 * time.Hour
	// jitterShare is the part of the validity over which refreshes are spread.
	jitterShare = 0.1
)

// Staple is a verified OCSP response for one leaf. Parse and Fetcher.Fetch make
// it; it is not changed afterwards and so is safe for concurrent reads. The zero
// Staple is not usable.
type Staple struct {
	// Raw is the DER encoded OCSPResponse, ready for
	// tls.Certificate.OCSPStaple and for storage.
	Raw []byte
	// Status is the CA's verdict.
	Status Status
	// ThisUpdate and NextUpdate bound the time in which the verdict holds. A
	// zero NextUpdate means that the responder gave none.
	ThisUpdate, NextUpdate time.Time
	// RevokedAt is zero unless Status is Revoked.
	RevokedAt time.Time
	// Reason is the CRLReason of RFC 5280 §5.3.1, 1 being keyCompromise. It is
	// 0 (unspecified) when the responder gave none.
	Reason int
	// Responder is the URL that answered; empty when the response was not
	// fetched but parsed from storage.
	Responder string

	leafNotAfter time.Time // zero: not known
}

// Usable reports whether s may be stapled at now: it says Good, it is in its
// time, and the leaf has not expired. A nil Staple is not usable.
func Usable(s *Staple, now time.Time) bool {
	return s != nil && s.Status == Good && len(s.Raw) > 0 &&
		!s.ThisUpdate.After(now.Add(clockSkew)) && now.Before(s.end(s.leafNotAfter))
}

// End returns when s is over: it is not stapled from then on.
func (s *Staple) End() time.Time { return s.end(s.leafNotAfter) }

// Replaces reports whether s is to be put in the place of old, which is for the same
// leaf, at now. While old is in its time, a response that says nothing does not
// replace one that does, and an older one does not replace a newer one.
func (s *Staple) Replaces(old *Staple, now time.Time) bool {
	switch {
	case old == nil || !now.Before(old.End()) || old.Status == Unknown:
		return true
	case s.Status == Unknown:
		return false
	}
	return !s.ThisUpdate.Before(old.ThisUpdate)
}

// RefreshAt returns when to ask for the successor of s: when half of its time is
// over, and up to a tenth later as rnd in [0, 1) says, so that the staples of a
// fleet are not refreshed all at once. The time of s ends at leafNotAfter at the
// latest, unless that is zero. A nil Staple is due at the zero time.
//
// The result may be in the past, since CAs give out responses that were signed
// days ago: the caller keeps a least distance between two requests.
func RefreshAt(s *Staple, leafNotAfter time.Time, rnd float64) time.Time {
	if s == nil {
		return time.Time{}
	}
	end := s.end(leafNotAfter)
	validity := end.Sub(s.ThisUpdate)
	if validity <= 0 {
		return end
	}
	if math.IsNaN(rnd) {
		rnd = 0
	}
	rnd = min(max(rnd, 0), 1)
	return s.ThisUpdate.Add(validity/2 + time.Duration(float64(validity)*jitterShare*rnd))
}

// end returns when s is over. A response may well outlive a short-lived leaf; it
// is used until the leaf ends.
func (s *Staple) end(leafNotAfter time.Time) time.Time {
	end := s.NextUpdate
	if end.IsZero() {
		end = s.ThisUpdate.Add(openEnded)
	}
	if !leafNotAfter.IsZero() && leafNotAfter.Before(end) {
		return leafNotAfter
	}
	return end
}
