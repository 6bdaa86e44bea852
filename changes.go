package certwright

import (
	"context"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/records"
)

const (
	// changesEvery is how often an instance looks at what others have changed,
	// and changesPause how long it waits before it tells of its own changes, so
	// that many make one record.
	changesEvery = 30 * time.Second
	changesPause = records.TellAfter

	// changesSpread is the time over which all certificates are read again when
	// it is not known which of them others have changed.
	changesSpread = 5 * time.Minute
)

// noteChange has other instances told that a bundle was stored.
func (m *Manager) noteChange(id string) {
	m.changes.Note(id)
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// watchChanges has what other instances stored served here, and tells them what
// this one stores, until ctx ends. When the storage panics or ends the goroutine,
// another one goes on.
func (m *Manager) watchChanges(ctx context.Context) {
	isDone := false
	defer func() {
		if isDone {
			return
		}
		m.log.Error("the storage panicked or ended its goroutine when it was asked for changes; it is asked again",
			"due", time.Now().Add(changesEvery), "err", recover(), "stack", string(debug.Stack()))
		m.spawn(func() {
			if pauseFor(ctx, changesEvery) == nil {
				m.watchChanges(ctx)
			}
		})
	}()
	m.tellAndLook(ctx)
	isDone = true
}

func (m *Manager) tellAndLook(ctx context.Context) {
	m.lookAtChanges(ctx) // where the others are now; what they store from here on is found
	look := time.NewTicker(m.lookEvery)
	defer look.Stop()
	var tell <-chan time.Time // nil: there is nothing to tell
	for {
		select {
		case <-m.changed:
			if tell == nil {
				tell = time.After(changesPause)
			}
		case <-tell:
			tell = nil
			if err := m.tellChanges(ctx); err != nil && ctx.Err() == nil {
				m.log.Debug("other instances could not be told of a change; it is tried again", "err", err)
				tell = time.After(changesEvery)
			}
		case <-look.C:
			m.lookAtChanges(ctx)
		case <-ctx.Done():
			m.lastChanges(ctx)
			return
		}
	}
}

func (m *Manager) tellChanges(ctx context.Context) error {
	defer m.calls.begin("telling other instances of changes")()
	return m.changes.Flush(ctx)
}

// lastChanges tells of what was stored last before Close.
func (m *Manager) lastChanges(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if err := m.tellChanges(ctx); err != nil {
		m.log.Debug("other instances could not be told of a change", "err", err)
	}
}

// lookAtChanges has what others changed read again.
func (m *Manager) lookAtChanges(ctx context.Context) {
	defer m.calls.begin("the look at what other instances changed")()
	ids, all, err := m.changes.Poll(ctx)
	if err != nil {
		if ctx.Err() == nil {
			m.log.Debug("what other instances changed is not known; it is looked at again", "err", err)
		}
		return
	}
	now := time.Now().Unix()
	if all {
		for _, c := range m.all() {
			m.readAgain(c, now+rand.Int64N(int64(changesSpread/time.Second)))
		}
		return
	}
	for _, id := range ids {
		if c := m.managedByID(id); c != nil {
			m.readAgain(c, now)
		}
	}
}

// readAgain has storage read again for c.
func (m *Manager) readAgain(c *managed, at int64) {
	m.change(c, func(*news) {
		switch {
		case c.know&isLoaded == 0 && !c.busy.has(doLoad): // it will be read in any case
		case c.readAt == 0 || at < c.readAt:
			c.readAt = at
		}
	})
}

// managedByID returns the managed certificate with that ID, or nil.
func (m *Manager) managedByID(id string) *managed {
	if strings.HasPrefix(id, "+") {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.sets[id]
	}
	name, _, _ := strings.Cut(id, "+") // no name has a plus sign
	return m.findManaged(id, strings.ReplaceAll(name, "@", ":"))
}
