package certwright

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/revocation"
)

const (
	// stapleTimeout bounds one round to a certificate's responders.
	stapleTimeout = 30 * time.Second

	// staplePause is the least time between two rounds that brought an answer,
	// and stapleRetry the one after a failure or an answer that says nothing.
	staplePause = time.Hour
	stapleRetry = 30 * time.Minute

	// clockSkew is how far another host's clock may be ahead.
	clockSkew = 2 * time.Minute

	// longestStaple is longer than any response is stapled before it is renewed: one
	// that is good for long is asked for anew after stapleMost, for it may be revoked.
	longestStaple = 30 * 24 * time.Hour
	stapleMost    = 7 * 24 * time.Hour

	// stapleLife is below what life no staple is asked for: the certificate is
	// gone before a revocation would be seen.
	stapleLife = 10 * 24 * time.Hour
)

// ocspLanes are the lanes of OCSP responders, by host.
type ocspLanes struct {
	open func(host string) *lane.Lane

	mu   sync.Mutex // guards list
	list map[string]*lane.Lane
}

// of returns the lane of the first responder of b.
func (o *ocspLanes) of(b *records.Bundle) *lane.Lane {
	host := ""
	if leaf, err := b.Leaf(); err == nil && len(leaf.OCSPServer) > 0 {
		if u, err := url.Parse(leaf.OCSPServer[0]); err == nil {
			host = u.Host
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.list[host]
	if l == nil {
		l = o.open(host)
		if o.list == nil {
			o.list = map[string]*lane.Lane{}
		}
		o.list[host] = l
	}
	return l
}

// all returns all lanes.
func (o *ocspLanes) all() []*lane.Lane {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*lane.Lane
	for _, l := range o.list {
		out = append(out, l)
	}
	return out
}

// stapleOf returns what is stapled: a good response that has not ended, or
// nothing.
func stapleOf(s *revocation.Staple) []byte {
	if s != nil && s.Status == revocation.Good && revocation.Usable(s, time.Now()) {
		return s.Raw
	}
	return nil
}

// stapling reports whether an OCSP response is wanted for b.
func (m *Manager) stapling(b *records.Bundle) bool {
	if m.conf.DisableStapling || !b.Has(records.OCSP) {
		return false
	}
	return b.Has(records.MustStaple) || lifeOf(b) >= stapleLife
}

// staple asks for the OCSP response for b, unless one is stored that will do. A
// certificate that the responder says is revoked is replaced.
func (m *Manager) staple(ctx context.Context, c *managed, b *records.Bundle) func(*news) {
	c.mu.Lock()
	first, known := c.ocspAt == 0, c.cur.staple
	if b == c.next {
		known = nil // else it would be served
	}
	c.mu.Unlock()
	leaf, err := b.Leaf()
	if err != nil {
		return func(*news) { c.planStaple(b, never) } // the handshake that needs it tells of it
	}
	above, err := b.Issuer()
	if err != nil || above == nil {
		return func(*news) { c.planStaple(b, never) } // it cannot be asked about
	}
	now := time.Now()
	if first {
		if s, asked := m.storedStaple(ctx, c, b); s != nil {
			at := nextStaple(s, b, asked)
			if at.After(now) {
				return func(n *news) { m.stapledLocked(c, b, s, at, n) }
			}
			known = s
			m.change(c, func(n *news) { m.stapledLocked(c, b, s, at, n) }) // until there is a newer one
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stapleTimeout)
	defer cancel()
	s, err := revocation.Fetcher{Client: m.ocspClient}.Fetch(ctx, leaf, above)
	if m.ctx.Err() != nil {
		return func(*news) {}
	}
	if err != nil {
		wait := stapleRetry
		var e *revocation.ResponderError
		if errors.As(err, &e) {
			wait = max(wait, e.RetryAfter)
		}
		at := jittered(now, wait)
		m.log.Info("no OCSP response", "name", c.Names[0], "due", at, "err", err)
		return func(*news) { c.planStaple(b, at.Unix()) }
	}
	if s.Status != revocation.Unknown && s.Replaces(known, now) {
		m.storeStaple(ctx, c, b, s)
	}
	at := nextStaple(s, b, now)
	return func(n *news) { m.stapledLocked(c, b, s, at, n) }
}

// nextStaple returns when a successor of s, which was asked for at a time, is
// asked for: before it ends, and soon after an answer that says nothing.
func nextStaple(s *revocation.Staple, b *records.Bundle, asked time.Time) time.Time {
	if s.Status == revocation.Unknown {
		return jittered(asked, stapleRetry)
	}
	at := revocation.RefreshAt(s, time.Unix(b.NotAfter, 0), rand.Float64())
	if at.After(asked.Add(stapleMost)) {
		at = jittered(asked, stapleMost)
	}
	if least := asked.Add(staplePause); at.Before(least) {
		at = least
	}
	if !s.NextUpdate.IsZero() && at.After(s.NextUpdate) && s.NextUpdate.After(asked.Add(time.Minute)) {
		at = s.NextUpdate
	}
	return at
}

// stapledLocked puts what a responder said of b to use.
func (m *Manager) stapledLocked(c *managed, b *records.Bundle, s *revocation.Staple, next time.Time, n *news) {
	if !c.planStaple(b, next.Unix()) {
		return // it came late
	}
	if b == c.next && stapleOf(s) != nil {
		c.trouble().staple = s
	}
	if s.Status == revocation.Revoked && c.know&isRevoked == 0 {
		c.know |= isRevoked
		n.add(func() {
			m.log.Error("the certificate is revoked; replacing it", "name", c.Names[0], "serial", b.Serial(), "revoked_at", s.RevokedAt, "reason", s.Reason)
			m.emit(c, Event{Kind: EventRevoked})
		})
	}
	if b == c.cur.b && s.Replaces(c.cur.staple, time.Now()) {
		c.cur.staple = s
		m.serveLocked(c)
	}
}

// planStaple plans when the responder is asked about b next. It reports false for
// what is neither served nor to be served.
func (c *managed) planStaple(b *records.Bundle, at int64) bool {
	if c.cur.b != b && c.next != b {
		return false
	}
	c.ocspAt = at
	return true
}

// storedStaple returns the response that this or another instance stored for b,
// and when it was asked for; nil when there is none of use.
func (m *Manager) storedStaple(ctx context.Context, c *managed, b *records.Bundle) (*revocation.Staple, time.Time) {
	now := time.Now()
	r, err := m.records.LoadStaple(ctx, b.ID())
	if err != nil || r.Serial != b.Serial() || !r.Asked.Before(now.Add(clockSkew)) {
		m.noteUpkeep(ctx, c, doStaple, "the stored OCSP response could not be read", err)
		return nil, time.Time{}
	}
	leaf, err := b.Leaf()
	if err != nil {
		return nil, time.Time{}
	}
	above, err := b.Issuer()
	if err != nil || above == nil {
		return nil, time.Time{}
	}
	s, err := revocation.Parse(r.Raw, leaf, above, now)
	if err != nil {
		return nil, time.Time{}
	}
	return s, r.Asked
}

// neededStaple returns what is stored and can be stapled to b, which clients may
// refuse without; nil when there is nothing, or b is not such a one.
func (m *Manager) neededStaple(ctx context.Context, c *managed, b *records.Bundle) *revocation.Staple {
	if b == nil || !b.Has(records.MustStaple) || !m.stapling(b) {
		return nil
	}
	if s, _ := m.storedStaple(ctx, c, b); stapleOf(s) != nil {
		return s
	}
	return nil
}

// storeStaple stores a response for the other instances and the next start.
func (m *Manager) storeStaple(ctx context.Context, c *managed, b *records.Bundle, s *revocation.Staple) {
	r := records.Staple{Serial: b.Serial(), Raw: s.Raw, Asked: time.Now().UTC().Round(0)}
	if err := m.records.StoreStaple(ctx, b.ID(), &r); err != nil && !isNewer(err) && ctx.Err() == nil {
		m.degraded(c, doStaple, "the OCSP response could not be stored", err)
	}
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// newOCSPClient makes the client that asks OCSP responders.
func newOCSPClient() *http.Client {
	return &http.Client{Transport: newTransport(), Timeout: stapleTimeout}
}

// newTransport returns a transport of its own with net/http's defaults, also
// when the program has put another one in their place.
func newTransport() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t.Clone()
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
}
