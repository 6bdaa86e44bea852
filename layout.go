package certwright

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/record"
)

const (
	// keyLayout is where a version that keeps its records elsewhere than below
	// storageVersion says so. This version does not write it.
	keyLayout  = "layout"
	kindLayout = "layout"

	// layoutTimeout bounds what New asks of storage.
	layoutTimeout = 5 * time.Second
)

// layoutRecord lists the layouts that a storage is kept in.
type layoutRecord struct {
	Layouts []string `json:"layouts"` // such as "v1"
}

// errNewerLayout means that a storage is another version's.
var errNewerLayout = errors.New("the storage was written by a newer version of certwright, which keeps nothing for this one; it is left as it is: use the newer version, or another storage")

// checkLayout returns an error when storage belongs to a newer version, with
// nothing in it for this one. One that cannot be reached is no error: it is
// tried again with every name.
func (m *Manager) checkLayout() error {
	ctx, cancel := context.WithTimeout(context.Background(), layoutTimeout)
	defer cancel()
	value, err := m.conf.Storage.Load(ctx, keyLayout)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r layoutRecord
	if err == nil {
		err = record.Decode(kindLayout, value, &r)
	}
	switch {
	case errors.Is(err, record.ErrNewer):
		return fmt.Errorf("reading %q: %w: %w", keyLayout, errNewerLayout, err)
	case err != nil:
		m.log.Warn("it cannot be told which version wrote the storage", "err", fmt.Errorf("reading %q: %w", keyLayout, err))
		return nil
	case !slices.Contains(r.Layouts, storageVersion):
		return fmt.Errorf("reading %q: it is kept in %v: %w", keyLayout, r.Layouts, errNewerLayout)
	}
	return nil
}
