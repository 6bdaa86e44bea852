package certwright

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// How often a CA is asked for its suggested window, when it does not say
	// itself (RFC 9773 §4.3.2), and the bounds to what it can say.
	ariInterval = 6 * time.Hour
	ariLeast    = time.Minute
	ariMost     = 24 * time.Hour
	ariRetry    = time.Hour

	keyRenewalInfo  = storageVersion + "/renewal-info" // renewal-info/<id>
	kindRenewalInfo = "renewal info"
)

// ariRecord is a CA's suggestion as it is stored: instances share it, and a
// restart does not ask again.
type ariRecord struct {
	Serial         string    `json:"serial"` // of the certificate it is for
	Start          time.Time `json:"start"`
	End            time.Time `json:"end"`
	ExplanationURL string    `json:"explanation_url,omitempty"`
	Refresh        time.Time `json:"refresh"`       // when to ask again
	Odd            bool      `json:"odd,omitempty"` // the window made no sense
}

// refreshRenewalInfo asks the CA for the suggested window of c when that is due.
// It runs on the schedule, never in a handshake.
func (m *Manager) refreshRenewalInfo(ctx context.Context, c *job) {
	if c.bundle != c.served {
		return // it would be of no use before the next one is served
	}
	informer := m.informer(c)
	if informer == nil {
		c.ari.Refresh = time.Time{}
		return
	}
	facts := c.facts(c.served)
	now := time.Now()
	if c.ariKnown && now.Before(c.ari.Refresh) {
		return
	}
	stored := m.loadRenewalInfo(ctx, c)
	if stored != nil && now.Before(stored.Refresh) && stored.Refresh.Before(now.Add(2*ariMost)) {
		m.takeRenewalInfo(c, *stored)
		// Whoever asked does so again, and first: not every instance at once.
		d := refreshAfter(0, facts.Life()) / 20
		c.ari.Refresh = jittered(stored.Refresh, d)
		return
	}
	info, err := c.suggestion(ctx, informer)
	if ctx.Err() != nil {
		return
	}
	if stored != nil && !c.ariKnown {
		m.takeRenewalInfo(c, *stored) // better than nothing
	}
	switch {
	case errors.Is(err, ErrNoRenewalInfo):
		c.ariKnown = true
		c.ari.Refresh = jittered(now, ariMost) // what it suggested before stays
		return
	case err != nil:
		c.ariKnown = true
		c.ari.Refresh = jittered(now, max(ariRetry, min(info.RetryAfter, ariMost)))
		m.log.Info("no renewal info", "name", c.Names[0], "due", c.ari.Refresh, "err", err)
		return
	}
	r := ariRecord{
		Serial: c.served.serial(), Start: info.Start.UTC(), End: info.End.UTC(), ExplanationURL: info.ExplanationURL,
		Refresh: jittered(now, refreshAfter(info.RetryAfter, facts.Life())),
	}
	m.takeRenewalInfo(c, r)
	m.storeUpkeep(ctx, c, renewalInfoPlace(c.managed), r)
}

// suggestion asks the CA.
func (c *job) suggestion(ctx context.Context, informer RenewalInformer) (RenewalInfo, error) {
	leaf, err := c.served.Parse()
	if err != nil {
		return RenewalInfo{}, err
	}
	return informer.RenewalInfo(ctx, leaf)
}

// refreshAfter is when to ask again: as the CA says, within bounds, and several
// times in a certificate's life.
func refreshAfter(asked, life time.Duration) time.Duration {
	d := asked
	if d == 0 {
		d = ariInterval
	}
	d = min(max(d, ariLeast), ariMost)
	return max(min(d, life/10), ariLeast/2)
}

// jittered spreads what is due after d over the tenth that follows.
func jittered(now time.Time, d time.Duration) time.Time {
	return now.Add(d + time.Duration(rand.Float64()*float64(d)/10)).Round(0)
}

func (m *Manager) informer(c *job) RenewalInformer {
	if m.conf.DisableRenewalInfo {
		return nil
	}
	for _, iss := range c.settings().issuers {
		if iss.ID() == c.served.issuer {
			r, _ := iss.(RenewalInformer)
			return r
		}
	}
	return nil
}

// takeRenewalInfo puts a suggestion to use. The selected time is kept unless the
// window has changed, because it follows from the window.
func (m *Manager) takeRenewalInfo(c *job, r ariRecord) {
	changed := !r.Start.Equal(c.ari.Start) || !r.End.Equal(c.ari.End)
	wasOdd := c.ari.Odd
	w, ok := newWindow(c.facts(c.served), r.Start, r.End)
	r.Odd = !ok
	c.ari, c.ariKnown = r, true
	if !ok {
		c.window = window{}
		if changed && !wasOdd {
			m.log.Warn("the CA's suggested renewal window makes no sense and is ignored", "name", c.Names[0],
				"start", r.Start, "end", r.End)
		}
		return
	}
	if changed {
		c.window = w
		m.emit(c, Event{Kind: EventRenewalInfo, Next: w.selected})
	}
}

func renewalInfoPlace(c *managed) recordPlace {
	return recordPlace{storageKey(keyRenewalInfo, c.id()), kindRenewalInfo}
}

func (m *Manager) loadRenewalInfo(ctx context.Context, c *job) *ariRecord {
	var r ariRecord
	if !m.loadUpkeep(ctx, c, renewalInfoPlace(c.managed), &r) || r.Serial != c.served.serial() {
		return nil
	}
	return &r
}
