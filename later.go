package certwright

const (
	// atOnce is how many names ManageAsync adds before it returns. More of them
	// are added in the background, so that a server with many names need not wait
	// before it listens.
	atOnce = 1024

	// atMost bounds how many are added under the Manager's lock together.
	atMost = 8192
)

// later is what one call of ManageAsync has left to add.
type later struct {
	plans []plan
	done  chan struct{} // closed when all are added, or the Manager is
}

// addLater puts plans under management in the background.
func (m *Manager) addLater(plans []plan) error {
	l := &later{plans: plans, done: make(chan struct{})}
	for {
		m.settle() // one at a time, in the order of the calls
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
	for added := 0; added < len(l.plans) && m.ctx.Err() == nil; {
		n := min(max(atOnce, added/4), atMost, len(l.plans)-added)
		m.mu.Lock()
		m.addLocked(l.plans[added:added+n], nil)
		m.mu.Unlock()
		added += n
	}
}

// settle waits until what ManageAsync was called with is managed.
func (m *Manager) settle() {
	if l := m.later.Load(); l != nil {
		<-l.done
	}
}

// addAsked adds the plan for a name that a handshake asks for, if there is one
// that was not come to yet, and reports whether there was.
func (m *Manager) addAsked(name, wildcard string) bool {
	l := m.later.Load()
	if l == nil {
		return false
	}
	for i := range l.plans {
		if n := l.plans[i].names[0]; n == name || n == wildcard {
			m.mu.Lock()
			defer m.mu.Unlock()
			if !m.isClosed {
				m.addLocked(l.plans[i:i+1], nil)
			}
			return true
		}
	}
	return false
}
