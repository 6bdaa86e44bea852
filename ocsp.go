package certwright

import (
	"context"
	"crypto/x509"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/certwright/certwright/internal/revocation"
)

const (
	// stapleTimeout bounds one round to a certificate's responders.
	stapleTimeout = 30 * time.Second

	// staplePause is the least time between two such rounds, and stapleRetry
	// the one after a failure.
	staplePause = time.Hour
	stapleRetry = 30 * time.Minute

	// stapleLife is below what life no staple is fetched: the certificate is
	// gone before a revocation would be seen.
	stapleLife = 10 * 24 * time.Hour
)

// stapleRecord is a staple as it is stored.
type stapleRecord struct {
	Serial string    `json:"serial"`
	Raw    []byte    `json:"raw"` // DER (RFC 6960)
	Asked  time.Time `json:"asked"`
}

// stapleOf returns what is stapled to the handshakes of c: a good response that
// has not ended, or nothing.
func (m *Manager) stapleOf(c *job) []byte {
	if s := c.staple; s != nil && s.Status == revocation.Good && revocation.Usable(s, time.Now()) {
		return s.Raw
	}
	return nil
}

// stapling reports whether an OCSP response is wanted for the certificate of c.
func (m *Manager) stapling(c *job) bool {
	b := c.served
	if m.conf.DisableStapling || b.Issuer() == nil {
		return false
	}
	f := c.facts(b)
	return f.OCSP && (f.MustStaple || f.Life() >= stapleLife)
}

// stapledPair is a certificate and its issuer's, parsed.
type stapledPair struct{ leaf, issuer *x509.Certificate }

func (c *job) stapledPair() (p stapledPair, err error) {
	if p.leaf, err = c.served.Parse(); err != nil {
		return p, err
	}
	p.issuer = c.served.Issuer()
	return p, nil
}

// refreshStaple fetches the OCSP response for c when that is due. It runs on the
// schedule, never in a handshake. A certificate that the responder says is
// revoked is replaced at once.
func (m *Manager) refreshStaple(ctx context.Context, c *job) {
	if !m.stapling(c) {
		return
	}
	now := time.Now()
	if c.stapled && now.Before(c.stapleAt) {
		return
	}
	pair, err := c.stapledPair()
	if err != nil {
		m.log.Debug("no staple: the certificate cannot be read", "name", c.Names[0], "err", err)
		return
	}
	if !c.stapled {
		c.stapled = true
		m.loadStaple(ctx, c, pair)
	}
	if now.Before(c.stapleAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stapleTimeout)
	defer cancel()
	s, err := revocation.Fetcher{Client: m.ocspClient}.Fetch(ctx, pair.leaf, pair.issuer)
	if err != nil {
		c.stapleAt = now.Add(stapleRetry)
		if m.ctx.Err() == nil {
			m.log.Info("no OCSP response", "name", c.Names[0], "due", c.stapleAt, "err", err)
		}
		if m.stapleOf(c) == nil {
			m.serve(c) // what ended is not stapled any more
		}
		return
	}
	m.takeStaple(c, s, now)
	m.storeUpkeep(ctx, c, staplePlace(c.managed), stapleRecord{Serial: c.served.serial(), Raw: s.Raw, Asked: now.UTC().Round(0)})
}

// takeStaple serves s, or replaces the certificate that it says is revoked.
func (m *Manager) takeStaple(c *job, s *revocation.Staple, asked time.Time) {
	c.staple = s
	c.stapleAt = revocation.RefreshAt(s, c.facts(c.served).NotAfter, rand.Float64())
	if least := asked.Add(staplePause); c.stapleAt.Before(least) {
		c.stapleAt = least
	}
	if s.Status == revocation.Revoked && !c.revoked {
		c.revoked = true
		m.log.Error("the certificate is revoked; replacing it", "name", c.Names[0], "serial", c.served.serial(),
			"revoked_at", s.RevokedAt, "reason", s.Reason)
		m.emit(c, Event{Kind: EventRevoked})
	}
	m.serve(c)
}

func staplePlace(c *managed) recordPlace {
	return recordPlace{storageKey(keyStaples, c.id()), kindStaple}
}

// loadStaple takes the response that this or another instance stored.
func (m *Manager) loadStaple(ctx context.Context, c *job, pair stapledPair) {
	var r stapleRecord
	if !m.loadUpkeep(ctx, c, staplePlace(c.managed), &r) || r.Serial != c.served.serial() {
		return
	}
	if s, err := revocation.Parse(r.Raw, pair.leaf, pair.issuer, time.Now()); err == nil {
		m.takeStaple(c, s, r.Asked)
	}
}

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
