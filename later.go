package certwright

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/certwright/certwright/internal/hostname"
)

// atOnce is how many names ManageAsync adds before it returns. More of them are
// added in the background, so that a server with many names need not wait before
// it listens.
const atOnce = 1024

// later is what one call of ManageAsync has left to add.
type later struct {
	plans []plan
	index atomic.Pointer[map[string]int32] // of plans by their name; nil until it is made
	done  chan struct{}                    // closed when all are added, or the Manager is
}

// addLater puts plans of one name each under management in the background.
func (m *Manager) addLater(plans []plan) error {
	l := &later{plans: plans, done: make(chan struct{})}
	for {
		_ = m.settle(m.ctx) // one at a time, in the order of the calls
		m.mu.Lock()
		switch {
		case m.isClosed:
			m.mu.Unlock()
			return ErrClosed
		case m.later.CompareAndSwap(nil, l):
			m.work.Go(func() { m.addAll(l) })
			m.mu.Unlock()
			return nil
		}
		m.mu.Unlock()
	}
}

// addAll adds the plans of l in parts that grow, since each part copies the
// cache's tables.
func (m *Manager) addAll(l *later) {
	defer close(l.done)
	defer m.later.Store(nil)
	index := make(map[string]int32, len(l.plans))
	for i, p := range l.plans {
		index[p.name] = int32(i)
	}
	l.index.Store(&index)
	for added := 0; added < len(l.plans) && m.ctx.Err() == nil; {
		n := min(max(atOnce, added/4), len(l.plans)-added)
		m.mu.Lock()
		m.addLocked(l.plans[added:added+n], nil)
		m.mu.Unlock()
		added += n
	}
}

// settle waits until what ManageAsync was called with is managed, or ctx ends.
func (m *Manager) settle(ctx context.Context) error {
	l := m.later.Load()
	if l == nil {
		return nil
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for names to be added: %w", context.Cause(ctx))
	}
}

// find returns the plan for a name, nil when there is none.
func (l *later) find(name string) []plan {
	if index := l.index.Load(); index != nil {
		if i, ok := (*index)[name]; ok {
			return l.plans[i : i+1]
		}
		return nil
	}
	for i := range l.plans { // for as long as it takes to make the index
		if l.plans[i].name == name {
			return l.plans[i : i+1]
		}
	}
	return nil
}

// addAsked adds what there is for a name that a handshake asks for, and for the
// wildcard above it, if the background has not come to it.
func (m *Manager) addAsked(name string) {
	l := m.later.Load()
	if l == nil {
		return
	}
	for _, n := range []string{name, "*." + hostname.Parent(name)} {
		found := l.find(n)
		if found == nil || len(m.managedFor(n)) > 0 {
			continue
		}
		m.mu.Lock()
		// When the background has ended, what it added may be unmanaged already.
		if !m.isClosed && m.later.Load() == l {
			m.addLocked(found, nil)
		}
		m.mu.Unlock()
	}
}
