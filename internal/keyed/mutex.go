// Package keyed has a mutex for each key out of any number, and nothing for keys
// that nobody uses.
package keyed

import (
	"context"
	"fmt"
	"sync"
)

// A Mutex is a set of locks, one for each key. The zero Mutex is ready. It is
// safe for concurrent use and must not be copied after first use.
type Mutex struct {
	mu    sync.Mutex // guards locks and every lock's users
	locks map[string]*lock
}

type lock struct {
	held  chan struct{} // holds one value while the lock is held
	users int           // the holder and those who wait
}

// Lock waits until it holds the lock of key and returns the function that gives
// it back; more calls of that function do nothing. Those who wait get the lock
// in the order in which they came. When ctx ends first the error wraps its
// cause and there is nothing to give back. A holder that locks its key again
// waits for itself.
func (m *Mutex) Lock(ctx context.Context, key string) (unlock func(), err error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("locking %q: %w", key, context.Cause(ctx))
	}
	l := m.use(key)
	select {
	case l.held <- struct{}{}:
		return sync.OnceFunc(func() {
			<-l.held
			m.leave(key, l)
		}), nil
	case <-ctx.Done():
		m.leave(key, l)
		return nil, fmt.Errorf("locking %q: %w", key, context.Cause(ctx))
	}
}

func (m *Mutex) use(key string) *lock {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.locks[key]
	if l == nil {
		if m.locks == nil {
			m.locks = make(map[string]*lock)
		}
		l = &lock{held: make(chan struct{}, 1)}
		m.locks[key] = l
	}
	l.users++
	return l
}

func (m *Mutex) leave(key string, l *lock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(m.locks, key)
	}
}
