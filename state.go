package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/record"
)

// stateRecord is the back-off of one certificate as it is stored, so that a
// process that is restarted over and over follows one curve.
type stateRecord struct {
	ID       string                 `json:"id"`       // of the certificate
	Attempts int                    `json:"attempts"` // failed in a row
	Last     time.Time              `json:"last"`     // the last attempt
	Next     time.Time              `json:"next"`     // not before
	Error    string                 `json:"error,omitempty"`
	Issuers  map[string]issuerState `json:"issuers,omitempty"`
}

// issuerState is the back-off of one issuer for one certificate, so that a dead
// issuer is not asked first every time.
type issuerState struct {
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"`
	Error    string    `json:"error,omitempty"`
}

func (s *stateRecord) isZero() bool {
	return s.ID == "" && s.Attempts == 0 && s.Last.IsZero() && s.Next.IsZero() && s.Error == "" && len(s.Issuers) == 0
}

// failed notes a failed attempt at an issuer.
func (s *stateRecord) failed(issuer string, err error, now, next time.Time) {
	is := s.Issuers[issuer]
	is.Attempts++
	is.Next, is.Error = next, err.Error()
	if s.Issuers == nil {
		s.Issuers = map[string]issuerState{}
	}
	s.Issuers[issuer] = is
}

// settle sums up an attempt at all issuers: the next one is due when the first
// of them may be asked again.
func (s *stateRecord) settle(issuers []Issuer, err error, now time.Time) {
	s.Attempts++
	s.Last, s.Error = now, err.Error()
	s.Next = time.Time{}
	for _, iss := range issuers {
		if next := s.Issuers[iss.ID()].Next; s.Next.IsZero() || next.Before(s.Next) {
			s.Next = next
		}
	}
}

// pauseOf returns for how long an issuer is left alone that says that the
// account is paused, whichever way it says so, and 0 for any other error.
func pauseOf(err error) time.Duration {
	var p *Problem
	if !errors.As(err, &p) {
		return 0
	}
	if acmeflow.Paused(p.Type, p.Detail, p.Instance) {
		return acmeflow.PausedFor
	}
	return 0
}

// delay is how long to wait after the n-th failure in a row. It is kept below a
// part of the life that the certificate in use has left, and never shorter than
// what the CA asked for.
func delay(n int, left time.Duration, asked time.Duration) time.Duration {
	d := backoff.Policy{}.Delay(n, rand.Float64())
	if left > 0 {
		d = min(d, max(left/12, 5*time.Minute))
	}
	return max(d, asked)
}

func (m *Manager) loadState(ctx context.Context, c *job) (stateRecord, error) {
	var s stateRecord
	id := c.id()
	key := storageKey(keyState, id)
	value, err := m.conf.Storage.Load(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.kept = false
		return c.state, nil
	case err != nil:
		return c.state, fmt.Errorf("loading %q: %w", key, err)
	}
	c.kept = true
	err = record.Decode(kindState, value, &s)
	if errors.Is(err, record.ErrNewer) { // not to be overwritten
		return c.state, fmt.Errorf("reading %q: %w", key, err)
	}
	if err == nil && s.ID != id {
		err = fmt.Errorf("it is the back-off of %q", s.ID)
	}
	if err != nil {
		m.degraded(c.managed, "a stored back-off is damaged and taken as none", fmt.Errorf("reading %q: %w", key, err))
		return c.state, nil
	}
	if c.state.Last.After(s.Last) { // what could not be stored is known here
		return c.state, nil
	}
	return s, nil
}

// saveState keeps the back-off. When it cannot be stored it is kept in memory.
func (m *Manager) saveState(ctx context.Context, c *job, s stateRecord) {
	id := c.id()
	s.ID = id
	c.state, c.kept = s, true
	err := storeRecord(ctx, m.conf.Storage, recordPlace{storageKey(keyState, id), kindState}, s)
	if err != nil && ctx.Err() == nil {
		m.degraded(c.managed, "the back-off could not be stored", err)
	}
}

// clearState forgets the back-off after a success.
func (m *Manager) clearState(ctx context.Context, c *job) {
	c.state = stateRecord{}
	if !c.kept {
		return
	}
	key := storageKey(keyState, c.id())
	err := m.conf.Storage.Delete(ctx, key)
	if err == nil {
		c.kept = false
	} else if ctx.Err() == nil {
		m.degraded(c.managed, "the back-off could not be removed", fmt.Errorf("deleting %q: %w", key, err))
	}
}
