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

	// stapleWait is how long a certificate that must be stapled waits for its
	// first staple, while the one before it is still good.
	stapleWait = time.Hour

	// longestStaple is longer than any response is stapled before it is renewed.
	longestStaple = 30 * 24 * time.Hour

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
	first := c.ocspAt == 0
	c.mu.Unlock()
	leaf, err := b.Leaf()
	if err != nil {
		return func(*news) { c.ocspAt = never } // the handshake that needs it tells of it
	}
	above, err := b.Issuer()
	if err != nil || above == nil {
		return func(*news) { c.ocspAt = never } // it cannot be asked about
	}
	now := time.Now()
	if first {
		if r := m.loadStaple(ctx, c, b); r != nil && r.Asked.Before(now.Add(clockSkew)) {
			if s, err := revocation.Parse(r.Raw, leaf, above, now); err == nil {
				if at := nextStaple(s, b, r.Asked); at.After(now) {
					return func(n *news) { m.stapledLocked(c, b, s, at, n) }
				}
			}
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
		return func(*news) { m.unstapledLocked(c, b, at) }
	}
	m.storeStaple(ctx, c, b, s)
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
	switch b {
	case c.cur.b:
		c.ocspAt = next.Unix()
	case c.next:
		c.ocspAt = next.Unix()
		if stapleOf(s) != nil {
			c.trouble().staple = s
		}
		return
	default:
		return // it came late
	}
	if old := c.cur.staple; old != nil && s.Status == revocation.Good && s.ThisUpdate.Before(old.ThisUpdate) && stapleOf(old) != nil {
		return // an older answer does not replace a newer one
	}
	if s.Status != revocation.Unknown || stapleOf(c.cur.staple) == nil {
		c.cur.staple = s
	}
	if s.Status == revocation.Revoked && c.know&isRevoked == 0 {
		c.know |= isRevoked
		n.add(func() {
			m.log.Error("the certificate is revoked; replacing it", "name", c.Names[0], "serial", b.Serial(), "revoked_at", s.RevokedAt, "reason", s.Reason)
			m.emit(c, Event{Kind: EventRevoked})
		})
	}
	m.serveLocked(c)
}

// unstapledLocked plans the next question after one that failed. What has ended is
// not stapled any more.
func (m *Manager) unstapledLocked(c *managed, b *records.Bundle, next time.Time) {
	if c.cur.b != b && c.next != b {
		return
	}
	c.ocspAt = next.Unix()
	if s := c.cur.staple; c.cur.b == b && s != nil {
		if stapleOf(s) == nil {
			m.serveLocked(c)
		} else if !s.NextUpdate.IsZero() {
			c.ocspAt = min(c.ocspAt, s.NextUpdate.Unix()+1)
		}
	}
}

// loadStaple returns the response that this or another instance stored for b, nil
// when there is none of use.
func (m *Manager) loadStaple(ctx context.Context, c *managed, b *records.Bundle) *records.Staple {
	r, err := m.records.LoadStaple(ctx, b.ID())
	if err == nil && r.Serial == b.Serial() {
		return r
	}
	m.noteUpkeep(ctx, c, "the stored OCSP response could not be read", err)
	return nil
}

// storeStaple stores a response for the other instances and the next start.
func (m *Manager) storeStaple(ctx context.Context, c *managed, b *records.Bundle, s *revocation.Staple) {
	r := records.Staple{Serial: b.Serial(), Raw: s.Raw, Asked: time.Now().UTC().Round(0)}
	if err := m.records.StoreStaple(ctx, b.ID(), &r); err != nil && !isNewer(err) && ctx.Err() == nil {
		m.degraded(c, "the OCSP response could not be stored", err)
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
