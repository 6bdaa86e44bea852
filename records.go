package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/certwright/certwright/internal/record"
)

// recordPlace is where a record is kept and what kind it is of.
type recordPlace struct{ key, kind string }

// storeRecord makes body the record at a place.
func storeRecord(ctx context.Context, s Storage, p recordPlace, body any) error {
	value, err := record.Encode(p.kind, body)
	if err == nil {
		err = s.Store(ctx, p.key, value)
	}
	if err != nil {
		return fmt.Errorf("storing %q: %w", p.key, err)
	}
	return nil
}

// loadUpkeep reads into body what is kept beside the certificate of c and can
// be had again. It reports false when there is nothing; what cannot be read
// counts as nothing and is reported.
func (m *Manager) loadUpkeep(ctx context.Context, c *job, p recordPlace, body any) bool {
	value, err := m.conf.Storage.Load(ctx, p.key)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = record.Decode(p.kind, value, body)
	}
	if err != nil {
		c.noteNewer(p.key, err)
		if ctx.Err() == nil {
			m.degraded(c.managed, "the stored "+p.kind+" could not be read", fmt.Errorf("reading %q: %w", p.key, err))
		}
		return false
	}
	return true
}

// storeUpkeep keeps body beside the certificate of c, unless a newer version's
// record is there.
func (m *Manager) storeUpkeep(ctx context.Context, c *job, p recordPlace, body any) {
	if c.newer[p.key] {
		return
	}
	if err := storeRecord(ctx, m.conf.Storage, p, body); err != nil && ctx.Err() == nil {
		m.degraded(c.managed, "the "+p.kind+" could not be stored", err)
	}
}
