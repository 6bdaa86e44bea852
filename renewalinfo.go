package certwright

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/certwright/certwright/internal/records"
)

const (
	// How often a CA is asked for its suggested window, when it does not say
	// itself (RFC 9773 §4.3.2), and the bounds to what it can say.
	ariInterval = 6 * time.Hour
	ariLeast    = time.Minute
	ariMost     = 24 * time.Hour
	ariRetry    = time.Hour
)

// issuerOf returns the issuer in use that b came from, or else one for its CA;
// nil when there is none.
func issuerOf(cfg *settings, b *records.Bundle) *issuer {
	var same *issuer
	for _, iss := range cfg.issuers {
		switch {
		case iss.id == b.Account():
			return iss
		case iss.ca == b.CA() && same == nil:
			same = iss
		}
	}
	return same
}

// informerOf returns who is asked when b is renewed, nil when nobody is.
func (m *Manager) informerOf(cfg *settings, b *records.Bundle) RenewalInformer {
	iss := issuerOf(cfg, b)
	if m.conf.DisableRenewalInfo || iss == nil {
		return nil
	}
	informer, _ := iss.Issuer.(RenewalInformer)
	return informer
}

// upkeepOf returns when the CA and the responder are asked about b, which is new
// here: at once, or never.
func (m *Manager) upkeepOf(c *managed, b *records.Bundle) (ariAt, ocspAt int64) {
	ariAt, ocspAt = never, never
	if m.informerOf(c.cfg, b) != nil {
		ariAt = 0
	}
	if m.stapling(b) {
		ocspAt = 0
	}
	return ariAt, ocspAt
}

// inform asks the CA for the suggested window of b, unless another instance has
// done so lately.
func (m *Manager) inform(ctx context.Context, c *managed, b *records.Bundle) func(*news) {
	c.mu.Lock()
	cfg, known := c.cfg, c.ariAt != 0
	c.mu.Unlock()
	informer := m.informerOf(cfg, b)
	if informer == nil {
		return func(*news) { c.ariAt = never }
	}
	now := time.Now()
	stored := m.loadRenewalInfo(ctx, c, b)
	if stored != nil && now.Before(stored.Refresh) && stored.Refresh.Before(now.Add(2*ariMost)) {
		// Whoever asked does so again, and first: not every instance at once.
		at := jittered(stored.Refresh, refreshAfter(0, lifeOf(b))/20)
		return func(n *news) { m.suggestedLocked(c, b, suggestionOf(b, stored), at, n) }
	}
	info, err := askRenewalInfo(ctx, informer, b)
	old := (*suggestion)(nil)
	if stored != nil && !known {
		old = suggestionOf(b, stored) // better than nothing
	}
	switch {
	case m.ctx.Err() != nil:
		return func(*news) {}
	case errors.Is(err, ErrNoRenewalInfo): // what it suggested before stays
		return func(n *news) { m.suggestedLocked(c, b, old, jittered(now, ariMost), n) }
	case err != nil:
		at := jittered(now, max(min(ariRetry, lifeOf(b)/20), min(info.RetryAfter, ariMost)))
		m.log.Info("no renewal info", "name", c.Names[0], "due", at, "err", err)
		return func(n *news) { m.suggestedLocked(c, b, old, at, n) }
	}
	at := jittered(now, refreshAfter(info.RetryAfter, lifeOf(b)))
	r := records.RenewalInfo{Serial: b.Serial(), Start: info.Start.UTC(), End: info.End.UTC(), ExplanationURL: info.ExplanationURL, Refresh: at.UTC()}
	s := suggestionOf(b, &r)
	if s == nil { // as no answer at all (RFC 9773 §4.2)
		s, r = old, m.insteadOfOdd(c, stored, r)
	}
	if err := m.records.StoreRenewalInfo(ctx, b.ID(), &r); err != nil && !isNewer(err) && ctx.Err() == nil {
		m.degraded(c, doInform, "the renewal info could not be stored", err)
	}
	return func(n *news) { m.suggestedLocked(c, b, s, at, n) }
}

// insteadOfOdd tells, once, of a suggestion that makes no sense, and returns what
// is kept in its place: what was suggested before.
func (m *Manager) insteadOfOdd(c *managed, before *records.RenewalInfo, odd records.RenewalInfo) records.RenewalInfo {
	kept := records.RenewalInfo{Serial: odd.Serial, Refresh: odd.Refresh, Odd: true}
	if before == nil || !before.Odd {
		m.log.Warn("the CA's suggested renewal window makes no sense and is ignored", "name", c.Names[0], "start", odd.Start, "end", odd.End)
	}
	if before != nil {
		kept.Start, kept.End, kept.ExplanationURL = before.Start, before.End, before.ExplanationURL
	}
	return kept
}

func askRenewalInfo(ctx context.Context, informer RenewalInformer, b *records.Bundle) (RenewalInfo, error) {
	leaf, err := b.Leaf()
	if err != nil {
		return RenewalInfo{}, err
	}
	return informer.RenewalInfo(ctx, leaf)
}

// suggestedLocked puts a suggestion for b to use, nil for none new, and plans the
// next question.
func (m *Manager) suggestedLocked(c *managed, b *records.Bundle, s *suggestion, next time.Time, n *news) {
	if c.cur.b != b {
		return // it came late
	}
	c.ariAt = next.Unix()
	if s == nil {
		return
	}
	if old := c.cur.ari; old != nil && old.start == s.start && old.end == s.end {
		return
	}
	c.cur.ari = s
	n.add(func() { m.emit(c, Event{Kind: EventRenewalInfo, Next: time.Unix(s.selected, 0).UTC()}) })
}

func suggestionOf(b *records.Bundle, r *records.RenewalInfo) *suggestion {
	s := newSuggestion(b, r.Start, r.End)
	if s != nil {
		s.url = r.ExplanationURL
	}
	return s
}

// loadRenewalInfo returns what is stored for b, nil when there is nothing of use.
func (m *Manager) loadRenewalInfo(ctx context.Context, c *managed, b *records.Bundle) *records.RenewalInfo {
	r, err := m.records.LoadRenewalInfo(ctx, b.ID())
	if err == nil && r.Serial == b.Serial() {
		return r
	}
	m.noteUpkeep(ctx, c, doInform, "the stored renewal info could not be read", err)
	return nil
}

// noteUpkeep tells of a record that can be had again and could not be read.
func (m *Manager) noteUpkeep(ctx context.Context, c *managed, by deed, what string, err error) {
	if err != nil && ctx.Err() == nil && !isNotExist(err) {
		m.degraded(c, by, what, err)
	}
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

// jittered spreads what is due after d over the tenth that follows. It is a whole
// second, as what is due has them: who stores it finds that it has come.
func jittered(now time.Time, d time.Duration) time.Time {
	return now.Add(d + time.Duration(rand.Float64()*float64(d)/10)).Round(0).Truncate(time.Second)
}
